"""What goes into a network and what comes out, stated once: names, shapes with symbolic axes, dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import msgspec

from ditzoo.errors import InputError

Array: TypeAlias = Any
"""An array of any library that follows the Python array API (numpy, torch)."""

T = TypeVar("T")

DType: TypeAlias = Literal["float32", "float16", "bfloat16", "int64"]

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
"""What a network computes in; its inputs and outputs are float32 whatever that is."""

Device: TypeAlias = Literal["cpu", "cuda"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEVICES: tuple[Device, ...] = get_args(Device)


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every record: immutable, and read back from JSON or TOML with every field checked."""


def to_json(record: object) -> bytes:
    """A record as readable JSON, the same bytes every time."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def from_json(text: bytes | str, kind: type[T]) -> T:
    """The record of that `kind` in JSON `text`; raises ValueError, naming the place, if it is none."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error


class TensorSpec(Data, frozen=True, kw_only=True):
    """One input or output of a network.

    An axis of `shape` is a number, or a name where any positive number fits; the same name means the same number on every
    tensor of one call.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: DType = "float32"

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    def concrete(self, **axes: int) -> tuple[int, ...]:
        """The shape with every symbolic axis replaced by its number in `axes`; raises KeyError where one is missing."""
        return tuple(axis if isinstance(axis, int) else axes[axis] for axis in self.shape)


def check_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> None:
    """Raises InputError, saying what was expected and what was given, unless `inputs` are what `specs` describe."""
    expected = [spec.name for spec in specs]
    if sorted(expected) != sorted(inputs):
        raise InputError(f"expected the inputs {', '.join(expected)}; given: {', '.join(inputs) or 'none'}")
    axes: dict[str, int] = {}
    for spec in specs:
        _check_input(spec, inputs[spec.name], axes)


def _check_input(spec: TensorSpec, array: Array, axes: dict[str, int]) -> None:
    dtype, shape = str(array.dtype).removeprefix("torch."), tuple(array.shape)
    fits = dtype == spec.dtype and len(shape) == len(spec.shape)
    for axis, size in zip(spec.shape, shape, strict=False):
        bound = axis if isinstance(axis, int) else axes.setdefault(axis, size)
        fits = fits and size == bound and size > 0
    if not fits:
        bound_axes = ", ".join(f"{name} = {size}" for name, size in axes.items() if name in spec.shape)
        where = f" with {bound_axes}" if bound_axes else ""
        raise InputError(f"expected {spec}{where}; given {spec.name}: {dtype}[{', '.join(map(str, shape))}]")

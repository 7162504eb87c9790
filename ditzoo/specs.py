"""What goes into a network and what comes out, stated once: names, shapes with symbolic axes, dtypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from ditzoo.errors import InputError
from ditzoo.records import Data

Array: TypeAlias = Any
"""An array of any library that follows the Python array API (numpy, torch)."""

DType: TypeAlias = Literal["float64", "float32", "float16", "bfloat16", "int64"]

Precision: TypeAlias = Literal["fp64", "fp32", "bf16", "fp16", "int8", "fp8"]
"""What a network computes in. Its inputs and outputs are float64 in fp64, which only torch has, and float32 in any other. Eight
bits are those of the weights, and of what they are multiplied with; all else stays in float32."""

Target: TypeAlias = Literal["onnxruntime", "tensorrt"]
"""What an ONNX graph is written for: it decides the opset, and whether int8 measures its inputs as it runs (onnxruntime, for
CPUs) or carries scales measured beforehand (tensorrt)."""

Device: TypeAlias = Literal["cpu", "cuda", "tensorrt", "tensorrt_rtx"]
"""Where a network runs. The last two are for ONNX Runtime: a GPU, through its execution provider of that TensorRT."""

Form: TypeAlias = Literal["split", "single"]
"""Whether conditioning, which depends on time and label alone, is a graph of its own, or all is one graph."""

Flavour: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]
"""The two TensorRTs: the one for data centres and the one for RTX cards. Each is a Python module of that name."""

FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
TARGETS: tuple[Target, ...] = get_args(Target)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
GRAPH_PRECISIONS: tuple[Precision, ...] = tuple(name for name in PRECISIONS if name != "fp64")
DEVICES: tuple[Device, ...] = get_args(Device)
FORMS: tuple[Form, ...] = get_args(Form)


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


def resized(spec: TensorSpec, size: tuple[int, int] | None = None) -> TensorSpec:
    """A tensor of a network, for latents of another size (height, width), or of any size; what has no size stays as it is."""
    if len(spec.shape) != 4:
        return spec
    return TensorSpec(name=spec.name, shape=(*spec.shape[:2], *(size or ("height", "width"))), dtype=spec.dtype)


class Range(Data, frozen=True, kw_only=True):
    """The numbers that an axis takes, and the one to be fastest at."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"{self} is no range: it needs 1 <= min <= opt <= max")

    def __str__(self) -> str:
        numbers = (self.min, self.opt, self.max)
        return str(self.min) if self.min == self.max else "-".join(map(str, numbers if self.opt != self.max else numbers[::2]))


class Profile(Data, frozen=True, kw_only=True):
    """The sizes that an engine is built for: a range for each symbolic axis of its inputs. Others are free."""

    axes: dict[str, Range]

    def __str__(self) -> str:
        return " ".join(f"{name}={sizes}" for name, sizes in sorted(self.axes.items()))

    def shapes(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The smallest, the best and the largest shape of an input; raises KeyError for an axis without a range."""
        low, best, high = (
            spec.concrete(**{name: getattr(sizes, end) for name, sizes in self.axes.items()}) for end in ("min", "opt", "max")
        )
        return low, best, high

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether every size that this profile has a range for is in it."""
        return all(self.axes[name].min <= size <= self.axes[name].max for name, size in sizes.items() if name in self.axes)


def axes_of(specs: Sequence[TensorSpec], tensors: Mapping[str, Array]) -> dict[str, int]:
    """The number that every symbolic axis of `specs` has in `tensors`."""
    sizes = {axis: size for spec in specs for axis, size in zip(spec.shape, tensors[spec.name].shape, strict=True)}
    return {axis: size for axis, size in sizes.items() if isinstance(axis, str)}


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

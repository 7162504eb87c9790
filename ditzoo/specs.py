"""The inputs and outputs of networks: their names, their shapes with symbolic axes, their dtypes, and the precisions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from ditzoo.errors import InputError, UsageError, check_type, is_whole_number, shortened, unknown
from ditzoo.records import Data

Array: TypeAlias = Any
"""An array of any library that follows the Python array API (numpy, torch)."""

DType: TypeAlias = Literal["float64", "float32", "int64"]
"""The dtype of an input or output of a network."""

Precision: TypeAlias = Literal["fp64", "fp32", "bf16", "fp16", "int8", "fp8"]
"""The precision that a network computes in. In int8 and fp8, only the large matrix multiplications are quantized: their weights
and their inputs. Everything else is in float32. `PRECISION_TRAITS` describes each precision."""

Arithmetic: TypeAlias = Precision | Literal["tf32"]
"""A precision, or "tf32": fp32 whose matrix multiplications and convolutions a GPU computes in TF32."""

Target: TypeAlias = Literal["onnxruntime", "tensorrt"]
"""The runtime that an ONNX graph is written for. It decides the opset. It also decides how int8 graphs scale their inputs.
Those for onnxruntime (on CPUs) measure the scales as they run. Those for tensorrt hold scales that were measured beforehand."""

Device: TypeAlias = Literal["cpu", "cuda", "tensorrt", "tensorrt_rtx"]
"""The kind of device that a network runs on. The last two are only for ONNX Runtime: it runs the network on a GPU with its
execution provider for TensorRT or TensorRT-RTX. Where a function takes the text of a device, a GPU may have a number, as in
"cuda:1"; `split_device` reads it."""

Form: TypeAlias = Literal["split", "single"]
"""The number of graphs of a network. "single" is one graph. "split" puts conditioning, which depends only on time and label,
into a second graph."""

RESIDUAL = "residual"
"""The name of the tensor [B, T, D] that the middle blocks of a network add to the tokens: see `ditzoo.nets.reuse`."""

Flavour: TypeAlias = Literal["tensorrt", "tensorrt_rtx"]
"""The two variants of TensorRT: one for data centres and one for RTX cards. Each is the name of a Python module."""

FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
TARGETS: tuple[Target, ...] = get_args(Target)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
DEVICES: tuple[Device, ...] = get_args(Device)
FORMS: tuple[Form, ...] = get_args(Form)


def split_device(text: str) -> tuple[Device, int]:
    """The kind of a device and the number of its GPU: ("cuda", 1) for "cuda:1". Without a number it is GPU 0. "tensorrt-rtx" is
    read as "tensorrt_rtx".

    Raises UsageError for an unknown kind, and for a number that is none or that follows the CPU.
    """
    check_type("device", text, str, "a text, such as cpu, cuda or cuda:1")
    name, colon, number = text.partition(":")
    kind = next((kind for kind in DEVICES if kind == name.replace("-", "_")), None)
    if kind is None:
        raise unknown("device", text, DEVICES)
    if colon and (kind == "cpu" or not is_whole_number(number)):
        raise UsageError(f"{shortened(text)!r} is not a device; use cpu, or a GPU with its number, such as cuda:1")
    return kind, int(number or 0)


def device_name(text: str) -> str:
    """The one name of a device: "cuda" for "cuda:0". Raises UsageError if it is not a device."""
    kind, index = split_device(text)
    return f"{kind}:{index}" if index else kind


class Tolerance(Data, frozen=True, kw_only=True):
    """The limits of a parity check: the largest relative L2 error of one evaluation (`forward`) and of the final sample
    (`sample`), and the smallest PSNR in dB."""

    forward: float
    sample: float
    psnr: float


TF32_TOLERANCE = Tolerance(forward=2e-3, sample=2e-2, psnr=40.0)
"""What passes as parity with fp32 where a GPU computes it in TF32, whose mantissa has 10 bits, as that of fp16."""


class PrecisionTraits(Data, frozen=True, kw_only=True):
    """The properties of a precision.

    `torch` is the name of PyTorch's dtype. It is None if PyTorch does not run networks in this precision. `onnx` is the name of
    the element type of ONNX tensors. One value takes `bytes` bytes, and `largest` is the largest finite value. `inputs` is the
    dtype of the network's inputs and outputs; labels are always int64. `half` means that the large matrix multiplications
    compute with 16-bit inputs and outputs. `eight_bits` means that their weights and inputs are quantized. `targets` are the
    runtimes that graphs can be written for. `on_cpu` says whether ONNX Runtime runs such graphs on a CPU. `capability` is the
    lowest compute capability of a GPU, times ten; 0 means any GPU. `tolerance` has the limits of the parity with fp32.
    """

    torch: str | None = None
    onnx: str
    bytes: int
    largest: float
    inputs: DType = "float32"
    half: bool = False
    eight_bits: bool = False
    targets: tuple[Target, ...] = TARGETS
    on_cpu: bool = True
    capability: int = 0
    tolerance: Tolerance


PRECISION_TRAITS: dict[Precision, PrecisionTraits] = {
    "fp64": PrecisionTraits(
        torch="float64",
        onnx="DOUBLE",
        bytes=8,
        largest=1.7976931348623157e308,
        inputs="float64",
        targets=(),
        tolerance=Tolerance(forward=1e-5, sample=1e-4, psnr=60.0),
    ),
    "fp32": PrecisionTraits(
        torch="float32",
        onnx="FLOAT",
        bytes=4,
        largest=3.4028234663852886e38,
        tolerance=Tolerance(forward=1e-5, sample=1e-4, psnr=60.0),
    ),
    "bf16": PrecisionTraits(
        torch="bfloat16",
        onnx="BFLOAT16",
        bytes=2,
        largest=3.3895313892515355e38,
        half=True,
        on_cpu=False,
        capability=80,
        tolerance=Tolerance(forward=1.5e-2, sample=1e-1, psnr=25.0),
    ),
    "fp16": PrecisionTraits(
        torch="float16",
        onnx="FLOAT16",
        bytes=2,
        largest=65504.0,
        half=True,
        tolerance=Tolerance(forward=2e-3, sample=2e-2, psnr=40.0),
    ),
    "int8": PrecisionTraits(
        onnx="INT8",
        bytes=1,
        largest=127.0,
        eight_bits=True,
        tolerance=Tolerance(forward=3e-2, sample=2e-1, psnr=20.0),
    ),
    "fp8": PrecisionTraits(
        onnx="FLOAT8E4M3FN",
        bytes=1,
        largest=448.0,
        eight_bits=True,
        targets=("tensorrt",),
        capability=89,
        tolerance=Tolerance(forward=1e-1, sample=4e-1, psnr=15.0),
    ),
}
"""The one table of precisions. A new precision is a name in `Precision` and a row here."""

GRAPH_PRECISIONS: tuple[Precision, ...] = tuple(name for name, traits in PRECISION_TRAITS.items() if traits.targets)
"""The precisions that ONNX graphs and engines are written in."""


class TensorSpec(Data, frozen=True, kw_only=True):
    """One input or output of a network.

    An axis of `shape` is a number or a name. A name stands for any positive number. In one call, the same name has the same
    number in every tensor.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: DType = "float32"

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"

    def concrete(self, **axes: int) -> tuple[int, ...]:
        """The shape, with each symbolic axis replaced by its number in `axes`. Raises KeyError if one is missing there."""
        return tuple(axis if isinstance(axis, int) else axes[axis] for axis in self.shape)


_TENSOR_NAME = re.compile(r"[!#-&(-\[\]-~]{1,200}")
_LARGEST_AXIS = 2**31 - 1


def check_specs(kind: str, specs: Sequence[TensorSpec]) -> None:
    """Raises ValueError unless every name is valid and occurs once, and every axis is a positive number or a name.

    `kind` says what the specs are, for the message. A valid name has up to 200 ASCII characters: no spaces, quotes or
    backslashes.
    """
    names = [spec.name for spec in specs]
    if not specs or len(set(names)) < len(names):
        raise ValueError(f"the {kind} must be at least one tensor, each with a name of its own, not {names}")
    for spec in specs:
        if not _TENSOR_NAME.fullmatch(spec.name):
            raise ValueError(f"{spec.name[:200]!r} among the {kind} is not a valid name of a tensor")
        for axis in spec.shape:
            if not (1 <= axis <= _LARGEST_AXIS if isinstance(axis, int) else axis.isidentifier() and axis.isascii()):
                raise ValueError(f"{spec.name} among the {kind} has the axis {axis!r}; it must be a positive number or a name")


def resized(spec: TensorSpec, size: tuple[int, int] | None = None) -> TensorSpec:
    """The spec of an image tensor, [B, C, H, W], for another `size` (height, width). Without `size`, it takes any size.

    The spec of any other tensor stays as it is.
    """
    if len(spec.shape) != 4:
        return spec
    return TensorSpec(name=spec.name, shape=(*spec.shape[:2], *(size or ("height", "width"))), dtype=spec.dtype)


class Range(Data, frozen=True, kw_only=True):
    """The numbers that an axis takes, from `min` to `max`. `opt` is the number that an engine is optimized for."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"{self} is not a range: it needs 1 <= min <= opt <= max")

    def __str__(self) -> str:
        numbers = (self.min, self.opt, self.max)
        return str(self.min) if self.min == self.max else "-".join(map(str, numbers if self.opt != self.max else numbers[::2]))


class Profile(Data, frozen=True, kw_only=True):
    """The sizes that an engine is built for: a range for each symbolic axis of its inputs. An axis without a range is free."""

    axes: dict[str, Range]

    def __str__(self) -> str:
        return " ".join(f"{name}={sizes}" for name, sizes in sorted(self.axes.items()))

    def shapes(self, spec: TensorSpec) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """The smallest, the optimal and the largest shape of an input. Raises KeyError if a symbolic axis has no range."""
        low, best, high = (
            spec.concrete(**{name: getattr(sizes, end) for name, sizes in self.axes.items()}) for end in ("min", "opt", "max")
        )
        return low, best, high

    def fits(self, sizes: Mapping[str, int]) -> bool:
        """Whether each size is in the range of its axis. Axes without a range are ignored."""
        return all(self.axes[name].min <= size <= self.axes[name].max for name, size in sizes.items() if name in self.axes)


def axes_of(specs: Sequence[TensorSpec], tensors: Mapping[str, Array]) -> dict[str, int]:
    """The number of each symbolic axis of `specs` in `tensors`."""
    sizes = {axis: size for spec in specs for axis, size in zip(spec.shape, tensors[spec.name].shape, strict=True)}
    return {axis: size for axis, size in sizes.items() if isinstance(axis, str)}


def check_inputs(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> None:
    """Raises InputError, which says what was expected and given, unless names, dtypes and shapes of `inputs` fit `specs`."""
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

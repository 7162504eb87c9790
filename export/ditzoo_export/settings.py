"""What an export is asked for, and how the texts of the command line say it. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from ditzoo.errors import UsageError, unknown
from ditzoo.records import Data
from ditzoo.specs import FLAVOURS, GRAPH_PRECISIONS, TARGETS, Flavour, Precision, Profile, Range, Target
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels, own_size, parse_size

OPSETS: dict[Target, int] = {"onnxruntime": 20, "tensorrt": 23}
"""Up to 22 attention is written as its parts, which every ONNX Runtime runs; from 23 on as one op, which TensorRT fuses."""


class Settings(Data, frozen=True, kw_only=True):
    """One ONNX export. `size` is that of the latents, None where the graph takes any; `split` hoists conditioning into a graph
    of its own; `guided` adds a graph with guidance inside it."""

    precision: Precision = "fp32"
    target: Target = "onnxruntime"
    size: Size | None
    split: bool
    guided: bool = False

    @property
    def calibrated(self) -> bool:
        """Whether the graphs carry scales that were measured beforehand."""
        return self.eight_bits and self.target == "tensorrt"

    @property
    def eight_bits(self) -> bool:
        """Whether the graphs are made from float32 ones."""
        return self.precision in ("int8", "fp8")

    @property
    def opset(self) -> int:
        """The opset of the graphs."""
        return OPSETS[self.target]

    def command(self, card: Card) -> str:
        """The command line that makes this export."""
        size = "dynamic" if self.size is None else in_pixels(card, self.size)
        words = [f"ditzoo export onnx {card.name} --precision {self.precision} --target {self.target} --resolution {size}"]
        words += ["--split" if self.split else "--single"] + (["--guided"] if self.guided else [])
        return " ".join(words)


def make_settings(
    card: Card,
    *,
    precision: str = "fp32",
    target: str = "onnxruntime",
    resolution: str | None = None,
    split: bool | None = None,
    guided: bool = False,
) -> Settings:
    """The settings of an export of `card`; what is not given is the card's own. Raises UsageError for what cannot be."""
    for kind, given, known in (("precision", precision, GRAPH_PRECISIONS), ("target", target, TARGETS)):
        if given not in known:
            raise unknown(kind, given, known)
    if precision == "fp8" and target != "tensorrt":
        raise UsageError("fp8 is for GPUs; add --target tensorrt, or use --precision int8")
    if split and not card.splits:
        raise UsageError(
            f"{card.name} cannot be split: no part of its network depends on time and label alone; leave --split out"
        )
    if guided and card.null_label is None:
        raise UsageError(f"{card.name} has no null label, so there is no guidance to put inside; leave --guided out")
    if guided and precision in ("int8", "fp8") and target == "tensorrt":
        raise UsageError(f"a guided graph is not made in {precision} for tensorrt; use fp16, or leave --guided out")
    return Settings(
        precision=precision,  # type: ignore[arg-type]  # checked above
        target=target,  # type: ignore[arg-type]
        size=parse_resolution(card, resolution),
        split=card.splits if split is None else split,
        guided=guided,
    )


GPUS: dict[str, int] = {"sm75": 75, "sm80": 80, "sm86": 86, "sm89": 89, "sm90": 90, "sm100": 100, "sm120": 120, "sm121": 121}
"""The GPUs that an engine can be built for, and their compute capabilities, times ten."""

NEEDS: dict[Precision, int] = {"bf16": 80, "fp8": 89}
"""The least compute capability of a precision that not every GPU has."""

CURRENT = "current"
_CONDITIONING_ROWS = Range(min=1, opt=64, max=64)


class EngineSettings(Data, frozen=True, kw_only=True):
    """One build of TensorRT engines, from the ONNX export `onnx`.

    `profiles` are those of the backbone; `merged`: all in one engine, else an engine each. `gpus` None: this machine's.
    `options` are "stripped" (weights left out, to be filled in from the ONNX file), "refittable", "hardware_compatible" and
    "version_compatible".
    """

    onnx: Settings
    flavour: Flavour
    gpus: tuple[str, ...] | None
    profiles: tuple[Profile, ...]
    merged: bool = False
    options: tuple[str, ...] = ()

    def command(self, card: Card) -> str:
        """The command line that builds these engines."""
        sizes = dict.fromkeys(in_pixels(card, (p.axes["height"].opt, p.axes["width"].opt)) for p in self.profiles)
        batches = dict.fromkeys(str(profile.axes["batch"]) for profile in self.profiles)
        words = [
            f"ditzoo export tensorrt {card.name} --flavour {self.flavour} --gpu {','.join(self.gpus or (CURRENT,))}",
            f"--resolution {','.join(sizes)} --batch {','.join(batches)} --precision {self.onnx.precision}",
            f"--profiles {'merged' if self.merged else 'separate'} {'--split' if self.onnx.split else '--single'}",
        ]
        return " ".join([*words, *(f"--{option.replace('_', '-')}" for option in self.options)])


OPTIONS = ("stripped", "refittable", "hardware_compatible", "version_compatible")


def make_engine_settings(
    card: Card,
    *,
    flavour: str = "tensorrt_rtx",
    gpu: str = CURRENT,
    resolution: str | None = None,
    batch: str = "1-4",
    precision: str = "fp16",
    merged: bool = False,
    split: bool | None = None,
    options: Sequence[str] = (),
) -> EngineSettings:
    """The settings of a build of engines for `card`: for each of the resolutions, each of the batch sizes, as
    `parse_resolutions` and `parse_batches` read them. Raises UsageError for what cannot be."""
    flavour = flavour.replace("-", "_")
    if flavour not in FLAVOURS:
        raise unknown("flavour", flavour, FLAVOURS)
    sizes = parse_resolutions(card, resolution)
    any_size = None if sizes == [own_size(card)] else "dynamic"
    onnx = make_settings(card, precision=precision, target="tensorrt", resolution=any_size, split=split)
    for option in options:
        if option not in OPTIONS:
            raise unknown("option", option, OPTIONS)
    profiles = [
        Profile(axes={"batch": rows, "height": _exactly(height), "width": _exactly(width)})
        for height, width in sizes
        for rows in parse_batches(batch)
    ]
    return EngineSettings(
        onnx=onnx,
        flavour=flavour,
        gpus=None if gpu == CURRENT else _parse_gpus(gpu, onnx.precision),
        profiles=tuple(profiles),
        merged=merged,
        options=tuple(sorted(options)),
    )


def conditioning_profile() -> Profile:
    """The profile of the engine of "conditioning": any number of (time, label) pairs up to 64 at a time."""
    return Profile(axes={"batch": _CONDITIONING_ROWS})


def check_precision(gpu: str, precision: Precision) -> None:
    """Raises UsageError where a GPU has no such arithmetic."""
    if GPUS[gpu] < NEEDS.get(precision, 0):
        raise UsageError(f"{gpu} has no {precision}, which begins with sm{NEEDS[precision]}; use --precision fp16")


def _parse_gpus(text: str, precision: Precision) -> tuple[str, ...]:
    gpus = tuple(part.strip() for part in text.split(","))
    for gpu in gpus:
        if gpu not in GPUS:
            raise unknown("GPU", gpu, [*GPUS, CURRENT])
        check_precision(gpu, precision)
    return gpus


def _exactly(number: int) -> Range:
    return Range(min=number, opt=number, max=number)


def number_of_tokens(card: Card) -> int:
    """How many patches the card's network makes of an image."""
    height, width = own_size(card)
    return height * width // card.backbone.patch_size**2


def parse_resolution(card: Card, text: str | None) -> Size | None:
    """The size of the latents of pictures of "256" or "256x384" (height x width) pixels; None for "dynamic".

    Raises UsageError where the network cannot have latents of that size.
    """
    if text == "dynamic" and card.backbone.resizable:
        return None
    if text == "dynamic":
        raise UsageError(f"{card.name} learned the positions of {in_pixels(card, own_size(card))} pixels; it takes no {text}")
    return own_size(card) if text is None else parse_size(card, text, examples="256, 256x384 or dynamic")


def parse_resolutions(card: Card, text: str | None) -> list[Size]:
    """The sizes of the latents of a list like "256,512"."""
    sizes = [parse_resolution(card, part.strip()) for part in text.split(",")] if text else [own_size(card)]
    if None in sizes:
        raise UsageError("an engine is built for resolutions that are numbers, such as 256,512; not for dynamic")
    return [size for size in sizes if size is not None]


def parse_batches(text: str) -> list[Range]:
    """The ranges of a list like "1,4,8-16,2-8-32": a number, smallest-largest (best at that), or smallest-best-largest."""
    return [_parse_range(part.strip()) for part in text.split(",")]


def _parse_range(text: str) -> Range:
    parts = text.split("-")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"{text!r} in --batch is no batch size; write 4, 8-16 or 2-8-16 (smallest-best-largest)")
    numbers = [int(part) for part in parts]
    if numbers[0] < 1:
        raise UsageError(f"{text!r} in --batch: a batch has 1 or more")
    if numbers != sorted(numbers):
        raise UsageError(f"the batch range {text!r} runs backwards; write {'-'.join(map(str, sorted(numbers)))}")
    return Range(min=numbers[0], opt=numbers[len(numbers) // 2], max=numbers[-1])

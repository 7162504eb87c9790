"""The settings of an ONNX export and of a build of engines, checked against the card.

This module imports no large library.
"""

from __future__ import annotations

from collections.abc import Iterable

from ditzoo.errors import UsageError, check_count, check_flags, check_known, check_type, each_of, wrong_type
from ditzoo.plan.reuse import parse_blocks
from ditzoo.records import Data
from ditzoo.specs import FLAVOURS, GRAPH_PRECISIONS, PRECISION_TRAITS, TARGETS, Flavour, Precision, Profile, Range, Target
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels, own_size
from ditzoo_export.gpus import CURRENT, architecture
from ditzoo_export.sizes import exactly, parse_batches, parse_resolution, parse_resolutions

OPSET, ATTENTION_OPSET = 20, 23
"""The opset of most graphs, and that of graphs with ONNX's operator for attention, which came with opset 23."""


class Settings(Data, frozen=True, kw_only=True):
    """The settings of one ONNX export.

    `size` is the size of the latents, or None if the graphs take any size. `split` puts conditioning into a separate graph.
    `guided` adds a graph with guidance inside. `outer_blocks` adds a graph that runs this many of the first and of the last
    blocks only, and lets the backbone give the residual that this graph takes.
    """

    precision: Precision = "fp32"
    target: Target = "onnxruntime"
    size: Size | None
    split: bool
    guided: bool = False
    outer_blocks: int | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the graphs hold scales that are measured on a sampling run."""
        return self.eight_bits and self.target == "tensorrt"

    @property
    def eight_bits(self) -> bool:
        """Whether the graphs are quantized. They are made from float32 graphs."""
        return PRECISION_TRAITS[self.precision].eight_bits

    @property
    def traced(self) -> Precision:
        """The precision in which PyTorch's exporter writes the graphs, before they are quantized."""
        return "fp32" if self.eight_bits else self.precision

    def command(self, card: Card) -> str:
        """The command line that makes this export."""
        size = "dynamic" if self.size is None else in_pixels(card, self.size)
        words = [f"ditzoo export onnx {card.name} --precision {self.precision} --target {self.target} --resolution {size}"]
        words += ["--split" if self.split else "--single"] + (["--guided"] if self.guided else [])
        words += [] if self.outer_blocks is None else [f"--reuse blocks={self.outer_blocks}"]
        return " ".join(words)


def make_settings(
    card: Card,
    *,
    precision: str = "fp32",
    target: str = "onnxruntime",
    resolution: str | None = None,
    split: bool | None = None,
    guided: bool = False,
    reuse: str | None = None,
) -> Settings:
    """The settings of an export of `card`. The card gives the defaults of `resolution` and `split`. `reuse` is "blocks=K".

    Raises UsageError if the settings are invalid, or not possible for this card.
    """
    check_known("precision", precision, GRAPH_PRECISIONS)
    check_known("target", target, TARGETS)
    check_flags(guided=guided, **({} if split is None else {"split": split}))
    traits = PRECISION_TRAITS[precision]  # type: ignore[index]  # checked above
    if target not in traits.targets:
        raise UsageError(f"{precision} is for GPUs; add --target {' or '.join(traits.targets)}, or use --precision int8")
    if split and not card.splits:
        raise UsageError(
            f"{card.name} cannot be split: no part of its network depends on time and label alone; leave --split out"
        )
    if guided and card.null_label is None:
        raise UsageError(f"{card.name} has no null label, so there is no guidance to put inside; leave --guided out")
    if guided and traits.eight_bits and target == "tensorrt":
        raise UsageError(f"a guided graph is not made in {precision} for tensorrt; use fp16, or leave --guided out")
    size = parse_resolution(card, resolution)
    if reuse is not None and size is None:
        raise UsageError("graphs with reuse take one resolution; use --resolution 256, or leave --reuse out")
    return Settings(
        precision=precision,  # type: ignore[arg-type]  # checked above
        target=target,
        size=size,
        split=card.splits if split is None else split,
        guided=guided,
        outer_blocks=None if reuse is None else parse_blocks(card, reuse),
    )


_CONDITIONING_ROWS = Range(min=1, opt=64, max=64)


class EngineSettings(Data, frozen=True, kw_only=True):
    """The settings of one build of TensorRT engines from the ONNX export `onnx`.

    `profiles` are the profiles of the backbone. `merged` puts all of them into one engine; otherwise there is one engine per
    profile. `gpus` is None for the GPU of this machine. `options` are "stripped" (the engine is built without weights, and it
    reads them from the ONNX file later), "refittable", "hardware_compatible", "version_compatible", "tf32" (fp32 may be
    computed in TF32), and "weight_streaming" (weights that do not fit into the memory of the GPU stay on the host, and are
    copied when they are needed). `workspace` is the most device memory for the intermediate results of one layer, in MB.
    """

    onnx: Settings
    flavour: Flavour
    gpus: tuple[str, ...] | None
    profiles: tuple[Profile, ...]
    merged: bool = False
    options: tuple[str, ...] = ()
    workspace: int | None = None

    def command(self, card: Card) -> str:
        """The command line that builds these engines."""
        sizes = dict.fromkeys(in_pixels(card, (p.axes["height"].opt, p.axes["width"].opt)) for p in self.profiles)
        batches = dict.fromkeys(str(profile.axes["batch"]) for profile in self.profiles)
        words = [
            f"ditzoo export tensorrt {card.name} --flavour {self.flavour} --gpu {','.join(self.gpus or (CURRENT,))}",
            f"--resolution {','.join(sizes)} --batch {','.join(batches)} --precision {self.onnx.precision}",
            f"--profiles {'merged' if self.merged else 'separate'} {'--split' if self.onnx.split else '--single'}",
        ]
        words += [] if self.workspace is None else [f"--workspace {self.workspace}"]
        words += [] if self.onnx.outer_blocks is None else [f"--reuse blocks={self.onnx.outer_blocks}"]
        return " ".join([*words, *(f"--{option.replace('_', '-')}" for option in self.options)])


OPTIONS = ("stripped", "refittable", "hardware_compatible", "version_compatible", "tf32", "weight_streaming")

_MOST_WORKSPACE = 10_000_000  # in MB; the bytes are a number of 64 bits


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
    options: Iterable[str] = (),
    workspace: int | None = None,
    reuse: str | None = None,
) -> EngineSettings:
    """The settings of a build of engines for `card`, with a profile for every pair of a resolution and a batch range.

    `parse_resolutions` and `parse_batches` describe the texts of `resolution` and `batch`. `gpu` is "current", or a list of
    architectures and cards (see `architecture`). `reuse` is "blocks=K", for one resolution. Raises UsageError if the settings
    are invalid, or not possible for this card.
    """
    check_type("flavour", flavour, str, "tensorrt or tensorrt_rtx")
    flavour = flavour.replace("-", "_")
    check_known("flavour", flavour, FLAVOURS)
    check_type("gpu", gpu, str, f"{CURRENT}, or a list of architectures and cards, such as 'sm89,H100'")
    check_flags(merged=merged)
    wanted = _options(options)
    sizes = parse_resolutions(card, resolution)
    if reuse is not None and len(sizes) == 1:
        size: str | None = in_pixels(card, sizes[0])
    else:
        size = None if sizes == [own_size(card)] else "dynamic"
    onnx = make_settings(card, precision=precision, target="tensorrt", resolution=size, split=split, reuse=reuse)
    if "tf32" in wanted and precision != "fp32":
        raise UsageError(f"--tf32 is a way to compute fp32, and this is {precision}; leave one of the two out")
    if workspace is not None:
        check_count("the MB of --workspace", workspace, most=_MOST_WORKSPACE)
    profiles = [
        Profile(axes={"batch": rows, "height": exactly(height), "width": exactly(width)})
        for height, width in sizes
        for rows in parse_batches(batch)
    ]
    return EngineSettings(
        onnx=onnx,
        flavour=flavour,  # type: ignore[arg-type]  # checked above
        gpus=None if gpu.strip().lower() == CURRENT else _parse_gpus(gpu, onnx.precision),
        profiles=tuple(profiles),
        merged=merged,
        options=wanted,
        workspace=workspace,
    )


def _options(given: Iterable[str]) -> tuple[str, ...]:
    """The options in order. Raises UsageError if `given` is no list of `OPTIONS`."""
    takes = "a list of options, such as ['refittable']"
    if isinstance(given, str):
        raise wrong_type("options", given, takes)
    options = list(each_of("options", given, takes))
    for option in options:
        check_known("option", option, OPTIONS)
    return tuple(sorted(options))


def conditioning_profile() -> Profile:
    """The profile of the conditioning engine: a batch of up to 64 pairs of a time and a label."""
    return Profile(axes={"batch": _CONDITIONING_ROWS})


def check_precision(gpu: str, precision: Precision) -> None:
    """Raises UsageError if the GPU cannot compute in the precision."""
    least = PRECISION_TRAITS[precision].capability
    if int(gpu.removeprefix("sm")) < least:
        raise UsageError(f"{gpu} cannot compute in {precision}, which needs sm{least} or newer; use --precision fp16")


def _parse_gpus(text: str, precision: Precision) -> tuple[str, ...]:
    """The architectures in a list such as "sm89,H100", each of them once."""
    gpus = tuple(dict.fromkeys(map(architecture, text.split(","))))
    for gpu in gpus:
        check_precision(gpu, precision)
    return gpus

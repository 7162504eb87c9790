"""Checking an export before anybody sees it: ONNX Runtime's outputs beside those of torch in fp32."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import torch

from ditzoo import nets
from ditzoo.backends.base import Backend
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import Graph, Verification
from ditzoo.card import Card
from ditzoo.errors import ExportError
from ditzoo.parity import TOLERANCES, relative_l2
from ditzoo_export.graph import Inputs, check_form
from ditzoo_export.precision import write_rounded
from ditzoo_export.record import Evaluation, record
from ditzoo_export.settings import Settings, Size, own_size
from ditzoo_export.trace import random_inputs

BATCHES, STEPS = (1, 3), 5
TIMES = (1.0, 250.0, 500.0, 750.0, 999.0)


def verify(folder: Path, graphs: Mapping[str, Graph], card: Card, net: nets.Net, settings: Settings) -> Verification:
    """Holds the graphs in `folder` against `net` in fp32, at two batch sizes, five steps of a run, and two sizes if any do.

    Raises ExportError, naming output, batch, size and time, where one is beyond the tolerance of its precision.
    """
    for graph in graphs.values():
        check_form(folder / graph.file, graph)
    with tempfile.TemporaryDirectory(dir=folder, prefix="rounded-") as scratch:
        place = _runnable(folder, graphs, Path(scratch))
        runnable = {name: _as_twin(graph) for name, graph in graphs.items()}
        with OnnxRuntimeBackend(place, runnable, card) as candidate:
            random = _worst(candidate, "random", settings, _random(card, net, candidate, settings))
            steps = record(TorchBackend(card, net=net), steps=STEPS, images=1) if _samples(card, settings) else []
            along = _worst(candidate, "mid-trajectory", settings, steps or _random_times(card, net, candidate, settings))
        if "guided" in graphs:
            _check_guided(place, graphs["guided"], card, net, settings)
    return Verification(
        batches=BATCHES,
        sizes=_sizes(card, settings),
        times=tuple(float(step.inputs["t"][0]) for step in steps) or TIMES,
        random=random,
        trajectory=along,
        tolerance=TOLERANCES[settings.precision].forward,
        rounded=settings.precision == "bf16",
    )


def _runnable(folder: Path, graphs: Mapping[str, Graph], scratch: Path) -> Path:
    """The folder of graphs that ONNX Runtime can run here: the same, or one of float32 twins."""
    if graphs["backbone"].precision != "bf16":
        return folder
    for graph in graphs.values():
        write_rounded(folder / graph.file, scratch / graph.file)
    return scratch


def _as_twin(graph: Graph) -> Graph:
    return msgspec.structs.replace(graph, precision="fp32") if graph.precision == "bf16" else graph


def _sizes(card: Card, settings: Settings) -> tuple[Size, ...]:
    """The sizes of latents that are checked: the second is neither square nor the one that was traced."""
    height, width = own_size(card)
    return (settings.size,) if settings.size else ((height, width), (height, width + 2 * card.backbone.patch_size))


def _samples(card: Card, settings: Settings) -> bool:
    """Whether the graphs take latents of the size that the card is sampled at."""
    return settings.size in (None, own_size(card))


def _random(card: Card, net: nets.Net, backend: Backend, settings: Settings) -> Iterator[Evaluation]:
    """Random latents, labels and times: each batch size, and each size of latents.

    For graphs with scales that were measured beforehand, latents of a sampling run: they promise nothing for any others.
    """
    rng, (first, *others) = np.random.default_rng(1), _sizes(card, settings)
    if settings.calibrated:
        for seen in record(TorchBackend(card, net=net), steps=STEPS, images=max(BATCHES))[::2]:
            for height, width in _sizes(card, settings):
                pad = (height - seen.inputs["x"].shape[2], width - seen.inputs["x"].shape[3])
                wrapped = np.pad(seen.inputs["x"], [(0, 0), (0, 0), (0, pad[0]), (0, pad[1])], mode="wrap")
                yield _evaluate(net, {**seen.inputs, "x": wrapped}) if any(pad) else seen
        return
    for batch, (height, width) in [*((batch, first) for batch in BATCHES), *((1, size) for size in others)]:
        yield _evaluate(net, random_inputs(backend.inputs, card, rng, batch=batch, height=height, width=width))


def _random_times(card: Card, net: nets.Net, backend: Backend, settings: Settings) -> Iterator[Evaluation]:
    """Random latents and labels at times from first to last, for sizes of latents that the card has no trajectory for."""
    rng, (height, width) = np.random.default_rng(2), _sizes(card, settings)[0]
    for time in TIMES:
        inputs = random_inputs(backend.inputs, card, rng, batch=1, height=height, width=width)
        yield _evaluate(net, {**inputs, "t": np.full(1, time, np.float32)})


def _evaluate(net: nets.Net, inputs: Inputs) -> Evaluation:
    with torch.inference_mode():
        output = net(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return Evaluation(inputs=inputs, output=output.numpy())


def _worst(backend: Backend, kind: str, settings: Settings, evaluations: Iterable[Evaluation]) -> float:
    """The largest relative error over `evaluations`; raises ExportError, naming the place, where it is beyond the tolerance."""
    return max(_check(backend(seen.inputs), seen, kind, settings, backend.card) for seen in evaluations)


def _check(output: np.ndarray, expected: Evaluation, kind: str, settings: Settings, card: Card) -> float:
    error, tolerance = relative_l2(output, expected.output), TOLERANCES[settings.precision].forward
    if not error <= tolerance:
        batch, _, height, width = expected.inputs["x"].shape
        raise ExportError(
            f"the output prediction of {card.name} in {settings.precision} is off by {error:.1e} (tolerance {tolerance:.0e}) on"
            f" {kind} latents of {height}x{width}, batch {batch}, at time {expected.inputs['t'][0]:g}; nothing was kept"
        )
    return error


def _check_guided(folder: Path, graph: Graph, card: Card, net: nets.Net, settings: Settings) -> None:
    """Holds the guided graph against guidance around `net`."""
    session = ort.InferenceSession(folder / graph.file, providers=["CPUExecutionProvider"])
    rng, guided = np.random.default_rng(3), card.sampling.guided_channels
    for batch, (height, width) in zip(BATCHES, itertools.cycle(_sizes(card, settings))):
        given = random_inputs(graph.inputs, card, rng, batch=batch, height=height, width=width)
        inputs = {name: value for name, value in given.items() if name != "guidance"}
        cond = _evaluate(net, inputs)
        uncond = _evaluate(net, {**inputs, "y": np.full_like(inputs["y"], card.null_label)}).output[:, :guided]
        mixed = uncond + given["guidance"][:, None, None, None] * (cond.output[:, :guided] - uncond)
        expected = Evaluation(inputs=given, output=np.concatenate([mixed, cond.output[:, guided:]], axis=1))
        _check(session.run(None, given)[0], expected, "random, guided", settings, card)

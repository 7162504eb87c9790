"""Checking an export before anybody sees it: ONNX Runtime's outputs beside those of torch in fp32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import torch

from ditzoo.backends.base import Backend
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import Graph, Verification
from ditzoo.errors import ExportError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TOLERANCES
from ditzoo.nets.network import Network
from ditzoo.specs import resized
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, own_size
from ditzoo_export.evaluations import Evaluation, fitted, record
from ditzoo_export.graph import Inputs, check_form
from ditzoo_export.rounding import HALVES, write_rounded
from ditzoo_export.settings import Settings, number_of_tokens
from ditzoo_export.trace import random_inputs

BATCHES, STEPS = (1, 3), 5
SAMPLED_TOKENS = 256
"""Small images are drawn together until they have so many: near the end of a run errors of single ones scatter by half."""

SAMPLING_SEED = 2
"""Of the run that graphs with scales are checked on, which is not the one that the scales were measured on."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the network gives in fp32, on random latents and along a sampling run, and with guidance inside."""

    random: list[Evaluation]
    trajectory: list[Evaluation]
    guided: list[Evaluation]


def expect(card: Card, net: Network, settings: Settings) -> Expected:
    """Evaluates `net` on all that an export will be held against: two batch sizes, five steps of a run without guidance, and
    two sizes of latents if the export takes any."""
    images = max(1, SAMPLED_TOKENS // number_of_tokens(card))
    run = record(TorchBackend(card, net=net), steps=STEPS, images=images, guidance=1)
    if settings.size not in (None, own_size(card)):
        run = [_evaluate(net, _rows(seen.inputs, images, settings.size)) for seen in run]
    return Expected(
        random=list(_random(card, net, settings)),
        trajectory=run,
        guided=list(_guided(card, net, settings)) if settings.guided else [],
    )


def verify(folder: Path, graphs: Mapping[str, Graph], card: Card, expected: Expected, settings: Settings) -> Verification:
    """Holds the graphs in `folder` against what is expected of them.

    Raises ExportError, naming output, batch, size and time, where one is beyond the tolerance of its precision.
    """
    for graph in graphs.values():
        check_form(folder / graph.file, graph)
    with _runnable(folder, graphs) as runnable:
        with OnnxRuntimeBackend(folder, runnable, card) as candidate:
            random = _worst(candidate, "random", settings, expected.random)
            along = _worst(candidate, "mid-trajectory", settings, expected.trajectory)
        if "guided" in runnable:
            _check_guided(folder / runnable["guided"].file, card, expected.guided, settings)
    return Verification(
        batches=BATCHES,
        sizes=_sizes(card, settings),
        times=tuple(float(step.inputs["t"][0]) for step in expected.trajectory),
        random=random,
        trajectory=along,
        tolerance=TOLERANCES[settings.precision].forward,
        rounded=settings.precision in HALVES,
    )


@contextmanager
def _runnable(folder: Path, graphs: Mapping[str, Graph]) -> Iterator[dict[str, Graph]]:
    """The graphs in `folder`, those in half precision as twins of them that compute here what a GPU does."""
    twins = {name: write_rounded(folder, graph) for name, graph in graphs.items() if graph.precision in HALVES}
    try:
        yield {**graphs, **twins}
    finally:
        for twin in twins.values():
            (folder / twin.file).unlink()


def _sizes(card: Card, settings: Settings) -> tuple[Size, ...]:
    """The sizes of latents that are checked: the second is neither square nor the one that was traced."""
    height, width = own_size(card)
    return (settings.size,) if settings.size else ((height, width), (height, width + 2 * card.backbone.patch_size))


def _random(card: Card, net: Network, settings: Settings) -> Iterator[Evaluation]:
    """Random latents, labels and times, each batch size of another size of latents if the graphs take any.

    For graphs with scales that were measured beforehand, latents of a sampling run: they promise nothing for any others.
    """
    shapes = list(zip(reversed(BATCHES), itertools.cycle(_sizes(card, settings))))
    if settings.calibrated:
        run = record(TorchBackend(card, net=net), steps=STEPS, images=max(BATCHES), seed=SAMPLING_SEED)
        for (batch, size), seen in itertools.product(shapes, run[::2]):
            yield _evaluate(net, _rows(seen.inputs, batch, size))
        return
    draw = _inputs(card, net, settings, seed=1)
    for batch, size in shapes:
        yield _evaluate(net, draw(batch, size))


def _rows(inputs: Inputs, batch: int, size: Size) -> Inputs:
    """Rows out of all of the inputs, as many as `batch`, for latents of a size."""
    rows = {name: value[:: len(value) // batch][:batch] for name, value in inputs.items()}
    return {**rows, "x": fitted(rows["x"], size)}


def _guided(card: Card, net: Network, settings: Settings) -> Iterator[Evaluation]:
    """Guidance around the network, on random inputs."""
    draw, guided = _inputs(card, net, settings, seed=3), card.sampling.guided_channels
    for batch, size in zip(BATCHES, itertools.cycle(_sizes(card, settings))):
        inputs = draw(batch, size)
        scale = np.random.default_rng(batch).standard_normal(batch).astype(np.float32)
        cond = _evaluate(net, inputs).output
        uncond = _evaluate(net, {**inputs, "y": np.full_like(inputs["y"], card.null_label)}).output[:, :guided]
        mixed = uncond + scale[:, None, None, None] * (cond[:, :guided] - uncond)
        yield Evaluation(inputs={**inputs, "guidance": scale}, output=np.concatenate([mixed, cond[:, guided:]], axis=1))


def _inputs(card: Card, net: Network, settings: Settings, *, seed: int) -> Callable[[int, Size], Inputs]:
    """A source of random inputs of the network, for a batch and a size of latents."""
    specs, rng = tuple(resized(spec, settings.size) for spec in net.inputs), np.random.default_rng(seed)
    return lambda batch, size: random_inputs(specs, card, rng, batch=batch, height=size[0], width=size[1])


def _evaluate(net: Network, inputs: Inputs) -> Evaluation:
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


def _check_guided(path: Path, card: Card, expected: Iterable[Evaluation], settings: Settings) -> None:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    for seen in expected:
        _check(session.run(None, seen.inputs)[0], seen, "random, guided", settings, card)

"""Verifying an export before its bundle appears: ONNX Runtime's outputs are compared with those of PyTorch in fp32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch

from ditzoo.backends.base import Backend
from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.backends.sessions import open_session
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import Graph, Verification
from ditzoo.errors import ExportError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TOLERANCES
from ditzoo.nets.network import Network
from ditzoo.specs import PRECISION_TRAITS, resized
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, own_size
from ditzoo_export.network_graphs import random_inputs
from ditzoo_export.onnx_files import Inputs, check_form
from ditzoo_export.rounding import rounded_twins
from ditzoo_export.sampling_run import Evaluation, cut_or_repeated, run_evaluations
from ditzoo_export.settings import Settings
from ditzoo_export.sizes import number_of_tokens

BATCHES, STEPS = (1, 3), 5
SAMPLED_TOKENS = 256
"""The smallest total number of tokens in the images that are sampled together.

The error of a single small image varies by half of its value.
"""

SAMPLING_SEED = 2
"""The seed of the sampling run that calibrated graphs are verified on. Calibration uses another seed."""


class Reused(msgspec.Struct, frozen=True, kw_only=True):
    """An evaluation with reuse of the middle blocks of an `earlier` evaluation, and the inputs of that one."""

    earlier: Inputs
    seen: Evaluation


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Evaluations of the network in fp32, which an export has to reproduce.

    They use random latents, the latents of a sampling run, random latents with guidance, and the latents of a sampling run with
    reuse of the middle blocks.
    """

    random: list[Evaluation]
    trajectory: list[Evaluation]
    guided: list[Evaluation]
    reused: list[Reused]


def expect(card: Card, net: Network, settings: Settings) -> Expected:
    """Evaluates `net` on all inputs that an export is verified on.

    These have two batch sizes, and two sizes of latents if the export takes any size. They include five steps of a sampling run
    without guidance.
    """
    images = max(1, SAMPLED_TOKENS // number_of_tokens(card))
    run = run_evaluations(TorchBackend(card, net=net), steps=STEPS, images=images, guidance=1)
    if settings.size not in (None, own_size(card)):
        run = [_evaluate(net, _resized(seen.inputs, settings.size)) for seen in run]
    return Expected(
        random=list(_random(card, net, settings)),
        trajectory=run,
        guided=list(_guided(card, net, settings)) if settings.guided else [],
        reused=_reused(card, net, run, settings.outer_blocks) if settings.outer_blocks is not None else [],
    )


def verify(folder: Path, graphs: Mapping[str, Graph], card: Card, expected: Expected, settings: Settings) -> Verification:
    """Runs the graphs in `folder` with ONNX Runtime and compares them with the evaluations in `expected`.

    Raises ExportError, with the output, batch, size and time, if an error is beyond the tolerance of the precision.
    """
    for graph in graphs.values():
        check_form(folder / graph.file, graph)
    with rounded_twins(folder, graphs) as runnable:
        with OnnxRuntimeBackend(folder, runnable, card) as candidate:
            random = _worst(candidate, "random", settings, expected.random)
            along = _worst(candidate, "mid-trajectory", settings, expected.trajectory)
            along = max([along, *(_check_reused(candidate, reused, settings) for reused in expected.reused)])
        if "guided" in runnable:
            _check_guided(folder / runnable["guided"].file, card, expected.guided, settings)
    return Verification(
        batches=BATCHES,
        sizes=_sizes(card, settings),
        times=tuple(float(step.inputs["t"][0]) for step in expected.trajectory),
        random=random,
        trajectory=along,
        tolerance=TOLERANCES[settings.precision].forward,
        rounded=PRECISION_TRAITS[settings.precision].half,
    )


def _sizes(card: Card, settings: Settings) -> tuple[Size, ...]:
    """The sizes of latents that are verified. The second size is not square, and differs from the traced one."""
    height, width = own_size(card)
    return (settings.size,) if settings.size else ((height, width), (height, width + 2 * card.backbone.patch_size))


def _random(card: Card, net: Network, settings: Settings) -> Iterator[Evaluation]:
    """Evaluations on random latents, labels and times: one for each batch size.

    If the graphs take any size, the latents have different sizes. Calibrated graphs are evaluated on latents of a sampling run
    instead, because their scales are not valid for random latents.
    """
    shapes = list(zip(reversed(BATCHES), itertools.cycle(_sizes(card, settings))))
    if settings.calibrated:
        run = run_evaluations(TorchBackend(card, net=net), steps=STEPS, images=max(BATCHES), seed=SAMPLING_SEED)
        for (batch, size), seen in itertools.product(shapes, run[::2]):
            if size == own_size(card):  # the rows of a batch do not depend on one another
                yield Evaluation(inputs=_rows(seen.inputs, batch), output=_rows({"output": seen.output}, batch)["output"])
            else:
                yield _evaluate(net, _resized(_rows(seen.inputs, batch), size))
        return
    draw = _inputs(card, net, settings, seed=1)
    for batch, size in shapes:
        yield _evaluate(net, draw(batch, size))


def _rows(values: Inputs, batch: int) -> Inputs:
    """`batch` evenly spaced rows of each value."""
    return {name: value[:: len(value) // batch][:batch] for name, value in values.items()}


def _resized(inputs: Inputs, size: Size) -> Inputs:
    """The inputs with their latents cut or repeated to `size`."""
    return {**inputs, "x": cut_or_repeated(inputs["x"], size)}


def _guided(card: Card, net: Network, settings: Settings) -> Iterator[Evaluation]:
    """Evaluations of the network with guidance around it, on random inputs."""
    draw, guided = _inputs(card, net, settings, seed=3), card.sampling.guided_channels
    for batch, size in zip(BATCHES, itertools.cycle(_sizes(card, settings))):
        inputs = draw(batch, size)
        scale = np.random.default_rng(batch).standard_normal(batch).astype(np.float32)
        cond = _evaluate(net, inputs).output
        uncond = _evaluate(net, {**inputs, "y": np.full_like(inputs["y"], card.null_label)}).output[:, :guided]
        mixed = uncond + scale[:, None, None, None] * (cond[:, :guided] - uncond)
        yield Evaluation(inputs={**inputs, "guidance": scale}, output=np.concatenate([mixed, cond[:, guided:]], axis=1))


def _reused(card: Card, net: Network, run: list[Evaluation], outer: int) -> list[Reused]:
    """Every second evaluation of a sampling run, with reuse of the middle blocks of the evaluation before it."""
    made = []
    with TorchBackend(card, net=net, resizable=True) as backend:
        for before, after in zip(run[::2], run[1::2], strict=False):
            earlier, later = ({name: backend.asarray(value) for name, value in seen.inputs.items()} for seen in (before, after))
            output = backend.numpy(backend.with_reuse(later, outer, backend.with_residual(earlier, outer)[1]))
            made.append(Reused(earlier=before.inputs, seen=Evaluation(inputs=after.inputs, output=output)))
    return made


def _check_reused(backend: GraphBackend, reused: Reused, settings: Settings) -> float:
    """The error of an evaluation with reuse, which takes the backend's own residual."""
    assert settings.outer_blocks is not None, "there is a graph with reuse"
    _, residual = backend.with_residual(reused.earlier, settings.outer_blocks)
    output = backend.with_reuse(reused.seen.inputs, settings.outer_blocks, residual)
    return _check(output, reused.seen, "mid-trajectory, reusing", settings, backend.card)


def _inputs(card: Card, net: Network, settings: Settings, *, seed: int) -> Callable[[int, Size], Inputs]:
    """A function that draws random inputs of the network, for a batch size and a size of latents."""
    specs, rng = tuple(resized(spec, settings.size) for spec in net.inputs), np.random.default_rng(seed)
    return lambda batch, size: random_inputs(specs, card, rng, batch=batch, height=size[0], width=size[1])


def _evaluate(net: Network, inputs: Inputs) -> Evaluation:
    with torch.inference_mode():
        output = net(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return Evaluation(inputs=inputs, output=output.numpy())


def _worst(backend: Backend, kind: str, settings: Settings, evaluations: Iterable[Evaluation]) -> float:
    """The largest relative L2 error over `evaluations`. Raises ExportError if an error is beyond the tolerance."""
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
    session = open_session(path)
    for seen in expected:
        _check(session.run(None, seen.inputs)[0], seen, "random, guided", settings, card)

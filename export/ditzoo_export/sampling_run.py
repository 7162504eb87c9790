"""A sampling run whose every evaluation of the network is kept: what went in, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.backends.timing import DelegatingBackend
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import Condition, class_condition
from ditzoo.sampling.loop import sample_steps
from ditzoo.specs import Array, resized
from ditzoo_export.onnx_files import Inputs

ReadOutputs: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Runs a backend on the inputs of its network, and gives all of its outputs by name."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a network: its inputs and its output, and the other outputs of its graph by name."""

    inputs: Inputs
    output: np.ndarray
    other_outputs: Mapping[str, np.ndarray] = msgspec.field(default_factory=dict)


class RecordingBackend(DelegatingBackend):
    """Runs another backend, and keeps every evaluation with all outputs that `read_outputs` gives.

    Where the graph takes latents of another size than the card's, it gets the card's, cut or repeated.
    """

    def __init__(self, backend: Backend, read_outputs: ReadOutputs) -> None:
        super().__init__(backend)
        self._read_outputs = read_outputs
        self._size = tuple(length for length in backend.inputs[0].shape[2:] if isinstance(length, int))
        self.inputs = tuple(resized(spec) for spec in backend.inputs)
        self.evaluations: list[Evaluation] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The other backend's output."""
        given = {name: self.numpy(value) for name, value in inputs.items()}
        size = given["x"].shape[2:]
        given["x"] = cut_or_repeated(given["x"], self._size or size)
        outputs = self._read_outputs({name: self.asarray(value) for name, value in given.items()})
        values = {name: self.numpy(value) for name, value in outputs.items()}
        output = values.pop(self.outputs[0].name)
        self.evaluations.append(Evaluation(inputs=given, output=output, other_outputs=values))
        return self.asarray(cut_or_repeated(output, size))


def cut_or_repeated(latents: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Latents [B, C, H, W] cut or repeated to a size (height, width)."""
    for axis, length in zip((2, 3), size, strict=True):
        latents = latents.take(range(length), axis=axis, mode="wrap")
    return latents


def run_evaluations(
    backend: Backend,
    *,
    steps: int,
    images: int,
    seed: int = 0,
    guidance: float | None = None,
    read_outputs: ReadOutputs | None = None,
) -> list[Evaluation]:
    """Every evaluation of a sampling run by the card's own plan in `steps` steps, with both halves of guidance.

    `guidance` is the card's own if it is not given; at 1 there is one half only. `read_outputs` is called in place of the
    backend where its graph has more outputs than the prediction.
    """
    read_outputs = read_outputs or (lambda inputs: {backend.outputs[0].name: backend(inputs)})
    recording, plan = RecordingBackend(backend, read_outputs), make_plan(backend.card, steps=steps, guidance=guidance)
    for _ in sample_steps(recording, plan, count=images, condition=some_condition(backend, images), seed=seed):
        pass
    return recording.evaluations


def some_condition(backend: Backend, images: int) -> Condition | None:
    """A condition of the kind that the network takes: the first classes in turn, or random numbers in place of a text."""
    card = backend.card
    if card.number_of_classes:
        return class_condition(card, [i % card.number_of_classes for i in range(images)])
    texts = [spec for spec in backend.inputs if spec.name == "context"]
    if not texts:
        return None
    values = np.random.default_rng(2).standard_normal(texts[0].concrete(batch=images + 1)).astype(np.float32)
    return Condition(name="context", values=values[1:], null=values[0])

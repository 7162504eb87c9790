"""Watching a network at work: the inputs and outputs of every evaluation of a sampling run."""

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
from ditzoo_export.graph import Inputs

Watch: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""A backend's every output, by name, for the inputs of its network."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a network: what went in, what came out, and what else was watched, by name."""

    inputs: Inputs
    output: np.ndarray
    watched: Mapping[str, np.ndarray] = msgspec.field(default_factory=dict)


class Recorder(DelegatingBackend):
    """Keeps every evaluation of the other, with all that `watch` gives.

    A graph for latents of another size than the card's gets the card's, cut or repeated.
    """

    def __init__(self, backend: Backend, watch: Watch) -> None:
        super().__init__(backend)
        self._watch = watch
        self._size = tuple(length for length in backend.inputs[0].shape[2:] if isinstance(length, int))
        self.inputs = tuple(resized(spec) for spec in backend.inputs)
        self.evaluations: list[Evaluation] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The other's output."""
        given = {name: self.numpy(value) for name, value in inputs.items()}
        size = given["x"].shape[2:]
        given["x"] = fitted(given["x"], self._size or size)
        watched = self._watch({name: self.asarray(value) for name, value in given.items()})
        values = {name: self.numpy(value) for name, value in watched.items()}
        output = values.pop(self.outputs[0].name)
        self.evaluations.append(Evaluation(inputs=given, output=output, watched=values))
        return self.asarray(fitted(output, size))


def fitted(latents: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Latents [B, C, H, W] cut or repeated to a size (height, width)."""
    for axis, length in zip((2, 3), size, strict=True):
        latents = latents.take(range(length), axis=axis, mode="wrap")
    return latents


def record(
    backend: Backend, *, steps: int, images: int, seed: int = 0, guidance: float | None = None, watch: Watch | None = None
) -> list[Evaluation]:
    """Every evaluation of a run of the card's own plan in `steps` steps, with both halves of guidance where there are two.

    `guidance` is the card's own if it is not given; at 1 there is one half only. `watch` is called in the backend's place where
    there is more to be seen than its output.
    """
    watch = watch or (lambda inputs: {backend.outputs[0].name: backend(inputs)})
    recorder, plan = Recorder(backend, watch), make_plan(backend.card, steps=steps, guidance=guidance)
    for _ in sample_steps(recorder, plan, count=images, condition=some_condition(backend, images), seed=seed):
        pass
    return recorder.evaluations


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

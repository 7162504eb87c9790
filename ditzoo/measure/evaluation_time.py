"""The time of one evaluation of a network, for `--backend auto`."""

from __future__ import annotations

import time

import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.sampling.loop import fitted
from ditzoo.specs import TensorSpec
from ditzoo.zoo.sizes import Size

ENOUGH = 1.0
"""The seconds of evaluations after which no more are measured."""

_LEAST, _MOST = 2, 40


def least_seconds(backend: Backend, *, rows: int, size: Size) -> float:
    """The least time of one evaluation of `rows` rows on random inputs, in seconds, of evaluations that take a second together.

    There are two evaluations at least, and one before them that does not count. `size` is the height and width of the latents.
    The least time is the one that other work on the machine disturbs least.
    """
    inputs = fitted(backend, {spec.name: _values(spec, rows=rows, size=size) for spec in backend.inputs})
    backend.numpy(backend(inputs))
    took: list[float] = []
    while len(took) < _LEAST or (sum(took) < ENOUGH and len(took) < _MOST):
        started = time.perf_counter()
        backend.numpy(backend(inputs))
        took.append(time.perf_counter() - started)
    return min(took)


def _values(spec: TensorSpec, *, rows: int, size: Size) -> np.ndarray:
    """Random values of an input: normal ones, and 0 for classes. Times are 0.5, which every network takes."""
    if len(spec.shape) == 1:
        return np.full(rows, 0.5 if spec.name == "t" else 0)
    inner = (*spec.shape[1:2], *size) if spec.name == "x" else spec.shape[1:]
    return np.random.default_rng(0).standard_normal((rows, *map(int, inner)), np.float32)

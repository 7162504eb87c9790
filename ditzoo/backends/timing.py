"""Backends that wrap another backend, to record or to time its calls."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ditzoo.backends.base import Backend, OpenedBackend, PreparesConditioning
from ditzoo.specs import Array


class DelegatingBackend(OpenedBackend):
    """Passes every call on to `backend`. Closing this one leaves `backend` open, because the caller opened it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name, self.card, self.precision = backend.name, backend.card, backend.precision
        self.inputs, self.outputs, self.tf32 = backend.inputs, backend.outputs, backend.tf32

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The output of `backend`."""

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Prepares `backend`, if it computes conditioning ahead."""
        if isinstance(self.backend, PreparesConditioning):
            self.backend.prepare(times, labels)

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """Converts an array as `backend` does."""
        return self.backend.asarray(array)

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """Converts an array as `backend` does."""
        return self.backend.numpy(array)

    def close(self) -> None:
        """Leaves `backend` open."""


class TimedBackend(DelegatingBackend):
    """`seconds` is the time that all calls of `backend` took. On a GPU, a call may return before its work is done."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.seconds = 0.0

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The output of `backend`."""
        started = time.perf_counter()
        output = self.backend(inputs)
        self.seconds += time.perf_counter() - started
        return output

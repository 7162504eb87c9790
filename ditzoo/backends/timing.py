"""Backends around another backend, which watch it or time it."""

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
    """Does what `backend` does. Closing this one leaves `backend` open, which is the caller's. See `ditzoo.backends.base`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name, self.card, self.precision = backend.name, backend.card, backend.precision
        self.inputs, self.outputs, self.tf32 = backend.inputs, backend.outputs, backend.tf32

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The output of the other."""

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Prepares the other, if it computes conditioning ahead."""
        if isinstance(self.backend, PreparesConditioning):
            self.backend.prepare(times, labels)

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """The other's."""
        return self.backend.asarray(array)

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """The other's."""
        return self.backend.numpy(array)

    def close(self) -> None:
        """Leaves the other open."""


class TimedBackend(DelegatingBackend):
    """`seconds` is how long all calls of the other took. On a GPU, a call may return before its work is done."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.seconds = 0.0

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The output of the other."""
        started = time.perf_counter()
        output = self.backend(inputs)
        self.seconds += time.perf_counter() - started
        return output

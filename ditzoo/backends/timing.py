"""Backends around another backend: to watch it, or to time it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ditzoo.backends.base import Backend, PreparesConditioning
from ditzoo.specs import Array


class DelegatingBackend(ABC):
    """Does what `backend` does, which stays the caller's: leaving this one does not close it. See `Backend` and `PreparesConditioning`."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name, self.card, self.precision = backend.name, backend.card, backend.precision
        self.inputs, self.outputs = backend.inputs, backend.outputs

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The other's output."""

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """The other's, if it hoists."""
        if isinstance(self.backend, PreparesConditioning):
            self.backend.prepare(times, labels)

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """The other's."""
        return self.backend.asarray(array)

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """The other's."""
        return self.backend.numpy(array)

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027  # it is empty on purpose
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the other open."""


class TimedBackend(DelegatingBackend):
    """`seconds` is what the other's calls took in all. On a GPU a call may end before its work does."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.seconds = 0.0

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The other's output."""
        started = time.perf_counter()
        output = self.backend(inputs)
        self.seconds += time.perf_counter() - started
        return output

"""Backends that wrap another backend, to record or to time its calls."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ditzoo.backends.base import Backend, OpenedBackend, PreparesConditioning, resizes_slowly
from ditzoo.backends.reusing import reusing
from ditzoo.specs import Array

T = TypeVar("T")


class DelegatingBackend(OpenedBackend):
    """Passes every call on to `backend`. Closing this one leaves `backend` open, because the caller opened it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.name, self.card, self.precision = backend.name, backend.card, backend.precision
        self.inputs, self.outputs, self.tf32 = backend.inputs, backend.outputs, backend.tf32
        self.resizes_slowly = resizes_slowly(backend)

    @abstractmethod
    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The output of `backend`."""

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Prepares `backend`, if it computes conditioning ahead."""
        if isinstance(self.backend, PreparesConditioning):
            self.backend.prepare(times, labels)

    def check_reuse(self, outer: int) -> None:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        reusing(self.backend).check_reuse(outer)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        return reusing(self.backend).with_residual(inputs, outer)

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        """See `ditzoo.backends.base.ReusesBlocks`."""
        return reusing(self.backend).with_reuse(inputs, outer, residual)

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
        return self._timed(lambda: self.backend(inputs))

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """The same as that of `backend`."""
        return self._timed(lambda: reusing(self.backend).with_residual(inputs, outer))

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        """The same as that of `backend`."""
        return self._timed(lambda: reusing(self.backend).with_reuse(inputs, outer, residual))

    def _timed(self, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        output = call()
        self.seconds += time.perf_counter() - started
        return output

"""A backend that adds up the time that another one spends computing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ditzoo.backends.base import Backend, Hoisting
from ditzoo.specs import Array


class TimedBackend:
    """Does what `backend` does; `seconds` is what its calls took. On a GPU a call may end before its work does."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.card, self.precision = backend.name, backend.card, backend.precision
        self.inputs, self.outputs = backend.inputs, backend.outputs
        self.seconds = 0.0

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The other's output."""
        started = time.perf_counter()
        output = self._backend(inputs)
        self.seconds += time.perf_counter() - started
        return output

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """The other's, if it hoists."""
        if isinstance(self._backend, Hoisting):
            self._backend.prepare(times, labels)

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """The other's."""
        return self._backend.asarray(array)

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """The other's."""
        return self._backend.numpy(array)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leaves the other open: it is not this one's."""

"""What a backend is: one network on one device, from (x, t, condition) to a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from ditzoo.specs import Array, Precision, TensorSpec
from ditzoo.zoo.card import Card


class Backend(Protocol):
    """A loaded network. Use it as a context manager: leaving it frees what it holds.

    Arrays in and out are the backend's own kind (`asarray` and `numpy` convert), of the dtypes that its specs say: float32,
    whatever it computes in, except for fp64.
    """

    @property
    def name(self) -> str:
        """What it is and where it runs, for tables: "torch fp32 cpu"."""

    @property
    def card(self) -> Card:
        """The model."""

    @property
    def precision(self) -> Precision:
        """What it computes in."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that `__call__` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The output that `__call__` gives: one."""

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output; raises InputError, saying what was expected and given, for inputs that do not fit."""

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """A numpy array as the backend's own kind, on its device."""

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """The backend's own kind of array as a numpy array."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class MultiOutputBackend(Backend, Protocol):
    """A backend whose graphs may have more outputs than the prediction, and which gives all of them."""

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output of every graph, by name, a row for each row of the inputs; raises as `__call__`."""


@runtime_checkable
class PreparesConditioning(Protocol):
    """A backend that can compute ahead of need what depends on time and label alone."""

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Announces the times of the coming evaluations, in their order, and the labels that each of them will have."""

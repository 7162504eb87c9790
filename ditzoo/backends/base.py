"""What a backend is: one network on one device, from (x, t, condition) to a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from ditzoo.backends import cuda
from ditzoo.errors import BackendError
from ditzoo.specs import Array, Precision, TensorSpec
from ditzoo.zoo.card import Card


class Backend(Protocol):
    """A loaded network. Use it as a context manager: leaving it frees what it holds.

    It takes and gives arrays of its own kind (`asarray` and `numpy` convert), with the dtypes of its specs: float64 in fp64,
    and float32 in any other precision.
    """

    @property
    def name(self) -> str:
        """Its name in tables, with precision and device: "torch fp32 cpu"."""

    @property
    def card(self) -> Card:
        """The model."""

    @property
    def precision(self) -> Precision:
        """The precision that it computes in."""

    @property
    def tf32(self) -> bool:
        """Whether a GPU computes the float32 matrix multiplications and convolutions in TF32."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that `__call__` takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The one output that `__call__` gives."""

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output; raises InputError, with what was expected and what was given, if the inputs do not fit."""

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """A numpy array as the backend's own kind, on its device."""

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """The backend's own kind of array as a numpy array."""

    def close(self) -> None:
        """Frees what it holds. A call after that raises BackendError."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class MultiOutputBackend(Backend, Protocol):
    """A backend that gives every output of its graphs, of which the prediction is one."""

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output of every graph by name, with a row for each row of the inputs; raises what `__call__` raises."""


@runtime_checkable
class PreparesConditioning(Protocol):
    """A backend that can compute modulations ahead: the part of a network that depends on time and label alone."""

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """Announces the times of the coming evaluations, in their order, and the labels that each evaluation will have."""


@runtime_checkable
class ResizesSlowly(Protocol):
    """A backend that knows whether an evaluation takes noticeably longer if the one before had another number of rows."""

    resizes_slowly: bool


def resizes_slowly(backend: Backend) -> bool:
    """Whether an evaluation takes noticeably longer if the one before had another number of rows. False if it is not known."""
    return isinstance(backend, ResizesSlowly) and backend.resizes_slowly


@runtime_checkable
class ReusesBlocks(Protocol):
    """A backend that can leave out the middle blocks of its network: see `ditzoo.nets.reuse`.

    `outer` is the number of the first blocks, and of the last blocks, that every evaluation runs. The backend keeps nothing
    between the calls.
    """

    def check_reuse(self, outer: int) -> None:
        """Raises BackendError, with the command that helps, if the backend cannot leave out the blocks between these."""

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """The network's output, and the residual of its middle blocks, [B, T, D]. Raises what `__call__` raises."""

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        """The network's output if its middle blocks add `residual` to the tokens. Raises what `__call__` raises."""


class OpenedBackend(ABC):
    """What all backends do alike. Leaving the `with` block closes the backend, and arrays are those of the library `_library`:
    numpy's, or CuPy's where the backend says so."""

    name: str
    tf32: bool = False
    _library: Any = np

    @abstractmethod
    def close(self) -> None:
        """See `Backend`."""

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """The array on the device. Times and labels, which have one axis, are read on the host and stay there."""
        return array if array.ndim < 2 else self._library.asarray(array)

    def numpy(self, array: Array) -> npt.NDArray[np.floating[Any]]:
        """The array on the host."""
        return cuda.to_host(array)

    def closed_error(self) -> BackendError:
        """The error for a call of a backend that was closed."""
        return BackendError(f"{self.name} is closed; open the backend again")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

"""The little of CUDA that is needed to run a network: which GPU there is, memory, copies, streams, graphs, arrays. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ditzoo.errors import BackendError


def runtime() -> Any:
    """cuda-python's binding of the CUDA runtime; raises ModuleNotFoundError, of the name "cuda", where it is not installed."""
    from cuda.bindings import runtime as bindings

    return bindings


def gpu() -> str | None:
    """The GPU of this machine, such as "sm89", or None where there is none that a driver shows."""
    cuda = runtime()
    status, count = cuda.cudaGetDeviceCount()
    if int(status) != 0 or count == 0:
        return None
    kind = cuda.cudaDeviceAttr
    major, minor = (
        call(cuda.cudaDeviceGetAttribute, attribute, 0)
        for attribute in (kind.cudaDevAttrComputeCapabilityMajor, kind.cudaDevAttrComputeCapabilityMinor)
    )
    return f"sm{major}{minor}"


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """What a CUDA function gives besides its status: nothing, a value, or several; raises BackendError if it failed."""
    status, *values = function(*arguments)
    if int(status) != 0:
        raise BackendError(f"CUDA failed in {function.__name__}: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)


def arrays() -> Any:
    """The library whose arrays hold latents between the steps: CuPy, on the device, where it is installed; else numpy."""
    try:
        import cupy
    except ModuleNotFoundError:
        return np
    return cupy


def address(array: Any) -> int:
    """Where a contiguous array of numpy lies on the host, or one of CuPy on the device."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def to_host(array: Any) -> npt.NDArray[Any]:
    """A numpy array of what is in one of numpy or CuPy."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())


def settle(library: Any) -> None:
    """Returns when all that was queued with the arrays of a library is done; numpy queues nothing."""
    if library is not np:
        library.cuda.get_current_stream().synchronize()


class Buffer:
    """A piece of device memory of `size` bytes. Free it with `free`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(call(runtime().cudaMalloc, max(1, size)))

    def free(self) -> None:
        """Gives the memory back."""
        call(runtime().cudaFree, self.address)


class Stream:
    """A queue of work on the device. Copies go through it in order; host memory must live until `wait`."""

    def __init__(self) -> None:
        self.cuda = runtime()
        self.handle = call(self.cuda.cudaStreamCreate)

    def copy(self, target: int, source: int, size: int) -> None:
        """Copies `size` bytes between any two addresses, on the device or the host."""
        call(self.cuda.cudaMemcpyAsync, target, source, size, self.cuda.cudaMemcpyKind.cudaMemcpyDefault, self.handle)

    def capture(self, work: Callable[[], None]) -> Any:
        """Records `work`, which queues on this stream, as a graph that can be launched again; nothing of it runs yet."""
        call(self.cuda.cudaStreamBeginCapture, self.handle, self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        finally:
            graph = call(self.cuda.cudaStreamEndCapture, self.handle)
        return call(self.cuda.cudaGraphInstantiate, graph, 0)

    def launch(self, graph: Any) -> None:
        """Queues a recorded graph."""
        call(self.cuda.cudaGraphLaunch, graph, self.handle)

    def wait(self) -> None:
        """Returns when all that was queued is done."""
        call(self.cuda.cudaStreamSynchronize, self.handle)

    def free(self) -> None:
        """Gives the stream back."""
        call(self.cuda.cudaStreamDestroy, self.handle)

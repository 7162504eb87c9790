"""The part of CUDA that running a network needs: the GPU's name, memory, copies, streams, graphs and arrays. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ditzoo.errors import BackendError

_OLD_DRIVER, _NO_DEVICE = 35, 100
"""The numbers of cudaErrorInsufficientDriver and cudaErrorNoDevice. CUDA returns the first one also if there is no driver."""

P = ParamSpec("P")
R = TypeVar("R")


class _OnOneGpu(Protocol):
    index: int


S = TypeVar("S", bound=_OnOneGpu)


def runtime() -> Any:
    """cuda-python's binding of the CUDA runtime; raises ModuleNotFoundError if it is not installed."""
    from cuda.bindings import runtime as bindings

    return bindings


@contextmanager
def on_gpu(index: int) -> Iterator[None]:
    """Makes the GPU of a number the current one of this thread until the block ends. Raises BackendError if there is none."""
    before = call(runtime().cudaGetDevice)
    call(runtime().cudaSetDevice, index)
    try:
        yield
    finally:
        call(runtime().cudaSetDevice, before)


def on_its_gpu(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """A method that runs on the GPU of its object, whose number is in `index`."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with on_gpu(self.index):
            return method(self, *args, **kwargs)

    return run


def gpu() -> str | None:
    """The architecture of the current GPU, such as "sm89", or None if there is no driver or no GPU.

    The first GPU is current, unless `on_gpu` makes another one so.
    Raises BackendError if the driver is too old, or if CUDA fails in another way.
    """
    cuda = runtime()
    status, count = cuda.cudaGetDeviceCount()
    if int(status) == _OLD_DRIVER and (driver := call(cuda.cudaDriverGetVersion)):
        needed = call(cuda.cudaRuntimeGetVersion)
        raise BackendError(
            f"the NVIDIA driver here is for CUDA {_version(driver)}, and cuda-python for {_version(needed)}; install a driver"
            f" for CUDA {needed // 1000}, or pip install 'cuda-python<{driver // 1000 + 1}'"
        )
    if int(status) in (_OLD_DRIVER, _NO_DEVICE) or (int(status) == 0 and count == 0):
        return None
    if int(status) != 0:
        raise BackendError(f"CUDA failed in cudaGetDeviceCount: {getattr(status, 'name', status)}")
    kind = cuda.cudaDeviceAttr
    major, minor = (
        call(cuda.cudaDeviceGetAttribute, attribute, call(cuda.cudaGetDevice))
        for attribute in (kind.cudaDevAttrComputeCapabilityMajor, kind.cudaDevAttrComputeCapabilityMinor)
    )
    return f"sm{major}{minor}"


def gpu_name() -> str:
    """The name of the current GPU, such as "NVIDIA H100 80GB HBM3": GPUs of one architecture differ.

    Raises BackendError if there is none.
    """
    name: bytes = call(runtime().cudaGetDeviceProperties, call(runtime().cudaGetDevice)).name
    return name.rstrip(b"\0").decode()


def call(function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Calls a CUDA function. Returns its values without the status: one value, or a tuple of none or several.

    Raises BackendError if the function failed.
    """
    status, *values = function(*arguments)
    if int(status) != 0:
        raise BackendError(f"CUDA failed in {function.__name__}: {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def arrays() -> Any:
    """The library whose arrays hold latents between the steps: CuPy, on the device, if it is installed, else numpy."""
    try:
        import cupy
    except ModuleNotFoundError:
        return np
    return cupy


def address(array: Any) -> int:
    """The address of a contiguous array: on the host for numpy's, on the device for CuPy's."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def to_host(array: Any) -> npt.NDArray[Any]:
    """An array of numpy or CuPy as a numpy array."""
    return array if isinstance(array, np.ndarray) else np.asarray(array.get())


def settle(library: Any) -> None:
    """Waits until all work that was queued with the arrays of a library is done; numpy queues none."""
    if library is not np:
        library.cuda.get_current_stream().synchronize()


def free_graph(graph: Any) -> None:
    """Gives back what a recorded graph holds of the device."""
    call(runtime().cudaGraphExecDestroy, graph)


class Buffer:
    """A piece of device memory of `size` bytes. Free it with `free`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(call(runtime().cudaMalloc, max(1, size)))

    def free(self) -> None:
        """Gives the memory back."""
        call(runtime().cudaFree, self.address)


class Stream:
    """A queue of work on the device. Copies go through it in order; host memory must live until `wait`.

    `library` is the library of the arrays. If it is CuPy, its work inside `arrays` goes through this queue too. Other streams,
    such as the default stream, do not wait for this one, nor does it wait for them: see `settle`.
    """

    def __init__(self, library: Any = np) -> None:
        self.cuda = runtime()
        self._of_library = None if library is np else library.cuda.Stream(non_blocking=True)
        if self._of_library is None:
            self.handle = call(self.cuda.cudaStreamCreateWithFlags, self.cuda.cudaStreamNonBlocking)
        else:
            self.handle = self._of_library.ptr

    def arrays(self) -> AbstractContextManager[Any]:
        """A block in which the library of the arrays queues its work on this stream, in order with the copies."""
        return nullcontext() if self._of_library is None else self._of_library

    def copy(self, target: int, source: int, size: int) -> None:
        """Copies `size` bytes between any two addresses, on the device or the host."""
        call(self.cuda.cudaMemcpyAsync, target, source, size, self.cuda.cudaMemcpyKind.cudaMemcpyDefault, self.handle)

    def capture(self, work: Callable[[], None]) -> Any:
        """Records the work that `work` queues on this stream as a graph for `launch`, without running it. Free it with
        `free_graph`."""
        call(self.cuda.cudaStreamBeginCapture, self.handle, self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        graph = None
        try:
            try:
                work()
            finally:
                graph = call(self.cuda.cudaStreamEndCapture, self.handle)
            return call(self.cuda.cudaGraphInstantiate, graph, 0)
        finally:
            if graph is not None:
                call(self.cuda.cudaGraphDestroy, graph)

    def launch(self, graph: Any) -> None:
        """Queues a recorded graph."""
        call(self.cuda.cudaGraphLaunch, graph, self.handle)

    def wait(self) -> None:
        """Waits until all queued work is done."""
        call(self.cuda.cudaStreamSynchronize, self.handle)

    def free(self) -> None:
        """Gives the stream back. CuPy destroys its own stream when nothing refers to it any more."""
        if self._of_library is None:
            call(self.cuda.cudaStreamDestroy, self.handle)
        self._of_library = None

"""A stand-in for CUDA on machines without a GPU. Device memory is host memory.

Like the real library, it does not do the work of a stream before something waits for the stream, and it refuses memory and
handles that were given back, copies beyond the end of a piece of memory, and memory or waiting inside a capture. The names of
arguments, the types of handles and the values of enumerations are those of the installed cuda.bindings, which a test compares.
"""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

from cuda.bindings import runtime
from cuda.bindings.runtime import cudaError_t

OK = cudaError_t.cudaSuccess
TOTAL = 24 * 10**9
Work = Callable[[], None]


class Cuda:
    """The functions of cuda.bindings.runtime that `ditzoo.backends.cuda` uses."""

    cudaDeviceAttr = runtime.cudaDeviceAttr  # noqa: N815
    cudaMemcpyKind = runtime.cudaMemcpyKind  # noqa: N815
    cudaStreamCaptureMode = runtime.cudaStreamCaptureMode  # noqa: N815
    cudaStreamNonBlocking = runtime.cudaStreamNonBlocking  # noqa: N815

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.largest: int | None = None
        """The size of the largest piece of memory that there still is, if that is limited."""
        self.peak = 0
        """The largest number of bytes that were taken at one time."""
        self.streams: dict[int, list[Work]] = {}
        """The work that each stream still has to do."""
        self.graphs: dict[int, list[Work]] = {}
        self.recording: tuple[int, list[Work]] | None = None
        self.capture_failed = False
        self.launches = 0
        self.foreign: dict[int, int] = {}
        """The streams whose unfinished work writes arrays, by the address of the array: see the stand-in for CuPy."""
        self.current = 0
        self.chosen: list[int] = []
        """The GPUs that were made current, in their order."""
        self._freed: list[Any] = []
        self._numbers = count(7)

    def cudaGetDevice(self) -> tuple[Any, int]:  # noqa: N802
        return OK, self.current

    def cudaSetDevice(self, device: int) -> tuple[Any]:  # noqa: N802
        self.current = device
        self.chosen.append(device)
        return (OK,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Any, Any]:  # noqa: N802
        return OK, SimpleNamespace(name=b"NVIDIA L4/24\0\0")

    def cudaGetDeviceCount(self) -> tuple[Any, int]:  # noqa: N802
        return OK, 1

    def cudaDeviceGetAttribute(self, attr: Any, device: int) -> tuple[Any, int]:  # noqa: N802
        assert isinstance(attr, runtime.cudaDeviceAttr)
        return OK, {runtime.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor: 8}.get(attr, 9)

    def cudaDeviceGetPCIBusId(self, length: int, device: int) -> tuple[Any, bytes]:  # noqa: N802
        return OK, b"0000:65:00.0".ljust(length, bytes(1))

    def cudaMemGetInfo(self) -> tuple[Any, int, int]:  # noqa: N802
        return OK, TOTAL - sum(map(len, self.memory.values())), TOTAL

    def cudaMalloc(self, size: int) -> tuple[Any, Any]:  # noqa: N802
        assert isinstance(size, int)
        if self.recording is not None:
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        if self.largest is not None and size > self.largest:
            return cudaError_t.cudaErrorMemoryAllocation, None
        piece = ctypes.create_string_buffer(b"\xff" * size, size)  # what was never written reads as NaN
        self.memory[ctypes.addressof(piece)] = piece
        self.peak = max(self.peak, sum(map(len, self.memory.values())))
        return OK, ctypes.addressof(piece)

    def cudaFree(self, devPtr: int) -> tuple[Any]:  # noqa: N802, N803
        if devPtr not in self.memory:
            return (cudaError_t.cudaErrorInvalidValue,)
        for stream in self.streams:  # the real function waits for all work
            self.finish(stream)
        self._freed.append(self.memory.pop(devPtr))
        return (OK,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> tuple[Any]:  # noqa: N802
        assert isinstance(kind, runtime.cudaMemcpyKind)
        for address in (dst, src):
            assert isinstance(address, int)
            if not self.reaches(address, count):
                return (cudaError_t.cudaErrorInvalidValue,)
            assert self.foreign.get(address, int(stream)) == int(stream), "another stream has not written this array yet"
        return (self.queue(stream, lambda: ctypes.memmove(dst, src, count)),)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, Any]:  # noqa: N802
        assert flags == runtime.cudaStreamNonBlocking
        stream = runtime.cudaStream_t(next(self._numbers))
        self.streams[int(stream)] = []
        return OK, stream

    def cudaStreamSynchronize(self, stream: Any) -> tuple[Any]:  # noqa: N802
        if self.recording is not None:
            self.capture_failed = True
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        if int(stream) not in self.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        self.finish(int(stream))
        return (OK,)

    def cudaStreamDestroy(self, stream: Any) -> tuple[Any]:  # noqa: N802
        self.finish(int(stream))
        del self.streams[int(stream)]
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> tuple[Any]:  # noqa: N802
        assert isinstance(mode, runtime.cudaStreamCaptureMode)
        if int(stream) not in self.streams or self.recording is not None:
            return (cudaError_t.cudaErrorIllegalState,)
        self.recording, self.capture_failed = (int(stream), []), False
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> tuple[Any, Any]:  # noqa: N802
        assert self.recording is not None
        assert self.recording[0] == int(stream)
        work, self.recording = self.recording[1], None
        if self.capture_failed:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        graph = runtime.cudaGraph_t(next(self._numbers))
        self.graphs[int(graph)] = work
        return OK, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, Any]:  # noqa: N802
        assert isinstance(graph, runtime.cudaGraph_t)
        executable = runtime.cudaGraphExec_t(next(self._numbers))
        self.graphs[int(executable)] = self.graphs[int(graph)]
        return OK, executable

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any]:  # noqa: N802
        assert isinstance(graph, runtime.cudaGraph_t)
        del self.graphs[int(graph)]
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> tuple[Any]:  # noqa: N802, N803
        assert isinstance(graphExec, runtime.cudaGraphExec_t)
        del self.graphs[int(graphExec)]
        return (OK,)

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> tuple[Any]:  # noqa: N802, N803
        assert isinstance(graphExec, runtime.cudaGraphExec_t)
        if int(graphExec) not in self.graphs:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        self.launches += 1
        work = self.graphs[int(graphExec)]
        return (self.queue(stream, lambda: [step() for step in work]),)  # type: ignore[arg-type, return-value]

    def queue(self, stream: Any, work: Callable[[], object]) -> cudaError_t:
        """Adds work to a stream, or to the graph that is recorded from it."""
        if int(stream) not in self.streams:
            return cudaError_t.cudaErrorInvalidResourceHandle
        recorded = self.recording is not None and self.recording[0] == int(stream)
        (self.recording[1] if recorded else self.streams[int(stream)]).append(work)  # type: ignore[index, arg-type]
        return OK

    def finish(self, stream: int) -> None:
        """Does all work of a stream."""
        work = self.streams.get(stream, [])
        while work:
            work.pop(0)()
        self.foreign = {address: other for address, other in self.foreign.items() if other != stream}

    def reaches(self, address: int, size: int) -> bool:
        """Whether `size` bytes at an address are inside one piece of memory that was not given back, or on the host."""
        if any(start <= address < start + len(piece) for piece in self._freed for start in [ctypes.addressof(piece)]):
            return False
        starts = sorted(self.memory)
        place = bisect_right(starts, address) - 1
        if place < 0 or address >= starts[place] + len(self.memory[starts[place]]):
            return True  # on the host
        return address + size <= starts[place] + len(self.memory[starts[place]])

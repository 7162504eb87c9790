"""The stages of the GPU acceptance about the machine and CUDA itself."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import numpy as np
from acceptance.checks import Check, Measured, check, demand, needs, needs_gpu

from ditzoo.measure.gpu import free_memory


def facts(device: str) -> Iterator[Check]:
    """The machine, and what is installed."""
    from ditzoo.measure.machine import machine

    yield check("machine", lambda: {"python": platform.python_version(), **machine()})
    yield check("gpu", lambda: _gpu(device))
    yield check("execution providers of ONNX Runtime", _providers)


def _gpu(device: str) -> Measured:
    needs_gpu(device)
    from ditzoo.backends import cuda

    driver, runtime = (cuda.call(ask) for ask in (cuda.runtime().cudaDriverGetVersion, cuda.runtime().cudaRuntimeGetVersion))
    free, total = cuda.call(cuda.runtime().cudaMemGetInfo)
    gpu = cuda.gpu()
    demand(gpu is not None, "no GPU is found")
    found = {"name": cuda.gpu_name(), "architecture": gpu, "CUDA of the driver": driver, "CUDA of cuda-python": runtime}
    return {**found, "free MiB": free >> 20, "total MiB": total >> 20, "arrays": cuda.arrays().__name__}


def _providers() -> Measured:
    needs("onnxruntime")
    import onnxruntime

    return {"version": onnxruntime.__version__, "providers": " ".join(onnxruntime.get_available_providers())}


def raw(device: str) -> Iterator[Check]:
    """Memory, copies, streams and graphs of CUDA, as the backend of engines uses them."""
    yield check("copies give back what they took", lambda: _copies(device))
    yield check("a captured graph copies at each launch", lambda: _captured(device))
    yield check("all memory is given back", lambda: _given_back(device))


def _copies(device: str) -> Measured:
    needs_gpu(device)
    from ditzoo.backends import cuda

    given, taken = np.random.default_rng(0).standard_normal(2**20), np.zeros(2**20)
    stream, buffer = cuda.Stream(), cuda.Buffer(given.nbytes)
    stream.copy(buffer.address, cuda.address(given), given.nbytes)
    stream.copy(cuda.address(taken), buffer.address, given.nbytes)
    stream.wait()
    buffer.free()
    stream.free()
    demand(np.array_equal(given, taken), "the bytes differ")
    return {"bytes": given.nbytes}


def _captured(device: str) -> Measured:
    needs_gpu(device)
    from ditzoo.backends import cuda

    stream, source, target = cuda.Stream(), cuda.Buffer(8000), cuda.Buffer(8000)
    graph = stream.capture(lambda: stream.copy(target.address, source.address, 8000))
    for launch in range(3):
        given, taken = np.full(1000, float(launch)), np.zeros(1000)
        stream.copy(source.address, cuda.address(given), 8000)
        stream.launch(graph)
        stream.copy(cuda.address(taken), target.address, 8000)
        stream.wait()
        demand(np.array_equal(given, taken), f"launch {launch} gave other bytes")
    cuda.free_graph(graph)
    for owner in (source, target, stream):
        owner.free()
    return {"launches": 3}


def _given_back(device: str) -> Measured:
    needs_gpu(device)
    from ditzoo.backends import cuda

    before = free_memory()
    for _ in range(10):
        buffer = cuda.Buffer(2**30)
        buffer.free()
    lost = before - free_memory()
    demand(lost == 0, f"{lost} bytes are lost")
    return {"lost bytes": lost}

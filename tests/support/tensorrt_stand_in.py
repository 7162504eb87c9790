"""Stand-ins for CUDA, TensorRT and CuPy on machines without a GPU.

Device memory is host memory, and an engine runs its ONNX graph. Like the real libraries, they refuse unknown addresses, shapes
outside a profile, destroyed streams and graphs, engines with code if that is not allowed, and engines without weights.
Work that is captured as a CUDA graph runs only when the graph is launched.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import numpy as np
import onnxruntime as ort
from cuda.bindings.runtime import cudaError_t

from ditzoo.bundle import Engine
from ditzoo.specs import Profile, TensorSpec

OK = 0


class Cuda:
    """The functions of cuda.bindings.runtime that `ditzoo.backends.cuda` uses."""

    def __init__(self) -> None:
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self.memory: dict[int, Any] = {}
        self.largest: int | None = None
        """The size of the largest piece of memory that there still is, if that is limited."""
        self.recording: list[Callable[[], None]] | None = None
        self.streams: set[int] = set()
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self._numbers = count(7)
        self.launches = 0
        self.current = 0
        self.chosen: list[int] = []
        """The GPUs that were made current, in their order."""

    def cudaGetDevice(self) -> tuple[int, int]:  # noqa: N802
        return OK, self.current

    def cudaSetDevice(self, device: int) -> tuple[int]:  # noqa: N802
        self.current = device
        self.chosen.append(device)
        return (OK,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[int, Any]:  # noqa: N802
        return OK, SimpleNamespace(name=b"NVIDIA L4/24\0\0")

    def cudaMalloc(self, size: int) -> tuple[Any, int]:  # noqa: N802
        if self.largest is not None and size > self.largest:
            return cudaError_t.cudaErrorMemoryAllocation, 0
        piece = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(piece)] = piece
        return OK, ctypes.addressof(piece)

    def cudaFree(self, address: int) -> tuple[int]:  # noqa: N802
        del self.memory[address]
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:  # noqa: N802
        ctypes.memmove(target, source, size)
        return (OK,)

    def cudaStreamCreate(self) -> tuple[int, int]:  # noqa: N802
        stream = next(self._numbers)
        self.streams.add(stream)
        return OK, stream

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:  # noqa: N802
        return (OK if stream in self.streams else cudaError_t.cudaErrorInvalidResourceHandle,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        self.streams.remove(stream)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self.recording = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, int]:  # noqa: N802
        assert self.recording is not None
        graph = next(self._numbers)
        self.graphs[graph], self.recording = self.recording, None
        return OK, graph

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[int, int]:  # noqa: N802
        executable = next(self._numbers)
        self.graphs[executable] = self.graphs[graph]
        return OK, executable

    def cudaGraphDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        del self.graphs[graph]
        return (OK,)

    def cudaGraphExecDestroy(self, graph: int) -> tuple[int]:  # noqa: N802
        del self.graphs[graph]
        return (OK,)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any]:  # noqa: N802
        if graph not in self.graphs or stream not in self.streams:
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        self.launches += 1
        for work in self.graphs[graph]:
            work()
        return (OK,)


class RuntimeCache:
    """An IRuntimeCache of TensorRT-RTX: the names of the engines whose kernels are in it."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def deserialize(self, blob: bytes) -> bool:
        self.kernels |= set(blob.decode().split())
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.kernels)).encode()


class RuntimeConfig:
    """An IRuntimeConfig."""

    def __init__(self) -> None:
        self.cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class CudaEngine:
    """An ICudaEngine. One that was built without weights has no session until a refitter has put them in."""

    def __init__(self, cuda: Cuda, name: str, spec: Engine, session: ort.InferenceSession | None) -> None:
        self.cuda, self.name, self.spec, self.session = cuda, name, spec, session

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, config: RuntimeConfig) -> Context | None:
        return None if self.cuda.largest == 0 else Context(self.cuda, self, config)


class Refitter:
    """A Refitter: `refit_cuda_engine` puts the weights in that were read before, and fails if what read them is gone."""

    def __init__(self, engine: CudaEngine, logger: Any) -> None:
        self.engine = engine
        self.read: Callable[[], OnnxParserRefitter | None] = lambda: None

    def get_missing_weights(self) -> list[str]:
        return [] if self.read() else ["blocks.0.weight"]

    def refit_cuda_engine(self) -> bool:
        parser = self.read()
        if parser is None or parser.model is None:
            return False
        self.engine.session = ort.InferenceSession(parser.model)
        return True


class OnnxParserRefitter:
    """An OnnxParserRefitter. It does not keep the refitter alive."""

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self.refitter, self.model = weakref.ref(refitter), None
        self.num_errors = 0

    def refit_from_file(self, model: str) -> bool:
        refitter = self.refitter()
        if refitter is None or not Path(model).is_file():
            self.num_errors = 1
            return False
        self.model, refitter.read = model, weakref.ref(self)
        return True

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "cannot open the model")


def tensorrt(cuda: Cuda, engines: dict[str, Engine], graphs: Path, *, rtx: bool) -> Any:
    """The Python module of TensorRT. An engine's file holds its name in `engines`. Its ONNX graph is in the folder `graphs`."""

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, text: bytes) -> CudaEngine | None:
            name = text.decode()
            spec = engines[name]
            if "version_compatible" in spec.options and not self.engine_host_code_allowed:
                return None
            whole = "stripped" not in spec.options
            return CudaEngine(cuda, name, spec, ort.InferenceSession(graphs / f"{spec.graph}.onnx") if whole else None)

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None:
            pass

    module = SimpleNamespace(Runtime=Runtime, Logger=Logger, Refitter=Refitter, OnnxParserRefitter=OnnxParserRefitter)
    if rtx:
        module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE=1)
    return module


class Context:
    """An IExecutionContext."""

    def __init__(self, cuda: Cuda, engine: CudaEngine, config: RuntimeConfig) -> None:
        self.cuda, self.engine, self.spec, self.config = cuda, engine, engine.spec, config
        self.profile: Profile = engine.spec.profiles[0]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = self.spec.profiles[index]
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.cuda.memory

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.profile.shapes(next(spec for spec in self.spec.inputs if spec.name == name))
        self.shapes[name] = shape
        return all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True))

    def execute_async_v3(self, stream: int) -> bool:
        if stream not in self.cuda.streams or self.engine.session is None:
            return False
        if self.config.cache is not None:
            self.config.cache.kernels.add(self.engine.name)
        if self.cuda.recording is not None:
            self.cuda.recording.append(self._run)
        else:
            self._run()
        return True

    def _run(self) -> None:
        assert self.engine.session is not None
        inputs, names = {spec.name: self._read(spec) for spec in self.spec.inputs}, [spec.name for spec in self.spec.outputs]
        for spec, value in zip(self.spec.outputs, self.engine.session.run(names, inputs), strict=True):
            assert value.nbytes <= len(self.cuda.memory[self.addresses[spec.name]])
            ctypes.memmove(self.addresses[spec.name], value.ctypes.data, value.nbytes)

    def _read(self, spec: TensorSpec) -> np.ndarray:
        piece, shape = self.cuda.memory[self.addresses[spec.name]], self.shapes[spec.name]
        return np.frombuffer(piece, spec.dtype, count=int(np.prod(shape))).reshape(shape)


class DeviceArray:
    """An array of the stand-in for CuPy. It computes with other such arrays and with Python numbers. numpy cannot read it."""

    __array_ufunc__ = None

    def __init__(self, value: np.ndarray) -> None:
        self.value, self.data = value, SimpleNamespace(ptr=value.ctypes.data)
        self.dtype, self.shape, self.ndim, self.nbytes = value.dtype, value.shape, value.ndim, value.nbytes

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return Library

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, key: Any) -> DeviceArray:
        return DeviceArray(self.value[key])

    def __add__(self, other: DeviceArray | float) -> DeviceArray:
        return DeviceArray(self.value + (other.value if isinstance(other, DeviceArray) else float(other)))

    def __mul__(self, other: DeviceArray | float) -> DeviceArray:
        return DeviceArray(self.value * (other.value if isinstance(other, DeviceArray) else float(other)))

    def __sub__(self, other: DeviceArray) -> DeviceArray:
        return DeviceArray(self.value - other.value)

    def __rsub__(self, other: float) -> DeviceArray:
        return DeviceArray(float(other) - self.value)

    def __truediv__(self, other: float) -> DeviceArray:
        return DeviceArray(self.value / float(other))

    __radd__, __rmul__ = __add__, __mul__

    def get(self) -> np.ndarray:
        Library.moved.append("to the host")
        return self.value


class Library:
    """The functions of CuPy that ditzoo uses. `moved` lists the copies between host and device."""

    moved: ClassVar[list[str]] = []
    cuda = SimpleNamespace(get_current_stream=lambda: SimpleNamespace(synchronize=lambda: None))

    @staticmethod
    def asarray(array: np.ndarray) -> DeviceArray:
        Library.moved.append("to the device")
        return DeviceArray(array)

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: str) -> DeviceArray:
        return DeviceArray(np.empty(shape, dtype))

    @staticmethod
    def concat(arrays: Sequence[DeviceArray], axis: int = 0) -> DeviceArray:
        return DeviceArray(np.concatenate([array.value for array in arrays], axis=axis))

    @staticmethod
    def ascontiguousarray(array: DeviceArray) -> DeviceArray:
        return DeviceArray(np.ascontiguousarray(array.value))

    @staticmethod
    def isfinite(array: DeviceArray) -> DeviceArray:
        return DeviceArray(np.isfinite(array.value))

    @staticmethod
    def all(array: DeviceArray) -> bool:
        return bool(array.value.all())

    @staticmethod
    def exp(array: DeviceArray) -> DeviceArray:
        return DeviceArray(np.exp(array.value))


def write_engines(folder: Path, engines: dict[str, Engine]) -> list[Engine]:
    """Writes files of these engines into `folder`. Returns the engines with their files."""
    made = []
    for name, engine in engines.items():
        (folder / f"{name}.engine").write_text(name)
        made.append(msgspec.structs.replace(engine, file=f"{name}.engine"))
    return made

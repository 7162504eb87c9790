"""Stand-ins for CUDA, TensorRT and CuPy on machines without a GPU.

Device memory is host memory, and an engine runs its ONNX graph. Like the real libraries, they refuse unknown addresses and
shapes outside a profile. Work that is captured as a CUDA graph runs only when the graph is launched.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import msgspec
import numpy as np
import onnxruntime as ort

from ditzoo.bundle import Engine
from ditzoo.specs import Profile, TensorSpec

OK = 0


class Cuda:
    """The functions of cuda.bindings.runtime that `ditzoo.backends.cuda` uses."""

    def __init__(self) -> None:
        self.cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        self.memory: dict[int, Any] = {}
        self.recording: list[Callable[[], None]] | None = None
        self.launches = 0

    def cudaMalloc(self, size: int) -> tuple[int, int]:  # noqa: N802
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
        return OK, 7

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:  # noqa: N802
        return (OK,)

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:  # noqa: N802
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:  # noqa: N802
        self.recording = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, Any]:  # noqa: N802
        recorded, self.recording = self.recording, None
        return OK, recorded

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:  # noqa: N802
        return OK, graph

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[int]:  # noqa: N802
        self.launches += 1
        for work in graph:
            work()
        return (OK,)


def tensorrt(cuda: Cuda, engines: dict[str, Engine], graphs: Path, *, rtx: bool) -> Any:
    """The Python module of TensorRT. An engine's file holds its name in `engines`. Its ONNX graph is in the folder `graphs`."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, text: bytes) -> Any:
            spec = engines[text.decode()]
            session = ort.InferenceSession(graphs / f"{spec.graph}.onnx")
            cache = SimpleNamespace(deserialize=lambda data: None, serialize=lambda: b"kernels")
            config = SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda cache: True)
            return SimpleNamespace(
                create_runtime_config=lambda: config, create_execution_context=lambda config: Context(cuda, spec, session)
            )

    class Logger:
        ERROR = 1

        def __init__(self, severity: int) -> None:
            pass

    module = SimpleNamespace(Runtime=Runtime, Logger=Logger)
    if rtx:
        module.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE=1)
    return module


class Context:
    """An IExecutionContext."""

    def __init__(self, cuda: Cuda, spec: Engine, session: ort.InferenceSession) -> None:
        self.cuda, self.spec, self.session = cuda, spec, session
        self.profile: Profile = spec.profiles[0]
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
        if self.cuda.recording is not None:
            self.cuda.recording.append(self._run)
        else:
            self._run()
        return True

    def _run(self) -> None:
        inputs = {spec.name: self._read(spec) for spec in self.spec.inputs}
        for spec, value in zip(self.spec.outputs, self.session.run([s.name for s in self.spec.outputs], inputs), strict=True):
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
    def exp(array: DeviceArray) -> DeviceArray:
        return DeviceArray(np.exp(array.value))


def write_engines(folder: Path, engines: dict[str, Engine]) -> list[Engine]:
    """Writes files of these engines into `folder`. Returns the engines with their files."""
    made = []
    for name, engine in engines.items():
        (folder / f"{name}.engine").write_text(name)
        made.append(msgspec.structs.replace(engine, file=f"{name}.engine"))
    return made

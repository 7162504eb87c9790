"""A stand-in for TensorRT on machines without a GPU. An engine runs its ONNX graph, in the memory of the stand-in for CUDA.

Like the real library, it refuses unknown and freed addresses, shapes outside a profile, contexts with too little memory,
destroyed streams, engines with code if that is not allowed, and engines without weights. A CUDA graph needs the context that it
was captured from, unchanged, and a capture needs one execution of the same shapes before it. The names of members and arguments
are those of the installed tensorrt_rtx, which a test compares. The enumerations are its own.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import tensorrt_rtx as real

from ditzoo.bundle import Engine
from ditzoo.specs import Profile, TensorSpec
from tests.support.cuda_stand_in import OK, Cuda


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

    cuda_graph_strategy = real.CudaGraphStrategy.DISABLED
    dynamic_shapes_kernel_specialization_strategy = real.DynamicShapesKernelSpecializationStrategy.LAZY

    def __init__(self) -> None:
        self.strategy = real.ExecutionContextAllocationStrategy.STATIC
        self.cache: RuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        assert isinstance(strategy, real.ExecutionContextAllocationStrategy)
        self.strategy = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        self.cache = cache
        return True


class CudaEngine:
    """An ICudaEngine. One that was built without weights has no session until a refitter has put them in."""

    def __init__(self, cuda: Cuda, name: str, spec: Engine, graph: Path | None) -> None:
        self.cuda, self.name, self.spec = cuda, name, spec
        self.configs: list[RuntimeConfig] = []
        """The settings of each context that was made."""
        self.take(graph)

    def take(self, graph: Path | None) -> None:
        """Takes the weights of an ONNX graph."""
        self.graph, self.session = graph, None if graph is None else ort.InferenceSession(graph)

    @property
    def device_memory_size_v2(self) -> int:
        return 1000 * max(profile.axes["batch"].max for profile in self.spec.profiles)

    @property
    def refittable(self) -> bool:
        return bool({"stripped", "refittable"} & set(self.spec.options))

    weight_streaming_budget_v2 = 0

    def get_weight_streaming_automatic_budget(self) -> int:
        return 500

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, runtime_config: RuntimeConfig) -> Context | None:
        assert isinstance(runtime_config, RuntimeConfig)
        if runtime_config.strategy != real.ExecutionContextAllocationStrategy.USER_MANAGED:
            status, _ = self.cuda.cudaMalloc(self.device_memory_size_v2)
            if status != OK:
                return None
        self.configs.append(runtime_config)
        return Context(self.cuda, self, runtime_config)

    def create_serialization_config(self) -> SerializationConfig:
        return SerializationConfig()

    def serialize_with_config(self, arg0: SerializationConfig) -> bytes:
        assert arg0.flags == {real.SerializationFlag.INCLUDE_REFIT}  # with weights, and able to take others again
        return f"{self.name} {self.graph}".encode()


class SerializationConfig:
    """An ISerializationConfig. What a refitted engine is written with by default is not documented, so all must be said."""

    def __init__(self) -> None:
        self.flags = {real.SerializationFlag.EXCLUDE_WEIGHTS}

    def set_flag(self, flag: Any) -> bool:
        self.flags.add(flag)
        return True

    def clear_flag(self, flag: Any) -> bool:
        self.flags.discard(flag)
        return True


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
        self.engine.take(Path(parser.model))
        return True


class OnnxParserRefitter:
    """An OnnxParserRefitter. It does not keep the refitter alive."""

    def __init__(self, refitter: Refitter, logger: Any) -> None:
        self.refitter, self.model = weakref.ref(refitter), None
        self.num_errors = 0

    def refit_from_file(self, model: str) -> bool:
        assert isinstance(model, str)
        refitter = self.refitter()
        if refitter is None or not refitter.engine.refittable or not Path(model).is_file():
            self.num_errors = 1
            return False
        self.model, refitter.read = model, weakref.ref(self)
        return True

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: "cannot open the model")


class Context:
    """An IExecutionContext. `changes` counts what was set: a graph that was captured before is then stale."""

    def __init__(self, cuda: Cuda, engine: CudaEngine, config: RuntimeConfig) -> None:
        self.cuda, self.engine, self.spec, self.config = cuda, engine, engine.spec, config
        self.profile: Profile = engine.spec.profiles[0]
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.workspace = (0, 0)
        self.changes = 0
        self.ran: dict[str, tuple[int, ...]] | None = None

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if stream_handle not in self.cuda.streams or profile_index >= len(self.spec.profiles):
            return False
        self.profile, self.shapes = self.spec.profiles[profile_index], {}
        self.changes += 1
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self.config.strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
        self.workspace = memory, size
        self.changes += 1

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        self.changes += 1
        return memory in self.cuda.memory and self.cuda.reaches(memory, 1)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert isinstance(shape, tuple)
        low, _, high = self.profile.shapes(next(spec for spec in self.spec.inputs if spec.name == name))
        self.shapes[name] = shape
        self.changes += 1
        return all(least <= size <= most for least, size, most in zip(low, shape, high, strict=True))

    def execute_async_v3(self, stream_handle: int) -> bool:
        memory, size = self.workspace
        managed = self.config.strategy == real.ExecutionContextAllocationStrategy.USER_MANAGED
        enough = memory in self.cuda.memory and size >= self.engine.device_memory_size_v2 and self.cuda.reaches(memory, size)
        ready = set(self.shapes) == {spec.name for spec in self.spec.inputs} and self.engine.session is not None
        if stream_handle not in self.cuda.streams or not ready or (managed and not enough):
            return False
        if self.config.cache is not None:
            self.config.cache.kernels.add(self.engine.name)
        if self.cuda.recording is not None:
            self.cuda.capture_failed |= self.ran != self.shapes
            context, changes = weakref.ref(self), self.changes
            self.cuda.queue(stream_handle, lambda: _replay(context(), changes))
        else:
            shapes = dict(self.shapes)
            self.ran = shapes
            self.cuda.queue(stream_handle, lambda: self._run(shapes))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]]) -> None:
        assert self.engine.session is not None
        inputs = {spec.name: self._read(spec, shapes[spec.name]) for spec in self.spec.inputs}
        names = [spec.name for spec in self.spec.outputs]
        for spec, value in zip(self.spec.outputs, self.engine.session.run(names, inputs), strict=True):
            assert value.nbytes <= len(self.cuda.memory[self.addresses[spec.name]])
            ctypes.memmove(self.addresses[spec.name], value.ctypes.data, value.nbytes)
        memory, size = self.workspace
        ctypes.memset(memory, 0xFF, size)  # results of an engine that runs later: nothing in here lasts

    def _read(self, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
        piece = self.cuda.memory[self.addresses[spec.name]]
        return np.frombuffer(piece, spec.dtype, count=int(np.prod(shape))).reshape(shape)


def _replay(context: Context | None, changes: int) -> None:
    """Runs what was captured from a context."""
    assert context is not None, "the context that this graph was captured from is gone"
    assert context.changes == changes, "the context was changed after this graph was captured from it"
    context._run(context.shapes)


def tensorrt(cuda: Cuda, engines: dict[str, Engine], graphs: Path, *, rtx: bool) -> Any:
    """The Python module of TensorRT. An engine's file holds its name in `engines`, and the path of its ONNX graph.

    Without a path, the graph is the one in the folder `graphs`. The engines that were loaded last are in the member `loaded`.
    """
    loaded: dict[str, CudaEngine] = {}

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: Any) -> None:
            assert isinstance(logger, Logger)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
            name, _, kept = serialized_engine.decode().partition(" ")
            spec = engines[name]
            if "version_compatible" in spec.options and not self.engine_host_code_allowed:
                return None
            whole = "stripped" not in spec.options
            loaded[name] = CudaEngine(cuda, name, spec, Path(kept or graphs / f"{spec.graph}.onnx") if whole else None)
            return loaded[name]

    class Logger:
        ERROR = real.Logger.ERROR

        def __init__(self, min_severity: Any) -> None:
            assert isinstance(min_severity, real.ILogger.Severity)

    module = SimpleNamespace(
        Runtime=Runtime,
        Logger=Logger,
        Refitter=Refitter,
        OnnxParserRefitter=OnnxParserRefitter,
        loaded=loaded,
        SerializationFlag=real.SerializationFlag,
        __version__="1.7",
        __name__="tensorrt_rtx" if rtx else "tensorrt",
        ExecutionContextAllocationStrategy=real.ExecutionContextAllocationStrategy,
    )
    if rtx:
        module.CudaGraphStrategy = real.CudaGraphStrategy
        module.DynamicShapesKernelSpecializationStrategy = real.DynamicShapesKernelSpecializationStrategy
    return module


def write_engines(folder: Path, engines: dict[str, Engine]) -> list[Engine]:
    """Writes files of these engines into `folder`. Returns the engines with their files."""
    made = []
    for name, engine in engines.items():
        (folder / f"{name}.engine").write_text(name)
        made.append(msgspec.structs.replace(engine, file=f"{name}.engine"))
    return made

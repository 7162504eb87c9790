"""Loads TensorRT engines: the profiles of each as `Slot`s, their weights where those were left out, and kept kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ditzoo.backends import cuda
from ditzoo.bundle import Engine
from ditzoo.errors import BackendError, BundleError
from ditzoo.files import cache_dir, remember
from ditzoo.specs import TensorSpec


class Slot:
    """One profile of a loaded engine: its context, memory for its largest shapes, and a CUDA graph for each batch size.

    What it takes of the device is given back when `held` is closed.
    """

    def __init__(
        self, trt: Any, loaded: Any, spec: Engine, index: int, stream: cuda.Stream, config: Any, *, held: ExitStack
    ) -> None:
        self.spec, self.profile, self._stream, self._trt = spec, spec.profiles[index], stream, trt
        self.memory: dict[str, cuda.Buffer] = {}
        self._graphs: dict[tuple[tuple[int, ...], ...], Any] = {}
        self._context = present(loaded.create_execution_context(config), "an execution context")
        held.callback(self._free)
        accept(self._context.set_optimization_profile_async(index, stream.handle), f"optimization profile {index}")
        for tensor in (*spec.inputs, *spec.outputs):
            buffer = self.memory[tensor.name] = cuda.Buffer(_bytes(tensor, self.profile.shapes(tensor)[2]))
            accept(self._context.set_tensor_address(tensor.name, buffer.address), f"the address of {tensor.name}")

    def run(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Queues one execution for inputs of these shapes, which lie in `memory`."""
        for name, shape in shapes.items():
            accept(self._context.set_input_shape(name, shape), f"the shape {shape} of {name}")
        if hasattr(self._trt, "CudaGraphStrategy"):  # TensorRT-RTX captures graphs by itself
            self._enqueue()
            return
        key = tuple(shapes.values())
        if key not in self._graphs:
            self._enqueue()  # the first execution of a shape may allocate, which a capture must not
            self._stream.wait()
            self._graphs[key] = self._stream.capture(self._enqueue)
        self._stream.launch(self._graphs[key])

    def _free(self) -> None:
        for graph in self._graphs.values():
            cuda.free_graph(graph)
        self._context = None
        for buffer in self.memory.values():
            buffer.free()

    def _enqueue(self) -> None:
        accept(self._context.execute_async_v3(self._stream.handle), f"the execution of {self.spec.file}")


class EngineLoader:
    """Loads the engines of one bundle, with one runtime. TensorRT-RTX keeps the kernels that it compiles for all of them in one
    cache, whose file is in ditzoo's cache, one for each model of GPU."""

    def __init__(self, trt: Any, folder: Path, engines: Sequence[Engine], stream: cuda.Stream) -> None:
        self._trt, self._folder, self._stream = trt, folder, stream
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = present(trt.Runtime(self._logger), "a runtime")
        if any("version_compatible" in engine.options for engine in engines):
            self._runtime.engine_host_code_allowed = True  # such an engine brings the code that runs it on other versions
        self._kernels: Any = None
        gpu = _file_name(cuda.gpu_name())
        self._kernels_path = cache_dir() / "runtime" / f"{engines[0].flavour}-{engines[0].version}-{gpu}"

    def load(self, spec: Engine, *, held: ExitStack) -> list[Slot]:
        """The slots of an engine, one a profile; raises BundleError or BackendError if TensorRT refuses it."""
        loaded = self._runtime.deserialize_cuda_engine((self._folder / spec.file).read_bytes())
        if loaded is None:
            raise BundleError(
                f"{spec.flavour} refuses {self._folder / spec.file}; `ditzoo inspect {self._folder}` says what it was built for"
            )
        if "stripped" in spec.options:
            self._give_weights(loaded, spec)
        config = present(loaded.create_runtime_config(), "a runtime configuration")
        if hasattr(self._trt, "CudaGraphStrategy"):
            self._configure_rtx(config)
        return [Slot(self._trt, loaded, spec, i, self._stream, config, held=held) for i in range(len(spec.profiles))]

    def keep_kernels(self) -> None:
        """Saves the kernels that TensorRT-RTX compiled for this GPU."""
        if self._kernels is not None:
            remember(self._kernels_path, bytes(present(self._kernels.serialize(), "its kernels")))

    def _give_weights(self, loaded: Any, spec: Engine) -> None:
        """Reads the weights of an engine that was built without them from its ONNX graph.

        The parser holds them until the engine has taken them, so both it and the refitter must live until the end.
        """
        refitter = present(self._trt.Refitter(loaded, self._logger), "a refitter")
        parser_refitter = self._trt.OnnxParserRefitter(refitter, self._logger)
        if not parser_refitter.refit_from_file(str(self._folder / f"{spec.graph}.onnx")):
            errors = [parser_refitter.get_error(i).desc() for i in range(parser_refitter.num_errors)]
            raise BackendError(f"TensorRT refused the weights of {spec.file}: {'; '.join(errors) or 'it does not say why'}")
        if missing := refitter.get_missing_weights():
            raise BackendError(f"{spec.graph}.onnx lacks weights of {spec.file}: {', '.join(missing)}")
        if not refitter.refit_cuda_engine():
            raise BackendError(f"TensorRT refused the weights of {spec.file} as it put them in")

    def _configure_rtx(self, config: Any) -> None:
        """CUDA graphs for whole engines, and the kernels that were compiled for this GPU before."""
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if self._kernels is None:
            cache = self._kernels = present(config.create_runtime_cache(), "a runtime cache")
            if self._kernels_path.is_file():
                cache.deserialize(self._kernels_path.read_bytes())  # what does not fit this driver is compiled again
        accept(config.set_runtime_cache(self._kernels), "the runtime cache")


def accept(status: bool | None, what: str) -> None:
    """Raises BackendError if TensorRT returned False. (Some members return None in one version and True in another.)"""
    if status is False:
        raise BackendError(f"TensorRT refused {what}")


def present(value: Any, what: str) -> Any:
    """The value; raises BackendError if TensorRT gave None for it."""
    if value is None:
        raise BackendError(f"TensorRT did not give {what}")
    return value


def _bytes(spec: TensorSpec, shape: Sequence[int]) -> int:
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize


def _file_name(text: str) -> str:
    return "-".join(text.split()).replace("/", "-")

"""Loads TensorRT engines: their profiles as `Slot`s, the memory that these share, missing weights, and kept kernels."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ditzoo.backends import cuda
from ditzoo.backends.engine_slots import Slot, accept, present
from ditzoo.backends.refitting import put_weights
from ditzoo.bundle import Engine
from ditzoo.errors import BackendError, BundleError
from ditzoo.files import cache_dir, remember
from ditzoo.specs import TensorSpec


class EngineLoader:
    """Loads the engines of one bundle, with one runtime. All of them compute in one piece of device memory.

    TensorRT-RTX keeps the kernels that it compiles for all of them in one cache, whose file is in ditzoo's cache, one for each
    model of GPU.
    """

    def __init__(self, trt: Any, folder: Path, engines: Sequence[Engine], stream: cuda.Stream) -> None:
        self._trt, self._folder, self._engines, self._stream = trt, folder, engines, stream
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime = present(trt.Runtime(self._logger), "a runtime")
        if any("version_compatible" in engine.options for engine in engines):
            self._runtime.engine_host_code_allowed = True  # such an engine brings the code that runs it on other versions
        self._kernels: Any = None
        gpu = _file_name(cuda.gpu_name())
        self._kernels_path = cache_dir() / "runtime" / f"{engines[0].flavour}-{engines[0].version}-{gpu}"

    def load(self, *, held: ExitStack) -> dict[str, list[Slot]]:
        """The slots of every graph, one for each profile of its engines. Closing `held` gives back what they take of the
        device.

        Raises BundleError or BackendError if TensorRT refuses an engine.
        """
        opened = [(spec, self._loaded(spec)) for spec in self._engines]
        workspace = cuda.Buffer(max(loaded.device_memory_size_v2 for _, loaded in opened))
        held.callback(workspace.free)
        memory = {graph: self._memory(graph, held=held) for graph in dict.fromkeys(spec.graph for spec in self._engines)}
        slots: dict[str, list[Slot]] = {graph: [] for graph in memory}
        for spec, loaded in opened:
            config = self._config(loaded)
            slots[spec.graph] += [
                Slot(
                    self._trt,
                    loaded,
                    spec,
                    index,
                    stream=self._stream,
                    config=config,
                    memory=memory[spec.graph],
                    workspace=workspace,
                    held=held,
                )
                for index in range(len(spec.profiles))
            ]
        return slots

    def keep_kernels(self) -> None:
        """Saves the kernels that TensorRT-RTX compiled for this GPU."""
        if self._kernels is not None:
            remember(self._kernels_path, bytes(present(self._kernels.serialize(), "its kernels")))

    def _loaded(self, spec: Engine) -> Any:
        loaded = self._runtime.deserialize_cuda_engine((self._folder / spec.file).read_bytes())
        if loaded is None:
            raise BundleError(
                f"{spec.flavour} refuses {self._folder / spec.file}; `ditzoo inspect {self._folder}` says what it was built for"
            )
        if "stripped" in spec.options:
            put_weights(self._trt, loaded, self._folder / f"{spec.graph}.onnx", logger=self._logger, engine=spec.file)
        if "weight_streaming" in spec.options:  # TensorRT keeps on the host what the free memory does not hold
            loaded.weight_streaming_budget_v2 = loaded.get_weight_streaming_automatic_budget()
        return loaded

    def _memory(self, graph: str, *, held: ExitStack) -> dict[str, cuda.Buffer]:
        """Memory for every input and output of a graph, in the largest shape of all profiles of its engines."""
        engines = [spec for spec in self._engines if spec.graph == graph]
        memory: dict[str, cuda.Buffer] = {}
        for tensor in (*engines[0].inputs, *engines[0].outputs):
            memory[tensor.name] = cuda.Buffer(max(_largest_size(tensor, spec) for spec in engines))
            held.callback(memory[tensor.name].free)
        return memory

    def _config(self, loaded: Any) -> Any:
        """The settings of the execution contexts of a loaded engine. We give them their memory."""
        config = present(loaded.create_runtime_config(), "a runtime configuration")
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(self._trt, "CudaGraphStrategy"):
            self._configure_rtx(config)
        return config

    def _configure_rtx(self, config: Any) -> None:
        """CUDA graphs for whole engines, and the kernels that were compiled for this GPU before.

        A new shape waits until its kernels are compiled. Otherwise TensorRT-RTX would use other kernels first and change them
        later, so that neither the times nor the numbers of a run could be repeated.
        """
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if self._kernels is None:
            cache = self._kernels = present(config.create_runtime_cache(), "a runtime cache")
            if self._kernels_path.is_file():
                cache.deserialize(self._kernels_path.read_bytes())  # what does not fit this driver is compiled again
        accept(config.set_runtime_cache(self._kernels), "the runtime cache")


def check_architecture(trt: Any, gpu: str) -> None:
    """Raises BackendError if a flavour of TensorRT does not know a GPU such as "sm90". Only TensorRT-RTX lists its GPUs."""
    known = [name.lower() for name in dir(getattr(trt, "ComputeCapability", None)) if name.startswith("SM")]
    if known and gpu not in known:
        raise BackendError(
            f"{trt.__name__} {trt.__version__} is for {', '.join(known)}, not for {gpu}; use tensorrt, or --backend onnxruntime"
            " or torch with --device cuda"
        )


def _largest_size(tensor: TensorSpec, spec: Engine) -> int:
    """The bytes of an input or output in the largest shape that a profile of the engine allows."""
    item = np.dtype(tensor.dtype).itemsize
    return max(item * int(np.prod(profile.shapes(tensor)[2])) for profile in spec.profiles)


def _file_name(text: str) -> str:
    return "-".join(text.split()).replace("/", "-")

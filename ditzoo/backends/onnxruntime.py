"""ONNX Runtime: the exported graphs of a bundle, on a CPU or an NVIDIA GPU. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ditzoo.backends.hoist import Hoisted, row_bytes
from ditzoo.bundle import Graph
from ditzoo.card import Card
from ditzoo.errors import BackendError
from ditzoo.files import cache_dir
from ditzoo.specs import Array, Device, Precision, Profile, TensorSpec, check_inputs

PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}

_ERRORS_ONLY = 3
_NOT_ON_CPU: tuple[Precision, ...] = ("bf16",)


class OnnxRuntimeBackend:
    """The graphs of a card in the folder of its bundle. See `ditzoo.backends.base.Backend`. Arrays are numpy's.

    Where there is a "conditioning" graph it runs ahead, in windows (see `ditzoo.backends.hoist`). `profiles` are the sizes that
    the TensorRT providers build for. Raises BackendError where the device's execution provider is missing, ONNX Runtime falls
    back to another one, or the provider has no such arithmetic.
    """

    def __init__(
        self,
        folder: Path,
        graphs: Mapping[str, Graph],
        card: Card,
        *,
        device: Device = "cpu",
        threads: int | None = None,
        profiles: Sequence[Profile] = (),
    ) -> None:
        graph, conditioning = graphs["backbone"], graphs.get("conditioning")
        if device == "cpu" and graph.precision in _NOT_ON_CPU:
            raise BackendError(
                f"ONNX Runtime has no {graph.precision} arithmetic on CPUs; use --device cuda, or export fp32 or int8"
            )
        self.card, self.folder, self.device, self.threads = card, folder, device, threads
        self.precision = graph.precision
        self.name = f"onnxruntime {graph.precision} {device}"
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self._graph, self._conditioning = graph, conditioning
        self.inputs: tuple[TensorSpec, ...] = (graph.inputs[:1] + conditioning.inputs) if conditioning else graph.inputs
        self._sessions = {
            part.file: _session(
                folder / part.file, part.precision, device, threads, provider_options(device, part.inputs, profiles)
            )
            for part in (graph, conditioning)
            if part is not None
        }
        self._hoisted = None if conditioning is None else self._hoist(conditioning)

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """See `ditzoo.backends.base.Hoisting`."""
        if self._hoisted is not None:
            self._hoisted.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output for numpy arrays."""
        return self._run(self._graph, self.backbone_inputs(inputs))[0]

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `ditzoo.backends.base.Showing`."""
        outputs = self._run(self._graph, self.backbone_inputs(inputs))
        return {**self._modulations(inputs), **dict(zip((spec.name for spec in self._graph.outputs), outputs, strict=True))}

    def backbone_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the backbone's graph takes, for the inputs of the network: modulations for time and label, if it is split."""
        check_inputs(self.inputs, inputs)
        known = {**inputs, **self._modulations(inputs)}
        return {spec.name: known[spec.name] for spec in self._graph.inputs}

    def asarray(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The array itself."""
        return array

    def numpy(self, array: Array) -> npt.NDArray[np.float32]:
        """The array itself."""
        return np.asarray(array, dtype=np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sessions = {}

    def _modulations(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output of the conditioning's graph."""
        if self._hoisted is None or self._conditioning is None:
            return {}
        rows, places = self._hoisted(inputs["t"], inputs["y"])
        return {spec.name: rows[i][places] for i, spec in enumerate(self._conditioning.outputs)}

    def _hoist(self, graph: Graph) -> Hoisted:
        return Hoisted(lambda t, y: self._run(graph, {"t": t, "y": y}), row_bytes=row_bytes(graph.outputs))

    def _run(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        if graph.file not in self._sessions:
            raise BackendError(f"{self.name} is closed; open the backend again")
        session = self._sessions[graph.file]
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for spec in graph.outputs:
            binding.bind_output(spec.name)
        session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


def provider_options(device: Device, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> dict[str, str]:
    """The options of a device's execution provider: for the TensorRT ones, engines kept in ditzoo's cache, and the profiles.

    Their names are those of ONNX Runtime's documentation: `trt_` for TensorRT, `nv_` for TensorRT-RTX.
    """
    if device not in ("tensorrt", "tensorrt_rtx"):
        return {}
    prefix, cache = ("trt", "engine_cache_path") if device == "tensorrt" else ("nv", "runtime_cache_path")
    folder = str(cache_dir() / device)
    enable = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"} if device == "tensorrt" else {}
    return {f"{prefix}_{cache}": folder, **enable, **_profile_options(prefix, inputs, profiles)}


def _profile_options(prefix: str, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> dict[str, str]:
    """The smallest, best and largest shapes of every input, one after the other for each profile: "x:1x4x32x32,t:1,..."."""
    if not profiles:
        return {}
    texts = [
        ",".join(f"{spec.name}:{'x'.join(map(str, profile.shapes(spec)[end]))}" for profile in profiles for spec in inputs)
        for end in range(3)
    ]
    return {f"{prefix}_profile_{end}_shapes": text for end, text in zip(("min", "opt", "max"), texts, strict=True)}


def _session(
    path: Path, precision: Precision, device: Device, threads: int | None, provider_options: dict[str, str]
) -> ort.InferenceSession:
    provider, available = PROVIDERS[device], ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); use --device cpu,"
            " or replace onnxruntime by the GPU package: pip uninstall onnxruntime && pip install 'ditzoo[gpu]'"
        )
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    if precision in ("int8", "fp8"):  # Q/DQ pairs stay what they are: fused for a CPU, int8 would saturate and fp8 is refused
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        session = ort.InferenceSession(path, options, providers=[(provider, provider_options)])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
    used = session.get_providers()
    if used[0] != provider:
        raise BackendError(f"ONNX Runtime fell back from {provider} to {used[0]}: its libraries do not load; use --device cpu")
    return session

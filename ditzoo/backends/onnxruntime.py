"""ONNX Runtime: the exported graphs of a bundle, on a CPU or an NVIDIA GPU. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from array_api_compat import array_namespace

from ditzoo.backends import cuda
from ditzoo.backends.conditioning import ModulationCache, window_rows
from ditzoo.bundle import Graph
from ditzoo.errors import BackendError
from ditzoo.files import cache_dir
from ditzoo.specs import Array, Device, Precision, Profile, Range, TensorSpec, axes_of, check_inputs
from ditzoo.zoo.card import Card

PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}

_ERRORS_ONLY = 3
_NOT_ON_CPU: tuple[Precision, ...] = ("bf16",)

_AS_EXPORTED = {"session.disable_quant_qdq": "1"}
"""Q/DQ pairs stay what they are: fused for a CPU, int8 would saturate and fp8 is refused."""

_RUNS_ONCE = {"session.disable_prepacking": "1"}
"""Weights stay where the file is mapped: copying them takes longer than the few products that they are for."""

_open: WeakValueDictionary[tuple[object, ...], ort.InferenceSession] = WeakValueDictionary()
"""The sessions that some backend of this process holds. They run in any number of threads, so one serves all that ask alike."""


class OnnxRuntimeBackend:
    """The graphs of a card in the folder of its bundle. See `ditzoo.backends.base.Backend`.

    Arrays are numpy's, or CuPy's on a GPU where that is installed: then latents and modulations stay on the device. Where there
    is a "conditioning" graph it runs ahead, in windows (see `ditzoo.backends.conditioning`). `profiles` are the sizes that TensorRT's
    providers build for. Backends of one graph with the same settings share a session, and so its weights. Raises BackendError
    where the device's execution provider is missing, ONNX Runtime falls back to another one, or the provider has no such
    arithmetic.
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
        self.name = f"onnxruntime {graph.precision} {device}{' single' if card.splits and conditioning is None else ''}"
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self._graph, self._conditioning = graph, conditioning
        self.inputs: tuple[TensorSpec, ...] = (graph.inputs[:1] + conditioning.inputs) if conditioning else graph.inputs
        self._library = np if device == "cpu" else cuda.arrays()
        entries = _AS_EXPORTED if graph.precision in ("int8", "fp8") else {}
        options = provider_options(device, graph.inputs, profiles)
        self._sessions = {graph.file: _session(folder / graph.file, entries, device, threads, options)}
        self._modulation_cache = None
        if conditioning is not None:
            window = window_rows(conditioning.outputs)
            ahead = [Profile(axes={"batch": Range(min=1, opt=window, max=window)})] if profiles else []
            options = provider_options(device, conditioning.inputs, ahead)
            self._sessions[conditioning.file] = _session(folder / conditioning.file, _RUNS_ONCE, device, threads, options)
            self._modulation_cache = ModulationCache(lambda t, y: self._run(conditioning, {"t": t, "y": y}), window=window)

    def prepare(self, times: Sequence[float], labels: Sequence[int]) -> None:
        """See `ditzoo.backends.base.PreparesConditioning`."""
        if self._modulation_cache is not None:
            self._modulation_cache.prepare(times, labels)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output."""
        return self._run(self._graph, self.backbone_inputs(inputs))[0]

    def values(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `ditzoo.backends.base.MultiOutputBackend`."""
        outputs = self._run(self._graph, self.backbone_inputs(inputs))
        return {**self._modulations(inputs), **dict(zip((spec.name for spec in self._graph.outputs), outputs, strict=True))}

    def backbone_inputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the backbone's graph takes, for the inputs of the network: modulations for time and label, if it is split."""
        check_inputs(self.inputs, inputs)
        known = {**inputs, **self._modulations(inputs)}
        return {spec.name: known[spec.name] for spec in self._graph.inputs}

    def asarray(self, array: npt.NDArray[Any]) -> Array:
        """The array on the device; what has one axis, times and labels, is looked at on the host and stays there."""
        return array if array.ndim < 2 else self._library.asarray(array)

    def numpy(self, array: Array) -> npt.NDArray[np.float32]:
        """The array on the host."""
        return cuda.to_host(array)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sessions = {}

    def _modulations(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output of the conditioning's graph."""
        if self._modulation_cache is None or self._conditioning is None:
            return {}
        rows, places = self._modulation_cache(inputs["t"], inputs["y"])
        return {spec.name: rows[i][places] for i, spec in enumerate(self._conditioning.outputs)}

    def _run(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        if graph.file not in self._sessions:
            raise BackendError(f"{self.name} is closed; open the backend again")
        session, sizes = self._sessions[graph.file], axes_of(graph.inputs, inputs)
        given = {name: array_namespace(value).ascontiguousarray(value) for name, value in inputs.items()}
        taken = {spec.name: self._library.empty(spec.concrete(**sizes), spec.dtype) for spec in graph.outputs}
        binding = session.io_binding()
        for bind, arrays in ((binding.bind_input, given), (binding.bind_output, taken)):
            for name, value in arrays.items():
                device = "cpu" if isinstance(value, np.ndarray) else "cuda"
                bind(name, device, 0, value.dtype, value.shape, cuda.address(value))
        cuda.settle(self._library)  # ONNX Runtime has a stream of its own
        session.run_with_iobinding(binding)
        return list(taken.values())


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
    path: Path, entries: Mapping[str, str], device: Device, threads: int | None, provider_options: Mapping[str, str]
) -> ort.InferenceSession:
    """The session of a graph under these settings that is open already, or a new one."""
    state = path.stat()
    settings = (device, threads, *entries.items(), *provider_options.items())
    key = (path.resolve(), state.st_ino, state.st_mtime_ns, *settings)
    session = _open.get(key)
    if session is None:
        session = _open[key] = new_session(path, entries, device, threads, provider_options)
    return session


def new_session(
    path: Path,
    entries: Mapping[str, str] | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
) -> ort.InferenceSession:
    """A session of the graph at `path`. `entries` are options of the session, `provider_options` those of the device.

    Raises BackendError if there is no such execution provider, if ONNX Runtime falls back to another one, or if it cannot load
    the graph.
    """
    provider, available = PROVIDERS[device], ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); use --device cpu,"
            " or replace onnxruntime by the GPU package: pip uninstall onnxruntime && pip install 'ditzoo[gpu]'"
        )
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    if device == "cpu":  # the other order runs what looks into a graph last, and holds all that it looks at until then
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    for entry, value in (entries or {}).items():
        options.add_session_config_entry(entry, value)
    try:
        session = ort.InferenceSession(path, options, providers=[(provider, dict(provider_options or {}))])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
    used = session.get_providers()
    if used[0] != provider:
        raise BackendError(f"ONNX Runtime fell back from {provider} to {used[0]}: its libraries do not load; use --device cpu")
    return session

"""ONNX Runtime: the exported graphs of a bundle, on a CPU or an NVIDIA GPU. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from array_api_compat import array_namespace

from ditzoo.backends import cuda
from ditzoo.backends.conditioning import window_rows
from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.graph_files import check_graph
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.sessions import open_session
from ditzoo.backends.table import BackendRow
from ditzoo.bundle import Bundle, Graph
from ditzoo.errors import BackendError
from ditzoo.files import cache_dir
from ditzoo.specs import PRECISION_TRAITS, Array, Device, Profile, Range, TensorSpec, axes_of
from ditzoo.zoo.card import Card

_AS_EXPORTED = {"session.disable_quant_qdq": "1"}
"""Q/DQ pairs stay what they are: fused for a CPU, int8 would saturate and fp8 is refused."""

_RUNS_ONCE = {"session.disable_prepacking": "1"}
"""Weights stay where the file is mapped: copying them takes longer than the few matrix multiplications that they are for."""

_DTYPES = {"tensor(double)": "float64", "tensor(float)": "float32", "tensor(int64)": "int64"}
"""ONNX Runtime's names of the dtypes of a network's inputs and outputs."""

_open: WeakValueDictionary[tuple[object, ...], ort.InferenceSession] = WeakValueDictionary()
"""The sessions that some backend of this process holds. They run in any number of threads, so one serves all that ask alike."""


def open_graphs(row: BackendRow, bundle: Bundle, options: OpenOptions) -> OnnxRuntimeBackend:
    """The backend of a bundle's graphs; raises BackendError for int8 graphs that run on CPUs alone, on another device."""
    _check_quantization(bundle, options.device)
    return OnnxRuntimeBackend(
        bundle.path,
        bundle.manifest.graphs,
        bundle.card,
        device=options.device,
        threads=options.threads,
        profiles=options.profiles,
        key=bundle.manifest.key,
        tf32=options.tf32,
    )


class OnnxRuntimeBackend(GraphBackend):
    """The graphs of a bundle on ONNX Runtime. See `ditzoo.backends.graph_backend.GraphBackend`.

    Arrays are numpy's, or CuPy's on a GPU where that is installed: then latents and modulations stay on the device. `profiles`
    are the sizes that TensorRT's providers build for. `key` is that of the bundle, under which they keep what they built;
    without it they keep nothing. `tf32` lets a GPU compute float32 in TF32. Backends of one graph with the same settings share
    a session, and so its weights. Raises BackendError where the device's execution provider is missing, ONNX Runtime falls back
    to another one, or the provider has no such arithmetic.
    """

    library = "onnxruntime"

    def __init__(
        self,
        folder: Path,
        graphs: Mapping[str, Graph],
        card: Card,
        *,
        device: Device = "cpu",
        threads: int | None = None,
        profiles: Sequence[Profile] = (),
        key: str = "",
        tf32: bool = False,
    ) -> None:
        super().__init__(folder, graphs, card, device=device, threads=threads)
        self.tf32, self._key = tf32, key
        self.name += " tf32" if tf32 else ""
        if device == "cpu" and not PRECISION_TRAITS[self.precision].on_cpu:
            raise BackendError(
                f"ONNX Runtime has no {self.precision} arithmetic on CPUs; use --device cuda, or export fp32 or int8"
            )
        self._library = np if device == "cpu" else cuda.arrays()
        entries = _AS_EXPORTED if PRECISION_TRAITS[self.precision].eight_bits else {}
        self._sessions = {self._graph.file: self._load(self._graph, entries, profiles)}
        if self._conditioning is not None:
            window = window_rows(self._conditioning.outputs)
            ahead = [Profile(axes={"batch": Range(min=1, opt=window, max=window)})] if profiles else []
            self._sessions[self._conditioning.file] = self._load(self._conditioning, _RUNS_ONCE, ahead)

    def reopen(self, bundle: Bundle) -> Self:
        """See `GraphBackend`."""
        return type(self)(
            bundle.path,
            bundle.manifest.graphs,
            bundle.card,
            device=self.device,
            threads=self.threads,
            key=bundle.manifest.key,
            tf32=self.tf32,
        )

    def close(self) -> None:
        """See `ditzoo.backends.base.Backend`. A session that other backends share stays open for them."""
        self._sessions = {}

    def _load(self, graph: Graph, entries: Mapping[str, str], profiles: Sequence[Profile]) -> ort.InferenceSession:
        cache = cache_dir() / self.device / (self._key[:16] + ("-tf32" if self.tf32 else "")) if self._key else None
        options = provider_options(self.device, graph.inputs, profiles, cache=cache)
        path = self.folder / graph.file
        session = _shared_session(path, entries, self.device, self.threads, self.tf32, options)
        tensors = (*session.get_inputs(), *session.get_outputs())
        check_graph(path, graph, {tensor.name: (_DTYPES.get(tensor.type, tensor.type), tensor.shape) for tensor in tensors})
        return session

    def _run(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        if graph.file not in self._sessions:
            raise self.closed_error()
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


def _check_quantization(bundle: Bundle, device: Device) -> None:
    precision = bundle.manifest.graphs["backbone"].precision
    if device == "cpu" or precision != "int8" or bundle.manifest.settings.get("target") != "onnxruntime":
        return
    export = f"ditzoo export onnx {bundle.card.name} --out DIR --precision"
    raise BackendError(
        f"the int8 graphs in {bundle.path} measure their inputs as they run, which ONNX Runtime does on CPUs alone;"
        f" for --device cuda use `{export} fp16`, for --device tensorrt `{export} int8 --target tensorrt`"
    )


def provider_options(
    device: Device, inputs: Sequence[TensorSpec], profiles: Sequence[Profile], *, cache: Path | None
) -> dict[str, str]:
    """The options of a device's execution provider: for the TensorRT ones, what they built kept in `cache`, and the profiles.

    `cache` must be of one bundle: a kept engine is found again by the names of its graph's file, inputs and outputs, whatever
    the weights are. Their names are those of ONNX Runtime's documentation: `trt_` for TensorRT, `nv_` for TensorRT-RTX.
    """
    if device not in ("tensorrt", "tensorrt_rtx"):
        return {}
    prefix, option = ("trt", "engine_cache_path") if device == "tensorrt" else ("nv", "runtime_cache_path")
    enable = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"} if device == "tensorrt" else {}
    kept = {} if cache is None else {f"{prefix}_{option}": str(cache), **enable}
    return {**kept, **_profile_options(prefix, inputs, profiles)}


def _profile_options(prefix: str, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> dict[str, str]:
    """The smallest, best and largest shapes of every input, one after the other for each profile: "x:1x4x32x32,t:1,..."."""
    if not profiles:
        return {}
    texts = [
        ",".join(f"{spec.name}:{'x'.join(map(str, profile.shapes(spec)[end]))}" for profile in profiles for spec in inputs)
        for end in range(3)
    ]
    return {f"{prefix}_profile_{end}_shapes": text for end, text in zip(("min", "opt", "max"), texts, strict=True)}


def _shared_session(
    path: Path,
    entries: Mapping[str, str],
    device: Device,
    threads: int | None,
    tf32: bool,
    provider_options: Mapping[str, str],
) -> ort.InferenceSession:
    """The session of a graph under these settings that is open already, or a new one."""
    state = path.stat()
    settings = (device, threads, tf32, *entries.items(), *provider_options.items())
    key = (path.resolve(), state.st_ino, state.st_mtime_ns, *settings)
    session = _open.get(key)
    if session is None:
        session = _open[key] = open_session(
            path, device=device, threads=threads, entries=entries, provider_options=provider_options, tf32=tf32
        )
    return session

"""ONNX Runtime: the exported graphs of a bundle, on a CPU or an NVIDIA GPU. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort

from ditzoo.arrays import library_of
from ditzoo.backends import cuda
from ditzoo.backends.captured_runs import CapturedRuns, bind
from ditzoo.backends.conditioning import window_rows
from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.graph_files import check_graph
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.sessions import merged, open_session
from ditzoo.backends.table import BackendRow
from ditzoo.bundle import Bundle, Graph
from ditzoo.errors import BackendError, UsageError
from ditzoo.files import cache_dir
from ditzoo.specs import PRECISION_TRAITS, Array, Profile, Range, TensorSpec, axes_of, split_device
from ditzoo.zoo.card import Card

_AS_EXPORTED = {"session.disable_quant_qdq": "1"}
"""Q/DQ pairs stay what they are: fused for a CPU, int8 would saturate and fp8 is refused."""

_RUNS_ONCE = {"session.disable_prepacking": "1"}
"""Weights stay where the file is mapped: copying them takes longer than the few matrix multiplications that they are for."""

_CAPTURES = ("enable_cuda_graph", "trt_cuda_graph_enable")
"""The options of ONNX Runtime's providers that capture runs: that of CUDA and TensorRT-RTX, and that of TensorRT."""
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
        rows=options.rows,
        profiles=options.profiles,
        key=bundle.manifest.key,
        tf32=options.tf32,
        given=options.provider_options,
    )


class OnnxRuntimeBackend(GraphBackend):
    """The graphs of a bundle on ONNX Runtime. See `ditzoo.backends.graph_backend.GraphBackend`.

    Arrays are numpy's, or CuPy's on the first GPU where that is installed: then latents and modulations stay on the device.
    `profiles` are the sizes that TensorRT's providers build for. `key` is that of the bundle, under which they keep what they
    built; without it they keep nothing. `tf32` lets a GPU compute float32 in TF32. `given` are options of the execution
    provider. Backends of one graph with the same settings share a session, and so its weights, unless they capture CUDA graphs.

    Raises BackendError if the device's execution provider is missing, if ONNX Runtime falls back to another one, or if the
    provider has no such arithmetic. Raises UsageError for a provider option that ditzoo sets itself.
    """

    library = "onnxruntime"

    def __init__(
        self,
        folder: Path,
        graphs: Mapping[str, Graph],
        card: Card,
        *,
        device: str = "cpu",
        threads: int | None = None,
        rows: int | None = None,
        profiles: Sequence[Profile] = (),
        key: str = "",
        tf32: bool = False,
        given: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, graphs, card, device=device, threads=threads, rows=rows)
        self.tf32, self._key, self._given = tf32, key, dict(given or {})
        self._kind, self._index = split_device(device)
        self.name = " ".join(
            [self.name, *(["tf32"] if tf32 else []), *(f"{name}={value}" for name, value in self._given.items())]
        )
        if device == "cpu" and not PRECISION_TRAITS[self.precision].on_cpu:
            raise BackendError(
                f"ONNX Runtime has no {self.precision} arithmetic on CPUs; use --device cuda, or export fp32 or int8"
            )
        self._library = np if device == "cpu" or self._index else cuda.arrays()  # CuPy computes on the first GPU
        self._profiles = tuple(profiles)
        captures = self._captures()
        entries = _AS_EXPORTED if PRECISION_TRAITS[self.precision].eight_bits else {}
        self._sessions = {self._graph.file: self._load(self._graph, entries, profiles, alone=captures)}
        self._captured = CapturedRuns(self._sessions[self._graph.file], self._library) if captures else None
        if self._reuse is not None:
            self._sessions[self._reuse.file] = self._load(self._reuse, entries, profiles, alone=False)
        if self._conditioning is not None:
            window = window_rows(self._conditioning.outputs)
            ahead = [Profile(axes={"batch": Range(min=1, opt=window, max=window)})] if profiles else []
            self._sessions[self._conditioning.file] = self._load(self._conditioning, _RUNS_ONCE, ahead, alone=False)

    def _own_options(self, bundle: Bundle) -> dict[str, Any]:
        return {"key": bundle.manifest.key, "tf32": self.tf32, "given": self._given}

    def close(self) -> None:
        """See `ditzoo.backends.base.Backend`. A session that other backends share stays open for them."""
        self._sessions, self._captured = {}, None

    def _captures(self) -> bool:
        """Whether runs are captured as CUDA graphs. Raises UsageError if that was asked for where it cannot be."""
        asked = [name for name in _CAPTURES if self._given.get(name, "0").lower() not in ("0", "false")]
        if not asked:
            return False
        if asked != [_CAPTURES[0]] or self._kind != "cuda":
            raise UsageError(f"{asked[0]} is not for --device {self.device}; use {_CAPTURES[0]}=1 with --device cuda")
        if self._library is np:
            raise UsageError(
                f"{_CAPTURES[0]} keeps inputs at fixed places on the first GPU, which needs --device cuda and CuPy:"
                " pip install 'ditzoo[device]'; CUDA_VISIBLE_DEVICES says which GPU is the first one"
            )
        return True

    def _load(
        self, graph: Graph, entries: Mapping[str, str], profiles: Sequence[Profile], *, alone: bool
    ) -> ort.InferenceSession:
        """The session of a graph, which no other backend uses if `alone`. Only such a session captures CUDA graphs."""
        cache = cache_dir() / self._kind / (self._key[:16] + ("-tf32" if self.tf32 else "")) if self._key else None
        ours = provider_options(self._kind, graph.inputs, profiles, cache=cache)
        given = {name: value for name, value in self._given.items() if alone or name not in _CAPTURES}
        options, path = merged(ours, given), self.folder / graph.file
        rows = None if graph is self._conditioning else self.rows
        opened = open_session if alone else _shared_session
        session = opened(
            path,
            device=self.device,
            threads=self.threads,
            rows=rows,
            entries=entries,
            provider_options=options,
            tf32=self.tf32,
        )
        tensors = (*session.get_inputs(), *session.get_outputs())
        check_graph(path, graph, {tensor.name: (_DTYPES.get(tensor.type, tensor.type), tensor.shape) for tensor in tensors})
        return session

    def _run(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        if graph.file not in self._sessions:
            raise self.closed_error()
        session, sizes = self._sessions[graph.file], axes_of(graph.inputs, inputs)
        if self._captured is not None and graph is self._graph:
            return self._captured.run(inputs, {spec.name: (spec.concrete(**sizes), spec.dtype) for spec in graph.outputs})
        given = {name: library_of(value).ascontiguousarray(value) for name, value in inputs.items()}
        taken = {spec.name: self._library.empty(spec.concrete(**sizes), spec.dtype) for spec in graph.outputs}
        cuda.settle(self._library)  # ONNX Runtime has a stream of its own, and may copy an input as soon as it is bound
        binding = bind(session, given, taken)
        if self._kind == "tensorrt_rtx" and graph is not self._conditioning and len(self._profiles) > 1:
            session.run_with_iobinding(binding, choosing_profile(self._profiles, sizes))
        else:
            session.run_with_iobinding(binding)
        return list(taken.values())


def choosing_profile(profiles: Sequence[Profile], sizes: Mapping[str, int]) -> ort.RunOptions:
    """The options of a run that choose the first profile that holds these sizes. TensorRT-RTX does not choose by itself.

    Raises BackendError if no profile holds them.
    """
    index = next((i for i, profile in enumerate(profiles) if profile.fits(sizes)), None)
    if index is None:
        given = " ".join(f"{name}={size}" for name, size in sorted(sizes.items()))
        raise BackendError(f"no profile holds {given}; the profiles are {'; '.join(map(str, profiles))}")
    options = ort.RunOptions()
    options.add_run_config_entry("nv_profile_index", str(index))
    return options


def _check_quantization(bundle: Bundle, device: str) -> None:
    precision = bundle.manifest.graphs["backbone"].precision
    if device == "cpu" or precision != "int8" or bundle.manifest.settings.get("target") != "onnxruntime":
        return
    export = f"ditzoo export onnx {bundle.card.name} --out DIR --precision"
    raise BackendError(
        f"the int8 graphs in {bundle.path} measure their inputs as they run, which ONNX Runtime does on CPUs alone;"
        f" for --device cuda use `{export} fp16`, for --device tensorrt `{export} int8 --target tensorrt`"
    )


def provider_options(
    device: str, inputs: Sequence[TensorSpec], profiles: Sequence[Profile], *, cache: Path | None
) -> dict[str, str]:
    """The options for the execution provider of a kind of device. Those of TensorRT keep what they built in `cache`, and build
    for the profiles.

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
    several = {"nv_multi_profile_enable": "1"} if prefix == "nv" and len(profiles) > 1 else {}
    return {
        **{f"{prefix}_profile_{end}_shapes": text for end, text in zip(("min", "opt", "max"), texts, strict=True)},
        **several,
    }


def _shared_session(
    path: Path,
    *,
    device: str,
    threads: int | None,
    rows: int | None,
    entries: Mapping[str, str],
    provider_options: Mapping[str, str],
    tf32: bool,
) -> ort.InferenceSession:
    """The session of a graph under these settings that is open already, or a new one."""
    state = path.stat()
    settings = (device, threads, rows, tf32, *entries.items(), *provider_options.items())
    key = (path.resolve(), state.st_ino, state.st_mtime_ns, *settings)
    session = _open.get(key)
    if session is None:
        session = _open[key] = open_session(
            path, device=device, threads=threads, rows=rows, entries=entries, provider_options=provider_options, tf32=tf32
        )
    return session

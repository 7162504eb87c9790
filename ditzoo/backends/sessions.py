"""Sessions of ONNX Runtime: the one place where they are made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnxruntime as ort

from ditzoo.errors import BackendError
from ditzoo.specs import Device

PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt_rtx": "NvTensorRTRTXExecutionProvider",
}
"""ONNX Runtime's execution provider for each device."""

_ERRORS_ONLY = 3


def has_provider(device: Device) -> bool:
    """Whether the installed ONNX Runtime has the execution provider of a device."""
    return PROVIDERS[device] in ort.get_available_providers()


def open_session(
    path: Path,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    entries: Mapping[str, str] | None = None,
    provider_options: Mapping[str, str] | None = None,
    optimized: bool = True,
) -> ort.InferenceSession:
    """A new session of the graph at `path`, which reports errors only.

    `entries` are ONNX Runtime's session options by name, and `provider_options` are those of the device's execution provider.
    Unless `optimized`, the graph runs node by node as it was written. Raises BackendError if the execution provider is not
    installed, if ONNX Runtime falls back to another one, or if it cannot load the graph.
    """
    provider, available = PROVIDERS[device], ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); use --device cpu,"
            " or replace onnxruntime by the GPU package: pip uninstall onnxruntime && pip install 'ditzoo[gpu]'"
        )
    options = _session_options(device, threads, entries or {}, optimized=optimized)
    try:
        session = ort.InferenceSession(path, options, providers=[(provider, dict(provider_options or {}))])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
    used = session.get_providers()
    if used[0] != provider:
        raise BackendError(f"ONNX Runtime fell back from {provider} to {used[0]}: its libraries do not load; use --device cpu")
    return session


def _session_options(device: Device, threads: int | None, entries: Mapping[str, str], *, optimized: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    if device == "cpu":  # the default order runs what looks into a graph last, and holds all that it looks at until then
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for entry, value in entries.items():
        options.add_session_config_entry(entry, value)
    return options

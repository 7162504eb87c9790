"""Sessions of ONNX Runtime: the one place where they are made."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import onnxruntime as ort

from ditzoo.backends.gpus import check_gpu
from ditzoo.backends.probing import probe_cuda
from ditzoo.backends.rtx_plugin import PROVIDER, plugin_device
from ditzoo.backends.threads import SmallWork, threads_here, work_of
from ditzoo.distributions import distributions_of
from ditzoo.errors import BackendError, UsageError
from ditzoo.specs import Device, split_device

log = logging.getLogger(__name__)

PROVIDERS: dict[Device, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "tensorrt_rtx": PROVIDER,
}
"""ONNX Runtime's execution provider for each device."""

_SMALL = SmallWork(free=12 * 2**20, busy=12 * 2**20)

_ERRORS_ONLY = 3

_TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"

_TENSORRT_LIBRARIES: dict[Device, str] = {"tensorrt": "libnvinfer", "tensorrt_rtx": "libtensorrt_rtx"}
"""How the names of the files begin that the providers of TensorRT load."""

_HEAVY = ("MatMul", "Gemm", "Conv", "Attention", "Quantize")
"""Parts of the names of the operations that a GPU is there for. A provider may leave small ones on shapes to the CPU."""


def has_provider(device: Device) -> bool:
    """Whether the installed ONNX Runtime has the execution provider of a kind of device. Plugins are not among them."""
    return PROVIDERS[device] in ort.get_available_providers()


def open_session(
    path: Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    rows: int | None = None,
    entries: Mapping[str, str] | None = None,
    provider_options: Mapping[str, str] | None = None,
    optimized: bool = True,
    tf32: bool = False,
) -> ort.InferenceSession:
    """A new session of the graph at `path`, which reports errors only.

    `device` may have the number of a GPU, such as "cuda:1". `rows` is the number of rows that it is going to run on. `entries`
    are ONNX Runtime's session options by name, and `provider_options` are those of the device's execution provider. Unless
    `optimized`, the graph runs node by node as it was written. Unless `tf32`, a GPU computes float32 in float32.

    Raises BackendError if the execution provider is not installed or does not work, if there is no such GPU, if two packages of
    ONNX Runtime wrote over each other, if ONNX Runtime falls back to another provider for the graph or for a heavy part of it,
    if it cannot load the graph, or if TF32 is not as asked. Raises MissingPackageError if the provider is a plugin that is not
    installed, and UsageError for a provider option that ditzoo sets itself.
    """
    kind, index = split_device(device)
    provider = PROVIDERS[kind]
    options = _session_options(path, kind, threads, rows, entries or {}, optimized=optimized)
    if kind == "cpu":
        return _create(path, options, [(provider, dict(provider_options or {}))])
    _check_provider(kind)
    settle_tf32(kind, tf32=tf32)
    _load_cuda()
    if kind == "tensorrt_rtx":
        options.add_provider_for_devices([plugin_device(index)], dict(provider_options or {}))
        session = _create(path, options, None)
    else:
        check_gpu(device)
        ours = {"device_id": str(index), **({"use_tf32": str(int(tf32))} if kind == "cuda" else {})}
        session = _create(path, options, [(provider, merged(ours, provider_options or {}))])
    used = session.get_providers()
    if used[0] != provider:
        raise BackendError(f"ONNX Runtime fell back from {provider} to {used[0]}: its libraries do not load; use --device cpu")
    if hasattr(session, "get_provider_graph_assignment_info"):
        check_placement(session, path, provider)
    if kind == "cuda":
        probe_cuda(index)
    return session


def merged(ours: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The provider options that ditzoo sets and those that a user gave; raises UsageError for one that is in both."""
    if both := sorted({*ours} & {*given}):
        raise UsageError(f"ditzoo sets {', '.join(both)} of ONNX Runtime itself; leave that out, and see docs/gpu.md")
    return {**ours, **given}


def _check_provider(kind: Device) -> None:
    """Raises BackendError if ONNX Runtime has not the provider of a GPU, unless it is a plugin, or is installed twice."""
    _check_packages()
    provider, available = PROVIDERS[kind], ort.get_available_providers()
    if kind != "tensorrt_rtx" and provider not in available:
        raise BackendError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); use --device cpu,"
            " or replace onnxruntime by the GPU package: pip uninstall onnxruntime && pip install"
            f" 'ditzoo[{'gpu-tensorrt' if kind == 'tensorrt' else 'gpu'}]'"
        )


def _create(
    path: Path, options: ort.SessionOptions, providers: list[tuple[str, dict[str, str]]] | None
) -> ort.InferenceSession:
    """A session on `providers`; without them, on those that the options name."""
    try:
        return ort.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error


def settle_tf32(device: Device, *, tf32: bool) -> None:
    """Forbids TF32 in the providers of TensorRT, which have no option for it: they obey a variable of the environment, which
    TensorRT reads as it loads. It holds for the whole process.

    Raises BackendError if the variable says otherwise, or if TensorRT is loaded already.
    """
    said = os.environ.get(_TF32_OVERRIDE)
    if tf32 and said == "0":
        raise BackendError(f"{_TF32_OVERRIDE}=0 forbids TF32 in this process; start again without it, or leave tf32 out")
    if tf32 or device not in _TENSORRT_LIBRARIES or said == "0":
        return
    if said is not None or _is_loaded(_TENSORRT_LIBRARIES[device]):
        raise BackendError(
            f"{PROVIDERS[device]} may compute float32 in TF32 here: TensorRT must load with {_TF32_OVERRIDE}=0; start again"
            " with that in the environment, or use --backend onnxruntime:tf32"
        )
    os.environ[_TF32_OVERRIDE] = "0"


def check_placement(session: ort.InferenceSession, path: Path, provider: str) -> None:
    """Raises BackendError if the heavy operations of a graph are not all on the execution provider of its device.

    The session must have been opened with the entry "session.record_ep_graph_assignment_info".
    """
    parts = [part for part in session.get_provider_graph_assignment_info() if part.ep_name != provider]
    operations = sorted({node.op_type for part in parts for node in part.get_nodes()})
    heavy = [operation for operation in operations if any(word in operation for word in _HEAVY)]
    if heavy:
        raise BackendError(
            f"ONNX Runtime does not run {', '.join(heavy)} of {path} on {provider}; use --device cpu, or export the model in"
            " fp16, which runs on GPUs: ditzoo export onnx NAME --precision fp16 --out DIR"
        )


def _check_packages() -> None:
    """Raises BackendError if several packages of ONNX Runtime wrote into one folder, over each other."""
    packages = distributions_of("onnxruntime")
    if len(packages) > 1:
        raise BackendError(
            f"the packages {' and '.join(packages)} are installed over each other; keep one:"
            f" pip uninstall {' '.join(packages)} && pip install 'ditzoo[gpu]'"
        )


def _load_cuda() -> None:
    """Loads the CUDA and cuDNN that were installed with pip, which the system does not find by itself."""
    ort.set_default_logger_severity(_ERRORS_ONLY)  # it warns of each provider that is no plugin
    if not hasattr(ort, "preload_dlls"):  # before ONNX Runtime 1.21
        return
    with redirect_stdout(StringIO()) as said:
        ort.preload_dlls()
    if said.getvalue():
        log.info("ONNX Runtime says as it loads CUDA: %s", said.getvalue())


def _is_loaded(library: str) -> bool:
    """Whether this process has loaded a shared library; False where the system does not tell."""
    maps = Path("/proc/self/maps")
    return maps.exists() and f"/{library}." in maps.read_text()


def _session_options(
    graph: Path, device: Device, threads: int | None, rows: int | None, entries: Mapping[str, str], *, optimized: bool
) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if device == "cpu":
        chosen = threads_here(threads, work=work_of(graph, rows), small=_SMALL)
        options.intra_op_num_threads = chosen.number
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(chosen.spin)))
        # the default order runs what looks into a graph last, and holds all that it looks at until then
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    else:
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for entry, value in entries.items():
        options.add_session_config_entry(entry, value)
    return options

"""The GPU of a benchmark: its name, driver, libraries, clocks and memory. Works with torch, and without it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ditzoo.backends import cuda
from ditzoo.errors import BackendError

_FIELDS = {
    "driver": "driver_version",
    "GPU clock": "clocks.sm",
    "highest GPU clock": "clocks.max.sm",
    "memory clock": "clocks.mem",
    "power limit": "power.limit",
}
"""What nvidia-smi is asked for, by our names."""

_PACKAGES = (
    "onnxruntime-gpu",
    "nvidia-cuda-runtime",
    "nvidia-cublas",
    "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12",
    "cupy-cuda13x",
)


def describe() -> dict[str, str]:
    """The first GPU, its driver and its clocks at this moment, and the versions of CUDA's libraries. Empty without a GPU."""
    name = _name()
    if name is None:
        return {}
    return {"GPU": name, **_driver(), **_libraries()}


def free_memory() -> int | None:
    """The free memory of the first GPU, in bytes, for all processes together. None without a GPU."""
    torch = _torch()
    if torch is not None:
        return int(torch.cuda.mem_get_info()[0])
    return int(cuda.call(cuda.runtime().cudaMemGetInfo)[0]) if _has_cuda() else None


def release_cached() -> None:
    """Gives the memory back that torch keeps for later, so that what is measured next takes memory of its own."""
    torch = _torch()
    if torch is not None:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def _torch() -> Any:
    """torch, if it is loaded and has a GPU."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_available() else None


def _has_cuda() -> bool:
    """Whether cuda-python is installed and finds a GPU."""
    try:
        return cuda.gpu() is not None
    except (ModuleNotFoundError, BackendError):
        return False


def _name() -> str | None:
    torch = _torch()
    if torch is not None:
        return str(torch.cuda.get_device_name(0))
    return cuda.gpu_name() if _has_cuda() else None


def _driver() -> dict[str, str]:
    """The driver and the clocks, from nvidia-smi, which comes with every driver. Empty where it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(_FIELDS.values())}", "--format=csv,noheader", *_which_gpu()]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return {}
    values = answer.splitlines()[0].split(", ") if answer.strip() else []
    return dict(zip(_FIELDS, values, strict=False))


def _which_gpu() -> list[str]:
    """The option of nvidia-smi for the first GPU of CUDA, which need not be the first one of nvidia-smi."""
    if not _has_cuda():
        return []
    bus: bytes = cuda.call(cuda.runtime().cudaDeviceGetPCIBusId, 32, 0)
    return [f"--id={bus.partition(bytes(1))[0].decode()}"]


def _libraries() -> dict[str, str]:
    torch, found = _torch(), {}
    if torch is not None:
        found = {"CUDA of torch": str(torch.version.cuda), "cuDNN of torch": str(torch.backends.cudnn.version())}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

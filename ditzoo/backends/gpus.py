"""The GPUs of this machine, as NVIDIA's driver counts them. Needs no package."""

from __future__ import annotations

import ctypes

from ditzoo.errors import BackendError
from ditzoo.specs import device_name, split_device

_DRIVER = "libcuda.so.1"


def gpu_count() -> int:
    """The number of GPUs that the driver shows to this process; 0 without a driver. It obeys CUDA_VISIBLE_DEVICES."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def check_gpu(device: str) -> None:
    """Raises BackendError if a device such as "cuda:1" names a GPU beyond those that the driver shows.

    The first GPU passes: whether it is there, the library that runs on it says best.
    """
    kind, index = split_device(device)
    count = gpu_count() if index else 1
    if index >= count:
        there = " or ".join(f"{kind}:{i}" if i else kind for i in range(count))
        remedy = f"use --device {there}" if there else "NVIDIA's driver shows none here"
        raise BackendError(f"there is no GPU {index}, which {device} names; {remedy}")


def cuda_device(device: str) -> str:
    """The GPU of a device under the name that it has in CUDA, such as "cuda:1" for "tensorrt:1"; "cpu" for the CPU.

    Raises BackendError if there is no such GPU.
    """
    kind, index = split_device(device)
    if kind == "cpu":
        return kind
    check_gpu(device)
    return device_name(f"cuda:{index}")

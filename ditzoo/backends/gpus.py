"""The GPUs of this machine, as NVIDIA's driver counts them. Needs no package."""

from __future__ import annotations

import ctypes

from ditzoo.errors import BackendError
from ditzoo.records import Data
from ditzoo.specs import device_name, split_device

_DRIVER = "libcuda.so.1"

_MAJOR, _MINOR = 75, 76
"""The numbers of CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR in cuda.h."""


class Gpu(Data, frozen=True, kw_only=True):
    """A GPU: its name, its architecture, such as "sm90", and its memory in bytes."""

    name: str
    architecture: str
    memory: int


def driver_version() -> str | None:
    """The newest version of CUDA that NVIDIA's driver runs, such as "13.0"; None without a driver."""
    number = ctypes.c_int(0)
    driver = _driver()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def gpu_count() -> int:
    """The number of GPUs that the driver shows to this process; 0 without a driver. It obeys CUDA_VISIBLE_DEVICES."""
    driver = _driver()
    count = ctypes.c_int(0)
    failed = driver is None or driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    return 0 if failed else count.value


def gpus() -> list[Gpu]:
    """The GPUs that the driver shows to this process, in the order of their numbers."""
    return [_gpu(index) for index in range(gpu_count())]


def _gpu(index: int) -> Gpu:
    driver, device = ctypes.CDLL(_DRIVER), ctypes.c_int(0)
    name, memory, major, minor = ctypes.create_string_buffer(256), ctypes.c_size_t(0), ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return Gpu(name=name.value.decode(), architecture=f"sm{major.value}{minor.value}", memory=memory.value)


def _driver() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(_DRIVER)
    except OSError:
        return None


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

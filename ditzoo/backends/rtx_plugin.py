"""ONNX Runtime's provider for TensorRT-RTX. It is a plugin, in a package of its own, and shows the GPUs that it runs on."""

from __future__ import annotations

from functools import cache
from importlib import import_module

import onnxruntime as ort

from ditzoo.errors import BackendError, MissingPackageError

PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
PROVIDER = "NvTensorRTRTXExecutionProvider"

_INSTALL = "pip install 'ditzoo[gpu-tensorrt-rtx]'"


def plugin_device(index: int) -> ort.OrtEpDevice:
    """The GPU of a number, for `ort.SessionOptions.add_provider_for_devices`. The plugin counts only the GPUs that it runs on.

    Raises MissingPackageError, with the pip command, if the plugin is not installed, and BackendError if it does not load or
    shows no such GPU.
    """
    devices = _devices()
    if not devices:
        _register()
        devices = _devices()
    if not devices:
        raise BackendError(
            f"the plugin {PLUGIN} shows no GPU here: it runs on compute capability 8.6, 8.9, and 12.0 or higher, with an NVIDIA"
            " driver for CUDA 13; use --device cuda or --device tensorrt"
        )
    if index >= len(devices):
        names = [f"tensorrt_rtx{f':{i}' if i else ''}" for i in range(len(devices))]
        raise BackendError(f"the plugin {PLUGIN} shows no GPU {index}; use --device {' or '.join(names)}")
    return devices[index]


def _devices() -> list[ort.OrtEpDevice]:
    return [device for device in ort.get_ep_devices() if device.ep_name == PROVIDER]


@cache
def _register() -> None:
    """Makes the plugin known to ONNX Runtime, once in a process."""
    try:
        plugin = import_module(PLUGIN)
    except ModuleNotFoundError as error:
        if error.name != PLUGIN:
            raise
        raise MissingPackageError(
            f"the device tensorrt_rtx of ONNX Runtime needs the package {PLUGIN.replace('_', '-')}: {_INSTALL}"
        ) from error
    try:
        ort.register_execution_provider_library(PROVIDER, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(
            f"ONNX Runtime cannot load the plugin {PLUGIN}: {error}; it needs an NVIDIA driver for CUDA 13,"
            f" and ONNX Runtime 1.24 or later: {_INSTALL}"
        ) from error

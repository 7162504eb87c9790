"""Tries what an execution provider of ONNX Runtime loads late, so that it fails as a backend opens and not in its first run."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from functools import cache

import numpy as np
import onnxruntime as ort

from ditzoo.errors import BackendError

CONVOLUTION = b64decode(
    "CAg6awoPCgF4CgF3EgF5IgRDb252EgFjWhsKAXgSFgoUCAESEAoCCAEKAggBCgIIAQoCCAFaGwoBdxIWChQIARIQCgIIAQoCCAEKAggBCgIIAWIbCgF5EhYK"
    "FAgBEhAKAggBCgIIAQoCCAEKAggBQgQKABAR"
)
"""An ONNX model: y = Conv(x, w), each of shape [1, 1, 1, 1] in float32. It is in bytes because ditzoo does not need `onnx`."""

_FATAL_ONLY = 4


@cache
def probe_cuda(index: int) -> None:
    """Convolves two numbers on a GPU: ONNX Runtime's CUDA provider loads cuDNN at its first convolution.

    Raises BackendError, with the command that installs CUDA and cuDNN, if it cannot.
    """
    try:
        convolve("CUDAExecutionProvider", {"device_id": str(index)})
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(
            f"ONNX Runtime cannot convolve on GPU {index}: {error}; pip install 'ditzoo[gpu]' brings CUDA and cuDNN"
        ) from error


def convolve(provider: str, options: Mapping[str, str]) -> float:
    """The convolution of 2 and 3 with an execution provider. Raises ONNX Runtime's error if the provider does not run it."""
    settings = ort.SessionOptions()
    settings.log_severity_level = _FATAL_ONLY
    if provider != "CPUExecutionProvider":
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = ort.InferenceSession(CONVOLUTION, settings, providers=[(provider, dict(options))], enable_fallback=0)
    given = {name: np.full((1, 1, 1, 1), value, dtype=np.float32) for name, value in (("x", 2), ("w", 3))}
    return float(session.run(None, given)[0].item())

"""The graphs of a bundle beside the network, decoder and text encoder, on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError, BundleError
from ditzoo.specs import Device

Run: TypeAlias = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]


def load_graph(bundle: Bundle, name: str, *, device: Device = "cpu") -> Run:
    """The graph called `name` of a bundle, as a function from its inputs to its one output.

    Raises BundleError where the bundle has none, and BackendError where ONNX Runtime does not load it.
    """
    from ditzoo.backends import load_module

    if name not in bundle.manifest.graphs:
        raise BundleError(f"the bundle {bundle.path} has no {name}; it has {', '.join(bundle.manifest.graphs)}")
    path, module = bundle.path / bundle.manifest.graphs[name].file, load_module("onnxruntime")
    try:
        session = module.ort.InferenceSession(path, providers=[module.PROVIDERS[device]])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
    return lambda inputs: session.run(None, dict(inputs))[0]

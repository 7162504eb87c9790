"""Runs the other graphs of a bundle, its decoder and its text encoder, on ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ditzoo.backends import load_module
from ditzoo.backends.gpus import cuda_device
from ditzoo.bundle import Bundle, consistently
from ditzoo.errors import BundleError
from ditzoo.specs import split_device

log = logging.getLogger(__name__)

Run: TypeAlias = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]


def load_graph(bundle: Bundle, name: str, *, device: str = "cpu") -> Run:
    """The graph called `name` of a bundle, as a function from its inputs to its one output.

    Raises BundleError if the bundle has no such graph, and BackendError if ONNX Runtime cannot load it. `device` is that of the
    network: see `graph_device`.
    """
    if name not in bundle.manifest.graphs:
        raise BundleError(f"the bundle {bundle.path} has no {name}; it has {', '.join(bundle.manifest.graphs)}")
    load_module("onnxruntime")
    from ditzoo.backends.sessions import open_session

    place = graph_device(device)
    session = consistently(bundle, lambda now: open_session(now.path / now.manifest.graphs[name].file, device=place))
    return lambda inputs: session.run(None, dict(inputs))[0]


def graph_device(device: str) -> str:
    """Where graphs beside a network on `device` run: on its GPU, if ONNX Runtime has its provider for CUDA, else on the CPU.

    The network may run on a GPU with another library, such as torch or TensorRT, beside an ONNX Runtime for CPUs.
    """
    if split_device(device)[0] == "cpu":
        return "cpu"
    load_module("onnxruntime")
    from ditzoo.backends.sessions import PROVIDERS, has_provider

    if has_provider("cuda"):
        return cuda_device(device)
    log.warning("this ONNX Runtime has no %s: decoder and text encoder run on the CPU", PROVIDERS["cuda"])
    return "cpu"

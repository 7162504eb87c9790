"""ONNX Runtime: the exported graph of a bundle, on a CPU or an NVIDIA GPU. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from ditzoo.bundle import Graph
from ditzoo.card import Card
from ditzoo.errors import BackendError
from ditzoo.specs import Array, Device, TensorSpec, check_inputs

PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_ERRORS_ONLY = 3


class OnnxRuntimeBackend:
    """The `graph` of a card in the folder of its bundle. See `ditzoo.backends.base.Backend`. Arrays are numpy's.

    Raises BackendError where the device's execution provider is missing or ONNX Runtime falls back to another one.
    """

    def __init__(self, folder: Path, graph: Graph, card: Card, *, device: Device = "cpu", threads: int | None = None) -> None:
        self.card = card
        self.precision = graph.precision
        self.name = f"onnxruntime {graph.precision} {device}"
        self.inputs: tuple[TensorSpec, ...] = graph.inputs
        self.outputs: tuple[TensorSpec, ...] = graph.outputs
        self._session: ort.InferenceSession | None = _session(folder / graph.file, PROVIDERS[device], threads)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The network's output for numpy arrays."""
        check_inputs(self.inputs, inputs)
        if self._session is None:
            raise BackendError(f"{self.name} is closed; open the backend again")
        (output,) = self._session.run([self.outputs[0].name], dict(inputs))
        return output

    def asarray(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The array itself."""
        return array

    def numpy(self, array: Array) -> npt.NDArray[np.float32]:
        """The array itself."""
        return np.asarray(array, dtype=np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._session = None


def _session(path: Path, provider: str, threads: int | None) -> ort.InferenceSession:
    available = ort.get_available_providers()
    if provider not in available:
        raise BackendError(
            f"this ONNX Runtime has no {provider} (it has {', '.join(available)}); use --device cpu,"
            " or replace onnxruntime by the GPU package: pip uninstall onnxruntime && pip install 'ditzoo[gpu]'"
        )
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or 0
    try:
        session = ort.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise BackendError(f"ONNX Runtime cannot load {path}: {error}") from error
    used = session.get_providers()
    if used[0] != provider:
        raise BackendError(
            f"ONNX Runtime fell back from {provider} to {used[0]}: its CUDA libraries do not load; use --device cpu"
        )
    return session

"""Runs of an ONNX Runtime session at fixed addresses, which is what it needs to capture and replay them as CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime as ort

from ditzoo.backends import cuda
from ditzoo.specs import Array


class _Place:
    """The arrays of the inputs and outputs of one set of shapes, bound to a session, and the number of its CUDA graph."""

    def __init__(self, session: ort.InferenceSession, given: dict[str, Array], taken: dict[str, Array], number: int) -> None:
        self.given, self.taken, self.binding = given, taken, bind(session, given, taken)
        self.options = ort.RunOptions()
        self.options.add_run_config_entry("gpu_graph_id", str(number))


class CapturedRuns:
    """Runs a session that was opened with `enable_cuda_graph`.

    Such a session records its first run of each graph number. It replays the record after that, and reads and writes the same
    addresses. So each set of shapes has a number and arrays of its own, of `library`. Inputs are copied into these arrays, and
    outputs out of them. One thread runs at a time. The library must be CuPy for a session on a GPU, because ONNX Runtime copies
    inputs of the host as they are bound, and not again.
    """

    def __init__(self, session: ort.InferenceSession, library: Any) -> None:
        self._session, self._library, self._lock = session, library, Lock()
        self._places: dict[tuple[tuple[int, ...], ...], _Place] = {}

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, tuple[tuple[int, ...], str]]) -> list[Array]:
        """The outputs, whose shapes and dtypes are given by name, for arrays of the library or of numpy."""
        key = tuple(tuple(value.shape) for value in inputs.values())
        with self._lock:
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = self._new_place(inputs, outputs)
            for name, value in inputs.items():
                place.given[name][...] = self._library.asarray(value)
            cuda.settle(self._library)  # ONNX Runtime has a stream of its own
            self._session.run_with_iobinding(place.binding, place.options)
            return [value.copy() for value in place.taken.values()]

    def _new_place(self, inputs: Mapping[str, Array], outputs: Mapping[str, tuple[tuple[int, ...], str]]) -> _Place:
        given = {name: self._library.empty(value.shape, value.dtype) for name, value in inputs.items()}
        taken = {name: self._library.empty(shape, dtype) for name, (shape, dtype) in outputs.items()}
        return _Place(self._session, given, taken, len(self._places) + 1)


def bind(session: ort.InferenceSession, given: Mapping[str, Array], taken: Mapping[str, Array]) -> Any:
    """Binds contiguous arrays to a session's inputs and outputs by address: numpy's on the host, CuPy's on the first GPU."""
    binding = session.io_binding()
    for bind_one, arrays in ((binding.bind_input, given), (binding.bind_output, taken)):
        for name, value in arrays.items():
            device = "cpu" if isinstance(value, np.ndarray) else "cuda"
            bind_one(name, device, 0, value.dtype, value.shape, cuda.address(value))
    return binding

"""OpenVINO: the exported graphs of a bundle, on a CPU. Needs no torch.

OpenVINO's default on some CPUs is to compute a float32 graph in bf16. Here it always computes in the types that the graph has:
bf16 is a bundle that was exported in bf16, in which matrix multiplications are in bf16, and norms and sums in float32.

In int8 it multiplies integers where the graph has scales that were measured at export (`--target tensorrt`). It also reads
graphs that measure their inputs as they run, and gives the right numbers, but multiplies in float32, slower than in fp32. With
the property INFERENCE_PRECISION_HINT=bf16 it computes the rest of an int8 graph in bf16, which is faster and less precise.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from openvino import opset13

from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.graph_files import check_graph
from ditzoo.backends.options import OpenOptions
from ditzoo.backends.table import BackendRow
from ditzoo.backends.threads import SmallWork, graph_bytes, threads_here, work_of
from ditzoo.bundle import Bundle, Graph
from ditzoo.errors import BackendError, UsageError, shortened, unknown
from ditzoo.specs import Array, Precision
from ditzoo.zoo.card import Card

_DEVICES: dict[str, str] = {"cpu": "CPU"}

_HINT, _THREADS = "INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS"

_SMALL = SmallWork(free=6 * 2**20, busy=2**28)

_RESIZES_SLOWLY = 2**24
"""The bytes of a graph that takes long when the number of rows changes, because OpenVINO prepares each node for a new shape."""


def open_graphs(row: BackendRow, bundle: Bundle, options: OpenOptions) -> OpenVinoBackend:
    """The backend of a bundle's graphs."""
    return OpenVinoBackend(
        bundle.path,
        bundle.manifest.graphs,
        bundle.card,
        device=options.device,
        threads=options.threads,
        rows=options.rows,
        given=options.provider_options,
    )


def check_properties(given: Mapping[str, str], precision: Precision) -> None:
    """Raises UsageError for a property that OpenVINO does not have, or whose value it refuses.

    It does so too for a property that ditzoo sets itself, and for one that would change the precision. Which values OpenVINO
    takes is tried with a network of one node.
    """
    if not given:
        return
    core, device = openvino.Core(), _DEVICES["cpu"]
    known = [name for name, access in core.get_property(device, "SUPPORTED_PROPERTIES").items() if access == "RW"]
    number = opset13.parameter([1], np.float32)
    network = openvino.Model([opset13.relu(number)], [number])
    for name, value in given.items():
        if name not in known:
            raise unknown("property of OpenVINO", name, known)
        if name == _THREADS:
            raise UsageError(f"ditzoo sets {_THREADS} of OpenVINO itself; use --threads")
        try:
            core.compile_model(network, device, {name: value})
        except RuntimeError as error:
            *_, why = str(error).strip().splitlines()
            raise UsageError(f"OpenVINO refuses {name}={shortened(value)}: {why.replace(value, shortened(value))}") from error
    hint = given.get(_HINT)
    if hint is not None and (hint, precision) != ("bf16", "int8"):
        raise UsageError(
            f"{_HINT}={hint} is not for {precision}; write openvino:int8:{_HINT}=bf16, or choose another precision"
        )


class OpenVinoBackend(GraphBackend):
    """The graphs of a bundle on OpenVINO. See `ditzoo.backends.graph_backend.GraphBackend`. Arrays are numpy's.

    `given` are properties of OpenVINO. Raises BackendError if OpenVINO cannot load a graph, or if the CPU has no bf16
    arithmetic and that was asked for. Raises the errors of `check_properties`.
    """

    library = "openvino"

    def __init__(
        self,
        folder: Path,
        graphs: Mapping[str, Graph],
        card: Card,
        *,
        device: str = "cpu",
        threads: int | None = None,
        rows: int | None = None,
        given: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder, graphs, card, device=device, threads=threads, rows=rows)
        core, self._given = openvino.Core(), dict(given or {})
        check_properties(self._given, self.precision)
        self.name = " ".join([self.name, *(f"{name}={value}" for name, value in self._given.items())])
        self.resizes_slowly = graph_bytes(folder / self._graph.file) >= _RESIZES_SLOWLY
        in_half = "bf16" in (self.precision, self._given.get(_HINT))
        if in_half and "BF16" not in core.get_property(_DEVICES[device], "OPTIMIZATION_CAPABILITIES"):
            raise BackendError("this CPU has no bf16 arithmetic for OpenVINO; use openvino or openvino:int8")
        loaded = [graph for graph in (self._graph, self._conditioning, self._reuse) if graph is not None]
        self._models = {graph.file: self._load(core, folder / graph.file, graph) for graph in loaded}

    def _own_options(self, bundle: Bundle) -> dict[str, Any]:
        return {"given": self._given}

    def close(self) -> None:
        """See `ditzoo.backends.base.Backend`."""
        self._models = {}

    def _load(self, core: openvino.Core, path: Path, graph: Graph) -> openvino.CompiledModel:
        settings: dict[str, Any] = {
            _HINT: "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # a thread that keeps to one core waits if that core is taken
        }
        rows = None if graph is self._conditioning else self.rows
        chosen = threads_here(self.threads, work=work_of(path, rows), small=_SMALL)
        settings[_THREADS] = chosen.number
        settings |= self._given
        try:
            model = core.compile_model(core.read_model(path), _DEVICES[self.device], settings)
        except RuntimeError as error:
            *_, why = str(error).strip().splitlines()
            raise BackendError(f"OpenVINO cannot load {path}: {why}") from error
        found = {
            name: (
                tensor.element_type.to_dtype().name,
                [axis.get_length() if axis.is_static else None for axis in tensor.partial_shape],
            )
            for tensor in (*model.inputs, *model.outputs)
            for name in tensor.names
        }
        check_graph(path, graph, found)
        return model

    def _run(self, graph: Graph, inputs: Mapping[str, Array]) -> list[Array]:
        if graph.file not in self._models:
            raise self.closed_error()
        outputs = self._models[graph.file]([np.ascontiguousarray(inputs[spec.name]) for spec in graph.inputs])
        return [outputs[spec.name] for spec in graph.outputs]

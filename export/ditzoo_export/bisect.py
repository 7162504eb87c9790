"""Finding where an exported graph goes wrong: the first module, and the first operation in it, that computes something else.

A graph is held, value by value, against a fresh export of the same network. Both come from the same exporter, which names
values alike, so that a weight, an epsilon or an operation that was changed later shows at the node that it belongs to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from ditzoo.bundle import Graph
from ditzoo.errors import ExportError
from ditzoo.parity import relative_l2
from ditzoo.specs import Data
from ditzoo_export.graph import SCOPE

Values: TypeAlias = dict[str, npt.NDArray[Any]]

_ERRORS_ONLY = 3


class Finding(Data, frozen=True, kw_only=True):
    """The first node whose output is off: the graph and module that it is in, the kind of operation, and by how much.

    `module` is a path in the network, such as "blocks.3.mlp.fc1"; empty for the network itself.
    """

    graph: str
    module: str
    operation: str
    node: str
    relative_l2: float


def bisect(
    folder: Path,
    graphs: Mapping[str, Graph],
    reference: Path,
    inputs: Values,
    *,
    order: Sequence[str] = ("conditioning", "backbone"),
    tolerance: float = 1e-5,
) -> Finding | None:
    """The first operation of the `graphs` in `folder` that differs by more than `tolerance` (relative L2) from its like in the
    graphs of the same names in the folder `reference`, on `inputs`; None where there is none.

    The graphs run in `order`; outputs of one are inputs of those behind it. Raises ExportError where the two have too
    little in common to be compared.
    """
    given, expected = dict(inputs), dict(inputs)
    for name in (name for name in order if name in graphs):
        graph = graphs[name]
        given |= _values(folder / graph.file, _chosen(given, graph))
        expected |= _values(reference / graph.file, _chosen(expected, graph))
        for finding in _differences(name, folder / graph.file, given, expected, tolerance):
            return finding
    return None


def _chosen(values: Values, graph: Graph) -> Values:
    return {spec.name: values[spec.name] for spec in graph.inputs}


def _differences(name: str, path: Path, given: Values, expected: Values, tolerance: float) -> Iterator[Finding]:
    """Every node beyond the tolerance, in the order in which they run."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    known = [node for node in nodes if node.output[0] in given and node.output[0] in expected]
    if len(known) < len(nodes) / 2:
        raise ExportError(f"{path} is not a graph of the same export as the reference: most of its values have other names")
    for node in known:
        output = node.output[0]
        error = _error(given[output], expected[output])
        if not error <= tolerance:
            module = next((entry.value for entry in node.metadata_props if entry.key == SCOPE), "")
            yield Finding(graph=name, module=module, operation=node.op_type, node=node.name, relative_l2=error)


def _error(value: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
    if value.shape != reference.shape:
        return float("inf")
    return relative_l2(value, reference) if np.any(reference) else float(np.abs(value).max(initial=0))


def _values(path: Path, inputs: Values) -> Values:
    """Every floating point value that the graph computes on `inputs`, by name."""
    model = onnx.load(path)
    outputs = {value.name for value in model.graph.output}
    inner = [output for node in model.graph.node for output in node.output if output and output not in outputs]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # every node is to be seen
    options.log_severity_level = _ERRORS_ONLY
    with tempfile.TemporaryDirectory() as scratch:
        exposed = Path(scratch) / path.name
        onnx.save(model, exposed, save_as_external_data=True, location="weights")
        session = ort.InferenceSession(exposed, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_outputs() if value.type in ("tensor(float)", "tensor(float16)")]
        return dict(zip(names, session.run(names, inputs), strict=True))

"""Finding a change in a bundle's graphs: the first value that differs from a fresh export with the same settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ditzoo.backends.sessions import open_session
from ditzoo.bundle import Bundle
from ditzoo.folders import temporary_folder
from ditzoo.measure.bisection import Place
from ditzoo.measure.metrics import relative_l2
from ditzoo.specs import PRECISION_TRAITS
from ditzoo_export.artifacts import cached_bundle
from ditzoo_export.bisection.module_outputs import (
    EXPOSED,
    Node,
    Values,
    ends,
    given,
    network_graphs,
    place_of,
    read_nodes,
    write_with_outputs,
)
from ditzoo_export.settings import Settings

SAME = 1e-6
"""The largest relative L2 error between two runs of the same arithmetic on the same machine."""


def first_change(bundle: Bundle, evaluation: Values, blocks: Sequence[str]) -> Place | None:
    """The first operation of a bundle's network whose output differs from that of a fresh export, on the inputs `evaluation`.

    First it compares the outputs of the modules `blocks`. Then it compares all values inside the first block that differs, and
    all values between blocks. Returns None if nothing differs, if fewer than half of the values have the same names, if the
    bundle is the fresh export itself, or if ONNX Runtime cannot run the precision on a CPU.
    """
    fresh = cached_bundle(bundle.card, settings=_settings(bundle))
    if fresh.path == bundle.path or not PRECISION_TRAITS[bundle.manifest.graphs["backbone"].precision].on_cpu:
        return None
    known, written = {(node.graph, node.value) for node in read_nodes(fresh)}, read_nodes(bundle)
    nodes = [node for node in written if (node.graph, node.value) in known]
    if len(nodes) < len(written) / 2:
        return None
    last = ends(nodes)
    block_at = {last[path]: path for path in reversed(blocks) if path in last}
    for end, _ in _differences(bundle, fresh, [node for node in nodes if node in block_at], evaluation):
        before = nodes[: nodes.index(end) + 1]
        near = [node for node in before if _block(node, blocks) in ("", block_at[end])]
        return next(place_of(node, apart, changed=True) for node, apart in _differences(bundle, fresh, near, evaluation))
    return None


def error(value: np.ndarray, reference: np.ndarray) -> float:
    """The relative L2 error of a value, or its largest magnitude if the reference is zero.

    NaN counts as equal to NaN. If the shapes differ, the error is infinite.
    """
    if value.shape != reference.shape:
        return float("inf")
    if np.array_equal(value, reference, equal_nan=True):
        return 0.0
    with np.errstate(invalid="ignore"):
        return relative_l2(value, reference) if np.any(reference) else float(np.abs(value).max(initial=0))


def _settings(bundle: Bundle) -> Settings:
    """The settings of the export that made a bundle's network."""
    graph = bundle.manifest.graphs["backbone"]
    height, width = graph.inputs[0].shape[2:]
    return Settings(
        precision=graph.precision,
        target="tensorrt" if bundle.manifest.settings["target"] == "tensorrt" else "onnxruntime",
        size=(height, width) if isinstance(height, int) and isinstance(width, int) else None,
        split="conditioning" in bundle.manifest.graphs,
    )


def _block(node: Node, blocks: Sequence[str]) -> str:
    """The path of the block that a node belongs to. It is empty if the node belongs to no block."""
    return max((path for path in blocks if f"{node.module}.".startswith(f"{path}.")), key=len, default="")


def _differences(bundle: Bundle, fresh: Bundle, nodes: Sequence[Node], evaluation: Values) -> Iterator[tuple[Node, float]]:
    """The nodes whose values differ between the two bundles, with their errors, in the order of `nodes`."""
    values, expected = (_node_values(each, nodes, evaluation) for each in (bundle, fresh))
    for node in nodes:
        apart = error(values[node.graph, node.value], expected[node.graph, node.value])
        if not apart <= SAME:
            yield node, apart


def _node_values(bundle: Bundle, nodes: Sequence[Node], evaluation: Values) -> dict[tuple[str, str], np.ndarray]:
    """The outputs of `nodes` in a bundle's network, by the names of graph and value."""
    known, found = dict(evaluation), dict[tuple[str, str], np.ndarray]()
    for name, graph in network_graphs(bundle):
        labels = {EXPOSED + node.value: node.value for node in nodes if node.graph == name}
        outputs = _run(bundle.path / graph.file, labels, given(graph.inputs, known))
        found |= {(name, value): outputs[label] for label, value in labels.items()}
        known |= {spec.name: outputs[spec.name] for spec in graph.outputs}
    return found


def _run(path: Path, labels: dict[str, str], inputs: Values) -> Values:
    """The outputs of a graph, and values inside it by their labels, computed without optimizations.

    `labels` maps each label to the name of a value.
    """
    with temporary_folder() as scratch:
        write_with_outputs(path, scratch, labels)
        session = open_session(scratch / path.name, optimized=False)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

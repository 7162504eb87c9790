"""Every fault that is planted must be named by its place."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from ditzoo.bundle import Bundle
from ditzoo.errors import ExportError
from ditzoo.plan import make_plan
from ditzoo.sample import class_condition, evaluation_inputs, gaussian
from ditzoo.zoo import digits
from ditzoo_export import cached_bundle
from ditzoo_export.bisect import bisect
from ditzoo_export.graph import SCOPE

CARDS = list(digits.CARDS)

Fault = Callable[[onnx.ModelProto], tuple[str, str]]
"""Breaks a graph; returns the module and the kind of operation that have to be named."""


@pytest.fixture(params=CARDS, ids=lambda card: card.name)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return cached_bundle(request.param)


def scope(node: onnx.NodeProto) -> str:
    return next((entry.value for entry in node.metadata_props if entry.key == SCOPE), "")


def nodes(model: onnx.ModelProto, operation: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operation]


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change(model: onnx.ModelProto, name: str, of: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = initializer(model, name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(of(onnx.numpy_helper.to_array(tensor)).astype(np.float32), name))


def scaled_weight(model: onnx.ModelProto) -> tuple[str, str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in nodes(model, "MatMul") if node.input[1] in weights]
    node = products[len(products) // 2]
    change(model, node.input[1], lambda weight: 1.01 * weight)
    return scope(node), "MatMul"


def other_epsilon(model: onnx.ModelProto) -> tuple[str, str]:
    node = nodes(model, "LayerNormalization")[3]
    next(attribute for attribute in node.attribute if attribute.name == "epsilon").f = 1e-2
    return scope(node), "LayerNormalization"


def other_gelu(model: onnx.ModelProto) -> tuple[str, str]:
    node = nodes(model, "Gelu")[2]
    attribute = next((attribute for attribute in node.attribute if attribute.name == "approximate"), None)
    if attribute is None:
        node.attribute.append(onnx.helper.make_attribute("approximate", "tanh"))
    else:
        attribute.s = b"none" if attribute.s == b"tanh" else b"tanh"
    return scope(node), "Gelu"


def sinusoid_of_127(model: onnx.ModelProto) -> tuple[str, str]:
    """The mistake of dividing by half the width less one."""
    (cosine,) = nodes(model, "Cos")
    node = next(node for node in model.graph.node if node.output[0] == cosine.input[0])
    frequencies = next(name for name in node.input if any(tensor.name == name for tensor in model.graph.initializer))
    half = initializer(model, frequencies).dims[-1]
    change(model, frequencies, lambda _: np.exp(-np.log(10_000) * np.arange(half) / (half - 1)).reshape(1, half))
    return scope(node), node.op_type


FAULTS: list[Fault] = [scaled_weight, other_epsilon, other_gelu, sinusoid_of_127]


def inputs_of(bundle: Bundle) -> dict[str, np.ndarray]:
    card, row = bundle.card, make_plan(bundle.card, steps=4).rows[2]
    x = np.stack([gaussian(0, image, 0, card.backbone.latent_shape) for image in range(2)])
    return evaluation_inputs(x, row, class_condition(card, [3, 5]))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_named(bundle: Bundle, fault: Fault, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(bundle.path, tmp_path / "broken"))
    for name, graph in bundle.manifest.graphs.items():
        model = onnx.load(broken / graph.file)
        try:
            module, operation = fault(model)
        except (ValueError, IndexError):
            continue  # the fault belongs to the other graph
        onnx.save(model, broken / graph.file)
        finding = bisect(broken, bundle.manifest.graphs, bundle.path, inputs_of(bundle), tolerance=1e-6)
        assert finding is not None
        assert (finding.graph, finding.module, finding.operation) == (name, module, operation)
        assert finding.relative_l2 > 1e-6
        assert finding.module != "" or operation != "MatMul"
        return
    pytest.fail("the fault was planted nowhere")


def test_a_whole_graph_has_no_fault(bundle: Bundle) -> None:
    assert bisect(bundle.path, bundle.manifest.graphs, bundle.path, inputs_of(bundle), tolerance=0.0) is None


def test_graphs_of_different_exports_are_not_compared(tmp_path: Path) -> None:
    first = cached_bundle(CARDS[0])
    broken = Path(shutil.copytree(first.path, tmp_path / "broken"))
    path = broken / first.manifest.graphs["backbone"].file
    model = onnx.load(path)
    inner = [output for node in model.graph.node[:-1] for output in node.output]
    renamed = {output: f"other_{i}" for i, output in enumerate(inner)}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    del model.graph.value_info[:]
    onnx.save(model, path)
    with pytest.raises(ExportError, match="not a graph of the same export"):
        bisect(broken, first.manifest.graphs, first.path, inputs_of(first))

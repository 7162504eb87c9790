from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from ditzoo.bundle import Bundle, Graph
from ditzoo.errors import ExportError, UsageError
from ditzoo.files import sha256
from ditzoo.progress import Display, Report, Silent, silent
from ditzoo.weights.load import load_network
from ditzoo.zoo import digits
from ditzoo_export import cached_bundle, export_onnx, network_graphs, onnx_bundle, onnx_files
from ditzoo_export.onnx_files import Inputs
from ditzoo_export.scopes import SCOPE
from tests.support.export_models import TINY_UVIT, random_model

CARDS = list(digits.CARDS)


@pytest.fixture(params=CARDS, ids=lambda card: card.name)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return cached_bundle(request.param)


def test_the_manifest_says_what_is_there_and_what_made_it(bundle: Bundle) -> None:
    manifest = bundle.manifest
    files = {path.name: sha256(path) for path in bundle.path.iterdir() if path.name != "manifest.json"}
    assert {name: record.sha256 for name, record in manifest.files.items()} == files
    for written in manifest.graphs.values():
        model = onnx.load(bundle.path / written.file)
        opsets = {opset.domain: opset.version for opset in model.opset_import}
        assert opsets.pop("") == written.opset
        assert opsets in ({}, {"com.microsoft": 1})
        assert [value.name for value in model.graph.input] == [spec.name for spec in written.inputs]
        assert [value.name for value in model.graph.output] == [spec.name for spec in written.outputs]
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert manifest.made_by["torch"] == version("torch")
    assert {"ditzoo", "python", "onnx", "onnxruntime", "onnxscript", "numpy"} < set(manifest.made_by)
    assert manifest.verified is not None
    assert 0 < manifest.verified.random <= manifest.verified.tolerance == 1e-5
    assert 0 < manifest.verified.trajectory <= 1e-5


def test_nodes_say_which_module_they_belong_to(bundle: Bundle) -> None:
    names = {name for name, _ in load_network(bundle.card).named_modules()}
    scopes = {
        entry.value
        for graph in bundle.manifest.graphs.values()
        for node in onnx.load(bundle.path / graph.file).graph.node
        for entry in node.metadata_props
        if entry.key == SCOPE
    }
    assert len(scopes) > 20
    assert scopes <= names


class Told(Silent):
    """A display that keeps the names of the stages, and the number of its blocks that were open together."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.open = self.most = 0

    @contextmanager
    def status(self, description: str) -> Iterator[None]:
        self.open += 1
        self.most = max(self.most, self.open)
        yield
        self.open -= 1

    @contextmanager
    def stage(self, description: str) -> Iterator[Report]:
        self.stages.append(description)
        with self.status(description):
            yield silent


def test_two_exports_are_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    told = Told()
    again = export_onnx(bundle.card, tmp_path / "again", display=told)
    graphs = [graph.file for graph in bundle.manifest.graphs.values()]
    assert [stage for stage in told.stages if "onnx" in stage] == [
        f"{work} {graph}" for graph in graphs for work in ("tracing", "optimizing", "writing")
    ]
    assert told.stages[0] == f"running {bundle.card.name} in torch, to verify the export"
    assert told.stages[-2:] == ["verifying the graphs", "computing checksums"]
    assert told.most == 1, "a block of a display is inside another one"
    for path in bundle.path.iterdir():
        assert path.read_bytes() == (again.path / path.name).read_bytes(), path.name


@pytest.fixture
def broken_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporter writes a graph with one weight scaled, as a wrong export would be: valid, and off."""

    def write_and_break(module: nn.Module, written: Graph, path: Path, example: Inputs, *, display: Display) -> None:
        onnx_files.write_onnx(module, written, path, example)
        model = onnx.load(path)
        largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        values = onnx.numpy_helper.to_array(largest) * 1.001
        largest.CopyFrom(onnx.numpy_helper.from_array(values.astype("float32"), largest.name))
        onnx.save(model, path)

    monkeypatch.setattr(network_graphs, "write_onnx", write_and_break)


@pytest.mark.usefixtures("broken_graph")
def test_a_graph_that_computes_something_else_is_not_kept(tmp_path: Path) -> None:
    card, net = random_model(TINY_UVIT)
    with pytest.raises(ExportError, match=r"prediction of random-uvit in fp32 is off by .* at time .*nothing was kept"):
        export_onnx(card, tmp_path / "bundle", net=net)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_of_another_opset_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above 25 torch silently writes 18."""
    monkeypatch.setattr(network_graphs, "OPSET", 26)
    card, net = random_model(TINY_UVIT)
    with pytest.raises(ExportError, match=re.escape("not 26")):
        export_onnx(card, tmp_path / "bundle", net=net)
    assert list(tmp_path.iterdir()) == []


def test_exporting_into_nowhere_fails_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_bundle, "fill_onnx", lambda *_, **__: pytest.fail("worked before checking"))
    with pytest.raises(UsageError, match="there is no folder"):
        export_onnx(CARDS[0], tmp_path / "missing" / "bundle")
    with pytest.raises(UsageError, match="cannot write to /proc"):
        export_onnx(CARDS[0], Path("/proc/bundle"))


def test_exporting_leaves_no_global_state(tmp_path: Path) -> None:
    card, net = random_model(TINY_UVIT)
    state = torch.random.get_rng_state()
    export_onnx(card, tmp_path / "bundle", net=net)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled()

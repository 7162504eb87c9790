"""Every fault that is planted must be named by its place, and what is whole must be called so."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import torch

from ditzoo.backends import open_backend
from ditzoo.backends.base import Backend
from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
from ditzoo.backends.openvino import OpenVinoBackend
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import MANIFEST, Bundle, open_bundle
from ditzoo.cli import run
from ditzoo.manifests import record_files
from ditzoo.measure.parity import TOLERANCES, SamplingTask, compared_rows, follow
from ditzoo.plan.make import make_plan
from ditzoo.records import to_json
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.noise import noise_of
from ditzoo.weights.load import load_network
from ditzoo.zoo import digits
from ditzoo.zoo.card import Card
from ditzoo.zoo.configs import BackboneConfig
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings
from ditzoo_export.bisection.changed_graphs import error
from ditzoo_export.bisection.module_outputs import GraphOutputReader, TorchOutputReader, Values, bundle_with_outputs, read_nodes
from ditzoo_export.bisection.search import bisect, build_engines, engine_settings, evaluations
from ditzoo_export.network_graphs import random_inputs
from ditzoo_export.scopes import SCOPE
from tests.support.export_models import TINY_DIT, TINY_UVIT, random_model

TYPED = ["--backends", "torch,onnxruntime", "--bisect", "--steps", "4", "--times", "3", "--classes", "3,5", "--threads", "1"]
CARDS = list(digits.CARDS)
DIT, UVIT = CARDS

Fault = Callable[[onnx.ModelProto], onnx.NodeProto]
"""Breaks a graph; returns the node that has to be named. Raises ValueError or IndexError where there is nothing to break."""


def module_of(node: onnx.NodeProto) -> str:
    """The path of the module that a node says it belongs to."""
    return next(entry.value for entry in node.metadata_props if entry.key == SCOPE)


def nodes(model: onnx.ModelProto, operation: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == operation]


def change(model: onnx.ModelProto, name: str, of: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    value = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(of(value).astype(value.dtype), name))


def scaled(model: onnx.ModelProto, factor: float) -> onnx.NodeProto:
    weights = {tensor.name for tensor in model.graph.initializer}
    products = [node for node in nodes(model, "MatMul") if node.input[1] in weights]
    node = products[len(products) // 2]
    change(model, node.input[1], lambda weight: factor * weight)
    return node


def scaled_weight(model: onnx.ModelProto) -> onnx.NodeProto:
    return scaled(model, 1.01)


def doubled_weight(model: onnx.ModelProto) -> onnx.NodeProto:
    return scaled(model, 2)


def doubled_norm(model: onnx.ModelProto) -> onnx.NodeProto:
    node = nodes(model, "LayerNormalization")[3]
    change(model, node.input[1], lambda weight: 2 * weight)
    return node


def other_epsilon(model: onnx.ModelProto) -> onnx.NodeProto:
    node = nodes(model, "LayerNormalization")[3]
    next(attribute for attribute in node.attribute if attribute.name == "epsilon").f = 1e-2
    return node


def other_gelu(model: onnx.ModelProto) -> onnx.NodeProto:
    node = nodes(model, "Gelu")[2]
    tanh = any(attribute.s == b"tanh" for attribute in node.attribute)
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("approximate", "none" if tanh else "tanh"))
    return node


def sinusoid_of_127(model: onnx.ModelProto) -> onnx.NodeProto:
    """The mistake of dividing by half the width less one."""
    (cosine,) = nodes(model, "Cos")
    node = next(node for node in model.graph.node if node.output[0] == cosine.input[0])
    frequencies = next(tensor for tensor in model.graph.initializer if tensor.name in node.input)
    half = frequencies.dims[-1]
    change(model, frequencies.name, lambda _: np.exp(-np.log(10_000) * np.arange(half) / (half - 1)).reshape(1, half))
    return node


FAULTS: list[Fault] = [scaled_weight, other_epsilon, other_gelu, sinusoid_of_127]


def break_graph(bundle: Bundle, fault: Fault, folder: Path) -> tuple[str, onnx.NodeProto]:
    """Writes a copy of a bundle with a fault into `folder`, its checksums as if it were right; returns the graph and node."""
    shutil.copytree(bundle.path, folder)
    (folder / MANIFEST).unlink()
    for name, graph in bundle.manifest.graphs.items():
        model = onnx.load(folder / graph.file)
        try:
            node = fault(model)
        except (ValueError, IndexError):
            continue  # the fault belongs to the other graph
        onnx.save(model, folder / graph.file)
        manifest = msgspec.structs.replace(bundle.manifest, files=record_files(folder))
        (folder / MANIFEST).write_bytes(to_json(manifest))
        return name, node
    pytest.fail("the fault was planted nowhere")


def block_of(module: str) -> str:
    """The block that a module is in; what U-ViT does before its blocks shows in the first of them."""
    found = re.match(r"(?:\w+_)?blocks\.\d+|\w+", module)
    return found.group() if found else "in_blocks.0"


def told(folder: Path, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[dict[str, Any], str]:
    """What --bisect says of a bundle: as JSON, and in the terminal."""
    capfd.readouterr()
    assert run(["parity", str(folder), *TYPED, *options, "--json"]) in (0, 1)
    (report,) = json.loads(capfd.readouterr().out)
    assert run(["parity", str(folder), *TYPED, *options]) in (0, 1)
    return report["bisect"], capfd.readouterr().out


def check_named(bundle: Bundle, fault: Fault, folder: Path, capfd: pytest.CaptureFixture[str], *options: str) -> None:
    """Plants a fault and checks that it is named at every time, but for time 0, where all sinusoids are alike."""
    graph, node = break_graph(bundle, fault, folder)
    found, text = told(folder, capfd, *options)
    named = [moment["fault"] for moment in found["moments"] if moment["time"] or moment["fault"]]
    assert len(named) >= 2
    for each in named:
        assert each["block"] == block_of(module_of(node))
        place = each["place"]
        assert (place["graph"], place["module"]) == (graph, module_of(node))
        assert (place["operation"], place["node"], place["changed"]) == (node.op_type, node.name, True)
        assert place["relative_l2"] > 1e-6
    rows = [line.split() for line in text.splitlines() if node.name in line and "parity" not in line]
    assert found["verdict"] in text
    assert f"{block_of(module_of(node))} is the first block beyond" in found["verdict"]
    assert f"{node.op_type} {node.name} in {module_of(node) or 'the code around the blocks'} is the first" in found["verdict"]
    assert rows[0][1:4] == [block_of(module_of(node)), node.op_type, node.name]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_named(card: Card, fault: Fault, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    check_named(cached_bundle(card), fault, tmp_path / "broken", capfd)


FORMS: list[tuple[Card, dict[str, Any]]] = [
    (DIT, {"split": False}),
    (DIT, {"precision": "fp16"}),
    (UVIT, {"precision": "int8"}),
]
forms = pytest.mark.parametrize(("card", "settings"), FORMS, ids=["dit-single", "dit-fp16", "uvit-int8"])


@forms
def test_a_fault_is_named_in_other_forms(
    card: Card, settings: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bundle = cached_bundle(card, settings=make_settings(card, **settings))
    precision = settings.get("precision", "fp32")
    fault = doubled_norm if precision == "int8" else doubled_weight
    check_named(bundle, fault, tmp_path / "broken", capfd, "--backends", f"torch,onnxruntime:{precision}")


@pytest.mark.parametrize(
    ("card", "settings"),
    [*FORMS, (DIT, {}), (UVIT, {}), (DIT, {"precision": "int8", "target": "tensorrt"})],
    ids=["dit-single", "dit-fp16", "uvit-int8", "dit", "uvit", "dit-int8-qdq"],
)
def test_in_a_whole_graph_no_block_is_beyond(card: Card, settings: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """At the first time only: at the last one, whose answer is the noise that is left, low precisions are (see the docs)."""
    bundle = cached_bundle(card, settings=make_settings(card, **settings))
    precision = settings.get("precision", "fp32")
    found, text = told(bundle.path, capfd, "--backends", f"torch,onnxruntime:{precision}", "--times", "1")
    (moment,) = found["moments"]
    assert moment["fault"] is None
    assert "no block is beyond" in found["verdict"]
    assert found["verdict"] in text
    blocks = (
        [f"blocks.{i}" for i in range(card.backbone.depth)] if card is DIT else ["in_blocks.0", "mid_block", "out_blocks.2"]
    )
    assert {*blocks, "prediction"} <= set(moment["blocks"])
    assert all(f"\n{block}\t" in text for block in moment["blocks"])
    assert 0 < moment["blocks"]["prediction"] <= found["tolerance"]
    assert any(error == pytest.approx(moment["blocks"]["prediction"]) for error in moment["blocks"].values())


def test_arithmetic_that_is_not_good_enough_is_named_too(capfd: pytest.CaptureFixture[str]) -> None:
    bundle = cached_bundle(UVIT, settings=make_settings(UVIT, precision="int8"))
    found, _ = told(bundle.path, capfd, "--backends", "torch,onnxruntime:int8", "--tolerance", "forward=0.008")
    for moment in found["moments"]:
        block, place = moment["fault"]["block"], moment["fault"]["place"]
        assert not place["changed"]
        assert place["module"].startswith(block)
        assert place["relative_l2"] > 0.008
        assert list(moment["blocks"]).index(block) == [error > 0.008 for error in moment["blocks"].values()].index(True)
    assert "and the first module in it beyond the tolerance ends with" in found["verdict"]


def sampled_inputs(reference: Backend, *, classes: list[int], times: int) -> list[Values]:
    """The inputs of evaluations at `times` of four steps on the reference."""
    card = reference.card
    plan, noise = make_plan(card, steps=4), noise_of(0, range(len(classes)), card.backbone.latent_shape)
    work = SamplingTask(plan=plan, condition=class_condition(card, classes), noise=noise)
    return evaluations(follow(reference, work), work, rows=compared_rows(plan, times))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_fault_in_torch_is_named(card: Card) -> None:
    net = load_network(card)
    path = "blocks.2.mlp.act" if card is DIT else "mid_block.mlp.act"
    net.get_submodule(path).approximate = "none" if card is DIT else "tanh"
    reference = TorchBackend(card)
    seen = sampled_inputs(reference, classes=[1, 2], times=2)
    found = bisect(reference, TorchBackend(card, net=net), seen, tolerance=1e-5)
    for moment in found.moments:
        assert moment.fault is not None
        assert moment.fault.block == block_of(path)
        assert (moment.fault.place.module, moment.fault.place.operation) == (path, "GELU")
    assert bisect(reference, TorchBackend(card), seen, tolerance=0.0).moments[0].fault is None


def test_a_nan_is_named_by_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    planted: list[onnx.NodeProto] = []

    def overflow(model: onnx.ModelProto) -> onnx.NodeProto:
        planted.append(scaled(model, np.inf))
        return planted[0]

    break_graph(cached_bundle(DIT), overflow, tmp_path / "broken")
    assert run(["parity", str(tmp_path / "broken"), *TYPED]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"NaN or infinity at time 999; 3 of 3", err)
    assert f"{planted[0].op_type} {planted[0].name} in {module_of(planted[0])} is the first" in err
    assert len(err.splitlines()) == 1


def test_what_overflows_in_a_whole_graph_is_no_change(tmp_path: Path) -> None:
    copy = open_bundle(Path(shutil.copytree(cached_bundle(DIT).path, tmp_path / "copy")))
    (seen,) = sampled_inputs(TorchBackend(DIT), classes=[1], times=1)
    with open_backend("onnxruntime", copy) as candidate:
        beyond = {**seen, "x": 3e38 * np.sign(seen["x"])}
        found = bisect(TorchBackend(DIT, precision="fp64"), candidate, [beyond], tolerance=1e-5)
    assert not found.finite
    (moment,) = found.moments
    assert moment.fault is not None
    assert moment.fault.block == "x_embedder"
    place = moment.fault.place
    assert (place.module, place.operation, place.changed) == ("x_embedder.proj", "Conv", False)


def test_the_report_shows_every_block(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    typed = ["--backends", "torch,torch:bf16", "--html", str(page)]
    assert run(["parity", "uvit-digits", *TYPED, *typed]) == 0
    text, (verdict,) = page.read_text(), [line for line in capfd.readouterr().out.splitlines() if "block is beyond" in line]
    assert "Block by block: torch bf16 cpu" in text
    assert verdict in text
    assert text.count("<svg") == 2 + 2 + 1  # of all candidates, of this one, of its blocks
    assert all(f">{block}</text>" in text for block in ("in_blocks.0", "mid_block", "prediction", "time 1000"))


def test_a_file_has_no_blocks(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "uvit-digits", "--against", "latents.npz", "--bisect"]) == 2
    assert "--bisect compares backends, not files; name a second backend" in capfd.readouterr().err


def test_a_reference_without_modules_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "uvit-digits", "--backends", "onnxruntime,torch", "--bisect"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "put torch first in --backends, not onnxruntime" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("candidate", ["diffusers", "torch:compile"])
def test_what_cannot_be_looked_into_is_refused(candidate: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "dit-digits", "--backends", f"torch,{candidate}", "--bisect", "--steps", "1", "--classes", "1"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert f"not into {candidate.partition(':')[0]} fp32 cpu" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_graph_of_another_export_is_searched_by_module(name: str, tmp_path: Path) -> None:
    """Where nothing in a fresh export has the same names, the modules still tell the place."""
    folder = tmp_path / "renamed"

    def renamed(model: onnx.ModelProto) -> onnx.NodeProto:
        node = other_gelu(model)
        inner = {name: f"other_{name}" for node in model.graph.node[:-1] for name in node.output}
        for each in model.graph.node:
            each.input[:] = [inner.get(name, name) for name in each.input]
            each.output[:] = [inner.get(name, name) for name in each.output]
        del model.graph.value_info[:]
        return node

    _, node = break_graph(cached_bundle(UVIT), renamed, folder)
    reference = TorchBackend(UVIT)
    seen = sampled_inputs(reference, classes=[1], times=1)
    with open_backend(name, open_bundle(folder)) as candidate:
        (moment,) = bisect(reference, candidate, seen, tolerance=1e-5).moments
    assert moment.fault is not None
    place = moment.fault.place
    assert (place.module, place.operation, place.changed) == (module_of(node), "Gelu", False)


NETWORKS: list[tuple[BackboneConfig, dict[str, Any]]] = [
    (msgspec.structs.replace(TINY_DIT, depth=2), {"resolution": "dynamic"}),
    (msgspec.structs.replace(TINY_UVIT, mlp_time_embed=True, qkv_bias=True, conv=False), {}),
]


@pytest.mark.parametrize(("config", "settings"), NETWORKS, ids=["dit-dynamic", "uvit-mlp-noconv"])
@pytest.mark.parametrize("kind", [OnnxRuntimeBackend, OpenVinoBackend], ids=["onnxruntime", "openvino"])
def test_any_network_can_be_looked_into(kind: type[GraphBackend], config: BackboneConfig, settings: dict[str, Any]) -> None:
    """Every module that computes something is there on both sides, in the same shape."""
    card, net = random_model(config)
    bundle = cached_bundle(card, settings=make_settings(card, **settings), net=net)
    inputs = random_inputs(net.inputs, card, np.random.default_rng(0), batch=3)
    truth = TorchOutputReader(TorchBackend(card, net=net))
    other = GraphOutputReader(bundle, lambda exposed: kind(exposed.path, exposed.manifest.graphs, card))
    calls = truth.calls(inputs)
    (expected,), (given,) = truth.look(calls, [inputs]), other.look(calls, [inputs])
    silent = {path for path, value in net.named_modules() if isinstance(value, torch.nn.Identity)}
    assert (
        silent <= set(expected) - set(given) <= silent | {f"{path}.adaLN_modulation.0" for path in ("blocks.1", "final_layer")}
    )
    assert all(error(value, expected[path]) <= TOLERANCES["fp32"].forward for path, value in given.items())


@pytest.mark.parametrize(("precision", "target"), [("bf16", "tensorrt"), ("int8", "onnxruntime"), ("int8", "tensorrt")])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_node_names_a_module_of_the_network(card: Card, precision: str, target: str) -> None:
    found = read_nodes(cached_bundle(card, settings=make_settings(card, precision=precision, target=target)))
    assert {node.module for node in found} <= {path for path, _ in load_network(card).named_modules()}
    assert all(node.module for node in found if node.operation in ("MatMul", "MatMulInteger", "QuantizeLinear", "Gemm"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_an_engine_has_the_blocks_as_outputs(card: Card, tmp_path: Path) -> None:
    """Built as it would be to be looked into on a GPU; to read the blocks is not run here."""
    asked = make_engine_settings(card, gpu="sm89,sm120", precision="bf16", batch="1,2-4")
    settings = engine_settings(cached_engines(card, settings=asked))
    assert settings == msgspec.structs.replace(asked, profiles=asked.profiles[:1])
    net = load_network(card)
    inputs = random_inputs(net.inputs, card, np.random.default_rng(0), batch=1)
    calls = [call for call in TorchOutputReader(TorchBackend(card, net=net)).calls(inputs) if len(call.within) == 1]
    exposed = bundle_with_outputs(cached_bundle(card, settings=settings.onnx), calls, tmp_path)
    engines = build_engines(exposed, settings)
    for engine in engines.manifest.engines.values():
        built = (engines.path / engine.file).read_bytes()
        tensors = {node.value for node in read_nodes(exposed) if node.graph == engine.graph}
        tensors |= {spec.name for spec in (*engine.inputs, *engine.outputs)}
        named = {name for name in tensors if struct.pack("<Q", len(name)) + name.encode() in built}
        assert named == {spec.name for spec in (*engine.inputs, *engine.outputs)}
    shown = {spec.name: spec.shape for engine in engines.manifest.engines.values() for spec in engine.outputs}
    first = "blocks.0" if card is DIT else "in_blocks.0"
    assert shown[f"exposed.{first}"] == ("batch", *next(call.shape for call in calls if call.path == first))
    assert len(shown) > 10

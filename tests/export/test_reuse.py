"""Bundles with reuse of the middle blocks, compared with torch."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import ditzoo
from ditzoo.backends.options import parse_spec
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import REUSE_GRAPH, Bundle
from ditzoo.errors import BackendError, BundleError, UsageError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.tuning import tune
from ditzoo.model.opening import open_model
from ditzoo.nets.network import Network
from ditzoo.sampling.condition import class_condition
from ditzoo.specs import PRECISION_TRAITS
from ditzoo.zoo.card import Card
from ditzoo_export import cached_bundle, make_settings
from ditzoo_export.triton import export_triton
from tests.support.export_models import TINY_DIT, TINY_UVIT, random_model

DEPTHS = {"dit": msgspec.structs.replace(TINY_DIT, depth=3), "uvit": msgspec.structs.replace(TINY_UVIT, depth=4)}
REUSE = "every=3,blocks=1"

EXPORTS = [("dit", "fp32", "onnxruntime"), ("uvit", "fp32", "onnxruntime"), ("dit", "int8", "tensorrt")]


def exported(config: str, precision: str = "fp32", target: str = "onnxruntime") -> tuple[Card, Network, Bundle]:
    card, net = random_model(DEPTHS[config])
    settings = make_settings(card, precision=precision, target=target, reuse="blocks=1")
    return card, net, cached_bundle(card, settings=settings, net=net)


@pytest.mark.parametrize(("config", "precision", "target"), EXPORTS)
def test_an_exported_network_reuses_what_torch_reuses(config: str, precision: str, target: str) -> None:
    card, net, bundle = exported(config, precision, target)
    plans = [ditzoo.make_plan(card, solver="dpmpp", steps=7, reuse=reuse) for reuse in (None, REUSE)]
    limit = PRECISION_TRAITS[precision].tolerance  # type: ignore[index]
    for name in ("onnxruntime", "openvino"):
        with TorchBackend(card, net=net) as torch, ditzoo.open_backend(name, bundle) as backend:
            without, expected = (ditzoo.sample(torch, plan, classes=[1, 2]) for plan in plans)
            assert relative_l2(ditzoo.sample(backend, plans[0], classes=[1, 2]), without) < limit.sample
            assert relative_l2(ditzoo.sample(backend, plans[1], classes=[1, 2]), expected) < limit.sample
            full = msgspec.structs.replace(plans[0], outer_blocks=1)
            drawn = [ditzoo.sample(backend, plan, classes=[1, 2]) for plan in (full, plans[0])]
            assert drawn[0].tobytes() == drawn[1].tobytes()
    if precision == "fp32":
        assert relative_l2(expected, without) > 3 * limit.sample  # the limit is below what reuse changes


def test_an_exported_network_is_tuned_as_torch_is() -> None:
    card, net, bundle = exported("uvit")
    plan = ditzoo.make_plan(card, solver="ddim", steps=6)
    work = {"outer": 1, "target": 1.2, "condition": class_condition(card, [1, 2]), "count": 2}
    with TorchBackend(card, net=net) as torch, ditzoo.open_backend("onnxruntime", bundle) as backend:
        expected, tuned = tune(torch, plan, **work), tune(backend, plan, **work)  # type: ignore[arg-type]
        drawn, without = (
            ditzoo.sample(backend, ditzoo.make_plan(card, solver="ddim", steps=6, reuse=reuse), classes=[1, 2])
            for reuse in (tuned.reuse, None)
        )
    assert tuned.best.full == expected.best.full
    assert tuned.best.error == pytest.approx(expected.best.error, rel=1e-2)
    assert tuned.best.error > 1e-4  # far above rounding
    assert relative_l2(drawn, without) == tuned.best.error


@pytest.mark.parametrize(("config", "precision", "target"), EXPORTS)
def test_both_graphs_share_one_file_of_weights(config: str, precision: str, target: str) -> None:
    _, _, bundle = exported(config, precision, target)
    files = set(bundle.manifest.files)
    assert f"{REUSE_GRAPH}.onnx" in files
    assert f"{REUSE_GRAPH}.onnx.data" not in files
    assert bundle.manifest.graphs[REUSE_GRAPH].outer_blocks == 1
    model = onnx.load(bundle.path / f"{REUSE_GRAPH}.onnx", load_external_data=False)
    places = [entry.value for weight in model.graph.initializer for entry in weight.external_data if entry.key == "location"]
    assert set(places) == {"backbone.onnx.data"}
    inside = [len(weight.raw_data) for weight in model.graph.initializer]
    assert max(inside) <= 1024  # the exporter leaves small tensors in the file of the graph


def test_a_bundle_for_other_blocks_or_without_reuse_names_the_export() -> None:
    card, _, bundle = exported("uvit")
    plan = ditzoo.make_plan(card, steps=3, reuse="every=2,blocks=2")
    with ditzoo.open_backend("onnxruntime", bundle) as backend:
        message = r"has graphs with reuse of blocks=1, and the plan needs blocks=2; `ditzoo export onnx \S+ --reuse blocks=2"
        with pytest.raises(BackendError, match=message):
            ditzoo.sample(backend, plan, classes=[1])
    plain = cached_bundle(ditzoo.card("uvit-digits"))
    assert all(
        "outer_blocks" not in graph for graph in json.loads((plain.path / "manifest.json").read_bytes())["graphs"].values()
    )
    with ditzoo.open_backend("onnxruntime", plain) as backend, pytest.raises(BackendError, match="has no graph with reuse"):
        ditzoo.sample(backend, ditzoo.make_plan("uvit-digits", steps=3, reuse=REUSE), classes=[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reuse": "blocks=3"}, "no middle blocks in dit-digits, which has 6 blocks; it takes blocks=1 to 2"),
        ({"reuse": "every=2,blocks=1"}, "takes blocks=K with K of 1 or more"),
        ({"reuse": "blocks=1", "resolution": "dynamic"}, "graphs with reuse take one resolution"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_settings(ditzoo.card("dit-digits"), **options)  # type: ignore[arg-type]


def test_a_backend_without_reuse_is_refused_before_it_is_loaded() -> None:
    plan = ditzoo.make_plan("dit-digits", steps=3, reuse=REUSE)
    with pytest.raises(BackendError, match="diffusers cannot reuse the middle blocks; use --backend torch or onnxruntime"):
        open_model("dit-digits", parse_spec("diffusers"), plan=plan)


def test_a_manifest_whose_graph_does_not_take_the_residual_is_refused(tmp_path: Path) -> None:
    _, _, bundle = exported("uvit")
    for file in bundle.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    manifest["graphs"]["backbone"]["outputs"].pop()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"does not take the inputs of backbone\.onnx and its residual"):
        ditzoo.open_bundle(tmp_path)
    del manifest["graphs"][REUSE_GRAPH]["outer_blocks"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="must have outer_blocks if and only if"):
        ditzoo.open_bundle(tmp_path)


def test_a_triton_repository_has_the_weights_beside_both_graphs(tmp_path: Path) -> None:
    card, _, bundle = exported("uvit")
    export_triton(bundle, tmp_path)
    for graph in ("backbone", REUSE_GRAPH):
        folder = tmp_path / f"{card.name}-{graph}" / "1"
        assert sorted(file.name for file in folder.iterdir()) == ["backbone.onnx.data", "model.onnx"]
    x = np.zeros((1, 4, 8, 8), np.float32)
    session = __import__("onnxruntime").InferenceSession(folder / "model.onnx")
    residual = np.zeros((1, 18, 32), np.float32)
    assert (
        session.run(None, {"x": x, "t": np.zeros(1, np.float32), "y": np.zeros(1, int), "residual": residual})[0].shape
        == x.shape
    )

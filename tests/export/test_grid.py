"""The whole grid: the embedded models, and networks of each family with random weights, as graphs and engines.

The networks with random weights have the width of the S models and fewer blocks. `python recipes/export_errors.py` exports them
with all their blocks.
"""

from __future__ import annotations

from functools import cache, partial

import onnx
import pytest
from export_errors import FORMS, MODELS, load
from onnx import TensorProto

from ditzoo.nets.network import Network
from ditzoo.zoo.card import Card
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings

LIMITS = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 1.5e-2, "int8": 3e-2, "fp8": 1e-1}
WEIGHTS = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int8": TensorProto.INT8,
    "fp8": TensorProto.FLOAT8E4M3FN,
}

DEPTH = 3
"""Blocks of the networks with random weights: for a U-ViT one on the way in, one in the middle and one on the way out."""

model = cache(partial(load, depth=DEPTH))


@pytest.mark.parametrize(("precision", "target"), FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_it_exports_verifies_and_builds(name: str, precision: str, target: str) -> None:
    card, net = model(name)
    bundle = cached_bundle(card, settings=make_settings(card, precision=precision, target=target), net=net)
    verified, backbone = bundle.manifest.verified, bundle.manifest.graphs["backbone"]
    assert 0 < min(verified.random, verified.trajectory) <= max(verified.random, verified.trajectory) <= LIMITS[precision]
    assert len(set(verified.times)) == 5
    assert len(set(verified.batches)) == 2
    assert verified.rounded == (precision in ("fp16", "bf16"))
    assert backbone.precision == precision
    weights = onnx.load(bundle.path / backbone.file, load_external_data=False).graph.initializer
    matrices = [tensor for tensor in weights if len(tensor.dims) == 2 and tensor.data_type == WEIGHTS[precision]]
    assert len(matrices) >= 2 * card.backbone.depth
    if target == "tensorrt":
        _check_engines(card, net, precision)


def _check_engines(card: Card, net: Network | None, precision: str) -> None:
    """Builds one engine for two profiles."""
    settings = make_engine_settings(card, gpu="sm89", precision=precision, batch="1,2-4", merged=True)
    manifest = cached_engines(card, settings=settings, net=net).manifest
    side = card.backbone.latent_shape[1]
    name = f"backbone-{side}x{side}-b1+{side}x{side}-b2-4"
    assert {engine for engine in manifest.engines if engine != "conditioning-b1-64"} == {name}
    assert len(manifest.engines[name].profiles) == 2
    for engine in manifest.engines.values():
        assert engine.gpus == ("sm89",)
        assert engine.precision in (precision, "fp32" if engine.graph == "conditioning" else precision)
        assert manifest.files[engine.file].size > 10_000

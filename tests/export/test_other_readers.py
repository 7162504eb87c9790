"""Graphs for TensorRT build in Polygraphy, and run in OpenVINO."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import openvino
import pytest

import ditzoo
from ditzoo.measure.metrics import relative_l2
from ditzoo.specs import PRECISION_TRAITS, Precision
from ditzoo_export import cached_bundle, make_settings

PRECISIONS: list[Precision] = ["fp32", "fp16", "bf16", "int8", "fp8"]
MODEL = ditzoo.card("uvit-digits")


@pytest.fixture
def polygraphy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Polygraphy's module for TensorRT, with TensorRT-RTX, which builds without a GPU."""
    monkeypatch.setenv("POLYGRAPHY_USE_TENSORRT_RTX", "1")
    return importlib.import_module("polygraphy.backend.trt")


def graph(precision: Precision) -> str:
    bundle = cached_bundle(MODEL, settings=make_settings(MODEL, precision=precision, target="tensorrt"))
    return str(bundle.path / bundle.manifest.graphs["backbone"].file)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TensorRT-RTX, which Polygraphy gives a timing cache
@pytest.mark.parametrize("precision", PRECISIONS)
def test_polygraphy_builds_what_its_command_builds(precision: Precision, polygraphy: Any) -> None:
    """It does what `polygraphy convert --convert-to trt --strongly-typed` does."""
    network = polygraphy.NetworkFromOnnxPath(graph(precision), strongly_typed=True)
    assert len(bytes(polygraphy.EngineBytesFromNetwork(network)())) > 10_000


@pytest.mark.parametrize("precision", PRECISIONS)
def test_openvino_computes_the_same(precision: Precision) -> None:
    rng = np.random.default_rng(0)
    inputs = {
        "x": rng.standard_normal((2, 1, 8, 8)).astype(np.float32),
        "t": np.float32([900, 990]),  # the scales of quantized graphs fit noise at late times only
        "y": np.array([1, 2]),
    }
    core, settings = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32"}
    (exact,), (given,) = (core.compile_model(graph(name), "CPU", settings)(inputs).values() for name in ("fp32", precision))
    assert relative_l2(given, exact) <= PRECISION_TRAITS[precision].tolerance.forward

"""Engines on a real GPU, with each flavour of TensorRT that is installed: parity, batches in turn, memory, refitting."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import ditzoo
from ditzoo.backends import cuda
from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError
from ditzoo.measure import gpu
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TOLERANCES
from ditzoo.model.exporting import refit_tensorrt
from ditzoo.sampling.memory import is_out_of_memory
from ditzoo.specs import FLAVOURS
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings
from ditzoo_export.refitting import fine_tune_of, graph_settings

pytestmark = pytest.mark.gpu

DIT = ditzoo.card("dit-digits")
OPTIONS = [(), ("stripped",), ("refittable",), ("refittable", "stripped"), ("tf32",), ("weight_streaming",)]
LIMITS = TOLERANCES["fp32"]


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """A flavour of TensorRT that is installed and builds for this GPU."""
    name: str = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    here = str(cuda.gpu())
    trt = import_module(name)
    if hasattr(trt, "ComputeCapability") and not hasattr(trt.ComputeCapability, here.upper()):
        pytest.skip(f"{name} does not build for {here}")
    return name


def engines(card: Card, flavour: str, *, batch: str = "2-20", merged: bool = False, options: tuple[str, ...] = ()) -> Bundle:
    settings = make_engine_settings(card, flavour=flavour, precision="fp32", batch=batch, merged=merged, options=options)
    return cached_engines(card, settings=settings)


def inputs(batch: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(batch).standard_normal((batch, *DIT.backbone.latent_shape), np.float32)
    return {"x": x, "t": np.linspace(0, 999, batch, dtype=np.float32), "y": np.arange(batch) % 10}


def evaluated(backend: Backend, batch: int) -> np.ndarray:
    """The network's output for `inputs(batch)`."""
    return backend.numpy(backend({name: backend.asarray(value) for name, value in inputs(batch).items()}))


def check_batches(bundle: Bundle, flavour: str, batches: list[int]) -> None:
    """Compares the engines with torch on the CPU at these batch sizes, one after the other."""
    with ditzoo.open_backend("torch", bundle.card) as reference, ditzoo.open_backend(flavour, bundle) as backend:
        for batch in batches:
            assert relative_l2(evaluated(backend, batch), evaluated(reference, batch)) <= LIMITS.forward, f"batch {batch}"


@pytest.fixture
def free() -> Iterator[int]:
    """The free memory of the GPU. After the test, all of it must be free again, but for what the driver keeps."""
    gpu.release_cached()
    before = gpu.free_memory()
    assert before is not None
    yield before
    gpu.release_cached()
    assert gpu.free_memory() >= before - 64 * 2**20  # type: ignore[operator]


def test_this_gpu_has_an_architecture_a_name_and_memory() -> None:
    assert str(cuda.gpu()).startswith("sm")
    assert "NVIDIA" in cuda.gpu_name()
    assert gpu.describe()["GPU"] == cuda.gpu_name()
    assert 2**30 < (gpu.free_memory() or 0) < 2**40


@pytest.mark.parametrize(
    "options", [(), ("stripped",), ("refittable",), ("refittable", "stripped"), ("tf32",), ("weight_streaming",)], ids=str
)
@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_engines_of_this_gpu_hold_the_limits(name: str, options: tuple[str, ...], flavour: str) -> None:
    """Opened twice, so that the second time kernels come from the cache."""
    card = ditzoo.card(name)
    bundle = engines(card, flavour, options=options)
    assert bundle.manifest.settings["built on"] == cuda.gpu_name()
    limits = TOLERANCES["tf32" if options == ("tf32",) else "fp32"]
    for _ in range(2):
        with ditzoo.open_backend("torch", card) as reference, ditzoo.open_backend(flavour, bundle) as candidate:
            report = ditzoo.compare(reference, candidate, ditzoo.make_plan(card), classes=range(10), tolerance=limits).report
        assert report.passed


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_engines_reuse_what_torch_reuses(name: str, flavour: str) -> None:
    card = ditzoo.card(name)
    plan = ditzoo.make_plan(card, solver="dpmpp", steps=10, reuse="every=2,blocks=1")
    settings = make_engine_settings(card, flavour=flavour, precision="fp32", batch="2-20", reuse="blocks=1")
    bundle = cached_engines(card, settings=settings)
    with ditzoo.open_backend("torch", card) as reference, ditzoo.open_backend(flavour, bundle) as candidate:
        drawn, expected = (ditzoo.sample(backend, plan, classes=range(10)) for backend in (candidate, reference))
    assert relative_l2(drawn, expected) <= LIMITS.sample


@pytest.mark.parametrize("option", ["version_compatible", "hardware_compatible"])
def test_compatible_engines_run(option: str, flavour: str) -> None:
    if flavour != "tensorrt":
        pytest.skip(f"{flavour} has no {option} engines")
    check_batches(engines(DIT, flavour, options=(option,)), flavour, [2, 20])


@pytest.mark.parametrize("merged", [False, True], ids=["separate", "merged"])
def test_batches_in_turn_padded_and_split(merged: bool, flavour: str) -> None:
    bundle = engines(DIT, flavour, batch="2,4-8", merged=merged)
    check_batches(bundle, flavour, [2, 8, 2, 5, 8, 1, 3, 21, 2])


def test_more_shapes_than_graphs_are_kept(flavour: str) -> None:
    check_batches(engines(DIT, flavour), flavour, [*range(2, 21), 2, 3])


def test_opening_and_closing_gives_the_memory_back(flavour: str, free: int) -> None:
    bundle = engines(DIT, flavour)
    for _ in range(10):
        with ditzoo.open_backend(flavour, bundle) as backend:
            evaluated(backend, 4)


def test_too_little_memory_is_recognised_and_nothing_is_left(flavour: str) -> None:
    bundle = engines(DIT, flavour)
    gpu.release_cached()
    hoard = cuda.Buffer((gpu.free_memory() or 0) - 2 * 2**20)
    try:
        with pytest.raises(BackendError) as caught, ditzoo.open_backend(flavour, bundle) as backend:
            evaluated(backend, 20)
        assert is_out_of_memory(caught.value)
    finally:
        hoard.free()
    check_batches(bundle, flavour, [2])


def test_refitted_engines_hold_the_limits(flavour: str, tmp_path: Path) -> None:
    """The matrices of the fine-tune are five per cent larger than those of the model; the old engines are far from it."""
    tuned, bundle = tmp_path / "tuned.safetensors", engines(DIT, flavour, options=("refittable",))
    weights = load_file(weights_file(DIT))
    save_file({name: 1.05 * value if value.ndim == 2 else value for name, value in weights.items()}, tuned)
    after = refit_tensorrt(bundle.path, tuned, tmp_path / "after")
    graphs = cached_bundle(after.card, settings=graph_settings(bundle), net=fine_tune_of(tuned, bundle).net)
    with ditzoo.open_backend("onnxruntime", graphs) as reference:
        expected = evaluated(reference, 4)
    with ditzoo.open_backend(flavour, after) as new, ditzoo.open_backend(flavour, bundle) as old:
        assert relative_l2(evaluated(new, 4), expected) <= LIMITS.forward
        assert relative_l2(evaluated(old, 4), expected) > 100 * LIMITS.forward

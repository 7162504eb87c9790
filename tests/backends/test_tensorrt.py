"""The TensorRT backend: what of it is logic is tested here, and what it calls is held against the API of each flavour."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ditzoo
from ditzoo.backends import cuda
from ditzoo.backends.batching import chunks
from ditzoo.backends.conditioning import ModulationCache
from ditzoo.backends.tensorrt import TensorRTBackend, accept, check_engines, present
from ditzoo.bundle import Bundle, Engine
from ditzoo.errors import BackendError
from ditzoo.specs import Profile, Range
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings
from tests.support.tensorrt_stand_in import Cuda, Library, write_engines
from tests.support.tensorrt_stand_in import tensorrt as stand_in

ROOT = Path(__file__).parents[2]
API = json.loads((ROOT / "tests/data/tensorrt-api.json").read_text())
CLASSES = {
    "ditzoo/backends/tensorrt.py": {
        "loaded": "ICudaEngine",
        "_runtime": "Runtime",
        "_context": "IExecutionContext",
        "refitter": "OnnxParserRefitter",
        "config": "IRuntimeConfig",
        "cache": "IRuntimeCache",
    },
    "export/ditzoo_export/engines.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "optimization": "IOptimizationProfile",
        "layer": "ILayer",
        "attention": "IAttention",
    },
}
"""The sources, the names that they give to TensorRT's objects, and the classes of these."""

ONLY_RTX = {
    "ComputeCapability",
    "CudaGraphStrategy",
    "IRuntimeCache",
    "num_compute_capabilities",
    "set_compute_capability",
    "cuda_graph_strategy",
    "create_runtime_cache",
    "set_runtime_cache",
}
"""What the sources use only after they have seen that the module has it."""

ROWS_1_4_8 = [Profile(axes={"batch": Range(min=low, opt=high, max=high)}) for low, high in ((1, 1), (4, 4), (8, 16))]


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _members(source: str) -> set[tuple[str, str]]:
    """What a source uses of TensorRT: (class, member), the class "" for the module itself."""
    used: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
            continue
        owner = _name(node.value)
        if owner in ("trt", "_trt"):
            used.add(("", node.attr))
        elif isinstance(node.value, ast.Attribute) and _name(node.value.value) in ("trt", "_trt"):
            used.add((owner, node.attr))
        elif owner in CLASSES[source]:
            used.add((CLASSES[source][owner], node.attr))
    return used


def test_the_sources_use_tensorrt_at_all() -> None:
    used = set().union(*map(_members, CLASSES))
    assert {("Builder", "build_serialized_network"), ("IExecutionContext", "execute_async_v3"), ("", "OnnxParser")} <= used
    assert len(used) > 40


@pytest.mark.parametrize("flavour", sorted(API))
@pytest.mark.parametrize("source", CLASSES)
def test_every_member_that_is_used_is_there(source: str, flavour: str) -> None:
    api = API[flavour]
    for owner, member in sorted(_members(source)):
        if "rtx" in flavour or not {owner, member} & ONLY_RTX:
            known = api[owner] if owner else api
            known = [*known, *api["IAttentionInputLayer"]] if owner == "ILayer" else known
            assert member in known, f"{flavour} has no {owner or 'module'}.{member}, which {source} uses"


@given(batch=st.integers(1, 100))
def test_chunks_cover_a_batch_once_and_fit_their_profiles(batch: int) -> None:
    parts = chunks(ROWS_1_4_8, {"batch": batch})
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(batch))
    for part in parts:
        rows = ROWS_1_4_8[part.profile].axes["batch"]
        assert rows.min <= part.rows <= rows.max
        assert part.rows >= part.stop - part.start


def test_chunks_take_the_profile_that_wastes_least() -> None:
    assert [(part.profile, part.rows) for part in chunks(ROWS_1_4_8, {"batch": 1})] == [(0, 1)]
    assert [(part.profile, part.rows) for part in chunks(ROWS_1_4_8, {"batch": 3})] == [(1, 4)]
    assert [(part.profile, part.rows) for part in chunks(ROWS_1_4_8, {"batch": 5})] == [(2, 8)]
    assert [(part.profile, part.rows) for part in chunks(ROWS_1_4_8, {"batch": 17})] == [(2, 16), (0, 1)]


def test_no_engine_for_such_latents() -> None:
    size = Range(min=32, opt=32, max=32)
    profile = Profile(axes={"batch": size, "height": size, "width": size})
    with pytest.raises(BackendError, match="no engine was built for height=64 width=32"):
        chunks([profile], {"batch": 1, "height": 64, "width": 32})


def test_statuses_and_none_are_errors() -> None:
    with pytest.raises(BackendError, match="TensorRT refused the shape"):
        accept(False, "the shape")
    accept(None, "what says nothing")
    with pytest.raises(BackendError, match="did not give a runtime"):
        present(None, "a runtime")
    with pytest.raises(BackendError, match="CUDA failed"):
        cuda.call(cuda.runtime().cudaMalloc, 1 << 62)


@pytest.fixture(scope="module")
def engines() -> Bundle:
    card = ditzoo.card("uvit-digits")
    return cached_engines(card, settings=make_engine_settings(card, gpu="sm89", precision="fp16", batch="2"))


@pytest.mark.skipif(cuda.gpu() is not None, reason="there is a GPU")
def test_without_a_gpu_an_error_says_so(engines: Bundle) -> None:
    with pytest.raises(BackendError, match="needs an NVIDIA GPU"):
        ditzoo.open_backend("tensorrt_rtx", engines, precision="fp16")


def test_engines_of_another_flavour_are_refused_whether_it_is_installed_or_not(engines: Bundle) -> None:
    with pytest.raises(BackendError, match="are of tensorrt_rtx; use --backend tensorrt_rtx"):
        ditzoo.open_backend("tensorrt", engines)


def test_engines_for_something_else_say_how_to_rebuild_them(engines: Bundle) -> None:
    version = next(iter(engines.manifest.engines.values())).version
    fitting = {"flavour": "tensorrt_rtx", "version": version, "precision": "fp16", "gpu": "sm89"}
    assert check_engines(engines, **fitting)  # type: ignore[arg-type]
    for change, message in (
        (
            {"gpu": "sm120"},
            "are for sm89, this GPU is sm120; `ditzoo export tensorrt uvit-digits .*--overwrite` builds them again",
        ),
        ({"version": "1.8"}, "were built with tensorrt_rtx .*, this is 1.8; `ditzoo export"),
        ({"precision": "fp32"}, "are fp16, not fp32; leave that out"),
    ):
        with pytest.raises(BackendError, match=message):
            check_engines(engines, **{**fitting, **change})  # type: ignore[arg-type]
    empty = msgspec.structs.replace(engines, manifest=msgspec.structs.replace(engines.manifest, engines={}))
    with pytest.raises(BackendError, match="has no engines"):
        check_engines(empty, **fitting)  # type: ignore[arg-type]


@given(
    times=st.lists(st.integers(0, 1000), min_size=1, max_size=12),
    labels=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    window=st.integers(1, 40),
    prepared=st.booleans(),
)
def test_hoisted_rows_are_the_right_ones(times: list[int], labels: list[int], window: int, prepared: bool) -> None:
    ran: list[int] = []

    def run(t: np.ndarray, y: np.ndarray) -> np.ndarray:
        ran.append(len(t))
        return np.stack([t, y], axis=1)

    hoisted = ModulationCache(run, window=window)
    if prepared:
        hoisted.prepare(times, labels)
    for time in times:
        t, y = np.full(len(labels), time, np.float32), np.array(labels)
        rows, places = hoisted(t, y)
        np.testing.assert_array_equal(rows[places], np.stack([t, y], axis=1))
    distinct = len(set(labels)) * len(set(times))
    assert max(ran) <= max(window, len(set(labels)))
    if prepared and window >= distinct:
        assert ran == [distinct]


@pytest.mark.parametrize("library", [np, Library], ids=["numpy", "cupy"])
@pytest.mark.parametrize("rtx", [True, False], ids=["tensorrt_rtx", "tensorrt"])
@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_sampling_moves_the_right_rows_to_and_from_the_device(
    name: str, rtx: bool, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stand-ins for CUDA, TensorRT and CuPy: batches split and padded, modulations in windows, CUDA graphs, nothing leaked,
    and with CuPy no latents on the host between the first noise and the image."""
    card, device = ditzoo.card(name), Cuda()
    graphs = cached_bundle(card)
    sizes = {"backbone": [(2, 2), (4, 5)], "conditioning": [(1, 7)]}
    specs = {
        f"{graph}-{low}": stand_in_engine(graphs, graph, [(low, high)])
        for graph in sizes
        if graph in graphs.manifest.graphs
        for low, high in sizes[graph]
    }
    monkeypatch.setattr(cuda, "runtime", lambda: device)
    monkeypatch.setattr(cuda, "gpu", lambda: "sm89")
    monkeypatch.setattr(cuda, "arrays", lambda: library)
    module = stand_in(device, specs, graphs.path, rtx=rtx)
    plan = ditzoo.make_plan(card, steps=4)
    Library.moved.clear()
    with TensorRTBackend(tmp_path, write_engines(tmp_path, specs), card, trt=module) as backend:
        drawn = ditzoo.sample(backend, plan, classes=[3, 1, 4], seed=2)  # six rows, guided: five, and one padded to two
    with ditzoo.open_backend("onnxruntime", graphs) as reference:
        np.testing.assert_allclose(drawn, ditzoo.sample(reference, plan, classes=[3, 1, 4], seed=2), atol=1e-5)
    assert device.memory == {}
    draws = 1 + sum(row.draws for row in plan.rows)
    assert Library.moved == (["to the device"] * draws + ["to the host"] if library is Library else [])
    assert (device.launches == 0) == rtx


def stand_in_engine(bundle: Bundle, graph: str, batches: list[tuple[int, int]]) -> Engine:
    source = bundle.manifest.graphs[graph]
    profiles = tuple(Profile(axes={"batch": Range(min=low, opt=high, max=high)}) for low, high in batches)
    return Engine(
        file="",
        graph=graph,
        flavour="tensorrt_rtx",
        version="1.7",
        gpus=("sm89",),
        precision="fp32",
        profiles=profiles,
        options=(),
        inputs=source.inputs,
        outputs=source.outputs,
        seconds=0,
    )

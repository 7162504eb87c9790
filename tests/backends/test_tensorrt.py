"""The TensorRT backend: what of it is logic is tested here, and what it calls is held against the API of each flavour."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from cuda.bindings.runtime import cudaError_t
from hypothesis import given
from hypothesis import strategies as st

import ditzoo
from ditzoo.backends import cuda, loading_engines
from ditzoo.backends.batching import chunks
from ditzoo.backends.conditioning import ModulationCache
from ditzoo.backends.engine_slots import CAPTURED_SHAPES, accept, present
from ditzoo.backends.tensorrt import TensorRTBackend, check_engines
from ditzoo.bundle import REUSE_GRAPH, Bundle, Engine
from ditzoo.errors import BackendError
from ditzoo.sampling.memory import is_out_of_memory
from ditzoo.specs import Profile, Range
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings
from tests.support.cuda_stand_in import Cuda
from tests.support.cupy_stand_in import Library
from tests.support.tensorrt_stand_in import tensorrt as stand_in
from tests.support.tensorrt_stand_in import write_engines

ROOT = Path(__file__).parents[2]
API = json.loads((ROOT / "tests/data/tensorrt-api.json").read_text())
CLASSES = {
    "ditzoo/backends/engine_slots.py": {"_loaded": "ICudaEngine", "context": "IExecutionContext"},
    "ditzoo/backends/refitting.py": {"refitter": "Refitter", "parser_refitter": "OnnxParserRefitter"},
    "ditzoo/backends/loading_engines.py": {
        "loaded": "ICudaEngine",
        "_runtime": "Runtime",
        "config": "IRuntimeConfig",
        "cache": "IRuntimeCache",
    },
    "export/ditzoo_export/refitting.py": {
        "loaded": "ICudaEngine",
        "runtime": "Runtime",
        "serialization": "ISerializationConfig",
    },
    "export/ditzoo_export/engines.py": {
        "builder": "Builder",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "optimization": "IOptimizationProfile",
    },
}
"""The sources, the names that they give to TensorRT's objects, and the classes of these."""

ONLY_RTX = {
    "ComputeCapability",
    "CudaGraphStrategy",
    "DynamicShapesKernelSpecializationStrategy",
    "IRuntimeCache",
    "num_compute_capabilities",
    "set_compute_capability",
    "cuda_graph_strategy",
    "dynamic_shapes_kernel_specialization_strategy",
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
    with pytest.raises(BackendError, match=r"needs an NVIDIA GPU, and no driver shows one here; use --backend torch$"):
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
    graphs = cached_bundle(ditzoo.card("uvit-digits"))
    with pytest.raises(BackendError, match="has no engines"):
        check_engines(graphs, **fitting)  # type: ignore[arg-type]


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


@pytest.mark.parametrize("cupy", [False, True], ids=["numpy", "cupy"])
@pytest.mark.parametrize("rtx", [True, False], ids=["tensorrt_rtx", "tensorrt"])
@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_sampling_moves_the_right_rows_to_and_from_the_device(
    name: str, rtx: bool, cupy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On stand-ins for CUDA, TensorRT and CuPy: batches split and padded, modulations in windows, CUDA graphs, nothing leaked,
    and with CuPy no latents on the host between the first noise and the image."""
    card, device = ditzoo.card(name), Cuda()
    library = Library(device) if cupy else None
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
    monkeypatch.setattr(cuda, "arrays", lambda: library or np)
    module = stand_in(device, specs, graphs.path, rtx=rtx)
    plan = ditzoo.make_plan(card, steps=4)
    with TensorRTBackend(tmp_path, write_engines(tmp_path, specs), card, trt=module) as backend:
        drawn = ditzoo.sample(backend, plan, classes=[3, 1, 4], seed=2)  # six rows, guided: five, and one padded to two
    with ditzoo.open_backend("onnxruntime", graphs) as reference:
        np.testing.assert_allclose(drawn, ditzoo.sample(reference, plan, classes=[3, 1, 4], seed=2), atol=1e-5)
    assert (device.memory, device.streams, device.graphs) == ({}, {}, {})
    draws = 1 + sum(row.draws for row in plan.rows)
    assert library is None or library.moved == ["to the device"] * draws + ["to the host"]
    assert (device.launches == 0) == rtx


@pytest.mark.parametrize("cupy", [False, True], ids=["numpy", "cupy"])
@pytest.mark.parametrize("rtx", [True, False], ids=["tensorrt_rtx", "tensorrt"])
@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_engines_reuse_what_the_graphs_reuse(
    name: str, rtx: bool, cupy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the stand-ins: the residual stays on the device, and batches are split and padded in both kinds of rows."""
    card, device = ditzoo.card(name), Cuda()
    library = Library(device) if cupy else None
    graphs = cached_bundle(card, settings=make_settings(card, reuse="blocks=1"))
    specs = {graph: stand_in_engine(graphs, graph, [(2, 2), (4, 5)]) for graph in ("backbone", REUSE_GRAPH)}
    if "conditioning" in graphs.manifest.graphs:
        specs["conditioning"] = stand_in_engine(graphs, "conditioning", [(1, 7)])
    monkeypatch.setattr(cuda, "runtime", lambda: device)
    monkeypatch.setattr(cuda, "gpu", lambda: "sm89")
    monkeypatch.setattr(cuda, "arrays", lambda: library or np)
    plans = [
        ditzoo.make_plan(card, solver="ddim", steps=5, **options)  # type: ignore[arg-type]
        for options in ({}, {"reuse": "every=2,blocks=1"}, {"reuse": "every=3,blocks=1", "guidance_every": 2})
    ]
    with ditzoo.open_backend("onnxruntime", graphs) as reference:
        expected = [ditzoo.sample(reference, plan, classes=[3, 1, 4], seed=2) for plan in plans]
    module = stand_in(device, specs, graphs.path, rtx=rtx)
    with TensorRTBackend(tmp_path, write_engines(tmp_path, specs), card, trt=module) as backend:
        for plan, wanted in zip(plans, expected, strict=True):
            np.testing.assert_allclose(ditzoo.sample(backend, plan, classes=[3, 1, 4], seed=2), wanted, atol=1e-5)
        full = msgspec.structs.replace(plans[0], outer_blocks=1)
        drawn = [ditzoo.sample(backend, plan, classes=[3, 1, 4], seed=2) for plan in (full, plans[0])]
        assert drawn[0].tobytes() == drawn[1].tobytes()
        with pytest.raises(
            BackendError, match=r"graphs with reuse of blocks=1, and the plan needs blocks=2; `ditzoo export tens"
        ):
            ditzoo.sample(backend, ditzoo.make_plan(card, steps=3, reuse="every=2,blocks=2"), classes=[3])
    with pytest.raises(BackendError, match="is closed; open the backend again"):
        ditzoo.sample(backend, plans[1], classes=[3])
    assert float(np.abs(expected[1] - expected[0]).max()) > 1e-3  # far above the limit
    assert (device.memory, device.streams, device.graphs) == ({}, {}, {})
    assert library is None or library.moved.count("to the host") == len(plans) + 2


class Machine:
    """A backend of dit-digits on the stand-ins, with engines of these `options`, in a folder beside their graphs."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        *,
        options: tuple[str, ...] = (),
        rtx: bool = True,
        batches: Sequence[tuple[int, int]] = ((1, 8),),
    ) -> None:
        self.card, self.cuda, self.folder = ditzoo.card("dit-digits"), Cuda(), folder
        self.graphs = cached_bundle(self.card)
        self.specs = {
            graph: msgspec.structs.replace(stand_in_engine(self.graphs, graph, batches), options=options)
            for graph in ("backbone", "conditioning")
        }
        monkeypatch.setattr(cuda, "runtime", lambda: self.cuda)
        monkeypatch.setattr(cuda, "arrays", lambda: np)
        monkeypatch.setattr(loading_engines, "cache_dir", lambda: folder / "cache")
        self.module = stand_in(self.cuda, self.specs, self.graphs.path, rtx=rtx)

    def open(self) -> TensorRTBackend:
        return TensorRTBackend(self.folder, write_engines(self.folder, self.specs), self.card, trt=self.module)

    def error(self, backend: TensorRTBackend) -> float:
        """How far a sampling run on it is from ONNX Runtime."""
        plan = ditzoo.make_plan(self.card, steps=2)
        with ditzoo.open_backend("onnxruntime", self.graphs) as reference:
            expected, drawn = (ditzoo.sample(opened, plan, classes=[3], seed=2) for opened in (reference, backend))
        return float(np.abs(expected - drawn).max())


def test_engines_run_on_the_gpu_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call makes it current, and puts back the GPU that was. CuPy is for the first GPU alone."""
    machine = Machine(tmp_path, monkeypatch)
    monkeypatch.setattr(cuda, "arrays", lambda: Library)
    with cuda.on_gpu(1):
        backend = TensorRTBackend(tmp_path, write_engines(tmp_path, machine.specs), machine.card, trt=machine.module, index=1)
    machine.cuda.chosen.clear()
    with backend:
        assert backend.name == "tensorrt_rtx fp32 cuda:1"
        assert machine.error(backend) <= 1e-5
    assert machine.cuda.chosen
    assert machine.cuda.chosen == [1, 0] * (len(machine.cuda.chosen) // 2)
    assert (machine.cuda.memory, machine.cuda.streams) == ({}, {})


def test_every_captured_shape_has_a_context_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, rtx=False, batches=[(1, CAPTURED_SHAPES + 2)])
    batches = [1, 2, 1, 2, *range(1, CAPTURED_SHAPES + 2), 2, 1]
    with machine.open() as backend, ditzoo.open_backend("onnxruntime", machine.graphs) as reference:
        for batch in batches:
            x = np.random.default_rng(batch).standard_normal((batch, 1, 8, 8), np.float32)
            inputs = {"x": x, "t": np.full(batch, 500, np.float32), "y": np.arange(batch)}
            np.testing.assert_allclose(backend(inputs), reference(inputs), atol=1e-5)
        assert len(machine.module.loaded["backbone"].configs) == CAPTURED_SHAPES + 2  # all shapes once, and 1 again
        graphs = [slot for slots in backend._slots.values() for slot in slots]
        assert len(machine.cuda.graphs) <= CAPTURED_SHAPES * len(graphs)
    assert (machine.cuda.memory, machine.cuda.streams, machine.cuda.graphs) == ({}, {}, {})


@pytest.mark.parametrize("rtx", [True, False], ids=["tensorrt_rtx", "tensorrt"])
def test_profiles_share_their_memory(rtx: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = []
    for batches in ([(1, 8)], [(1, 1), (2, 2), (4, 4), (1, 8)]):
        machine = Machine(tmp_path, monkeypatch, rtx=rtx, batches=batches)
        with machine.open() as backend:
            assert machine.error(backend) <= 1e-5
        peaks.append(machine.cuda.peak)
    assert peaks[0] == peaks[1]


def test_tensorrt_rtx_compiles_the_kernels_of_a_shape_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    with machine.open():
        (config,) = machine.module.loaded["backbone"].configs
    strategies = config.dynamic_shapes_kernel_specialization_strategy, config.cuda_graph_strategy
    assert [strategy.name for strategy in strategies] == ["EAGER", "WHOLE_GRAPH_CAPTURE"]


@pytest.mark.parametrize("option", ["stripped", "version_compatible", "tf32", "weight_streaming"])
def test_engines_with_options_run(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, options=(option,))
    for path in machine.graphs.path.glob("*.onnx*"):
        shutil.copy(path, tmp_path)
    with machine.open() as backend:
        assert machine.error(backend) <= 1e-5
        assert machine.module.loaded["backbone"].weight_streaming_budget_v2 == 500 * (option == "weight_streaming")
        assert backend.tf32 == (option == "tf32")
        assert backend.name == f"tensorrt_rtx fp32 cuda{' tf32' if backend.tf32 else ''}"


def test_weights_that_cannot_be_read_are_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, options=("stripped",))
    with pytest.raises(BackendError, match=r"refused the weights of backbone.engine: cannot open the model"):
        machine.open()
    assert (machine.cuda.memory, machine.cuda.streams) == ({}, {})


def test_all_engines_share_one_cache_of_kernels_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    for _ in range(2):
        with machine.open() as backend:
            machine.error(backend)
        (kept,) = (tmp_path / "cache" / "runtime").iterdir()
        assert kept.read_text() == "backbone conditioning"
        assert kept.name == "tensorrt_rtx-1.7-NVIDIA-L4-24"  # for this model of GPU: others of its architecture differ
    kept.write_text("earlier")
    machine.open().close()
    assert kept.read_text() == "earlier"  # what was kept is loaded, and none ran that could be added


@pytest.mark.parametrize("largest", [0, 100])
def test_running_out_of_memory_is_recognised_and_leaves_nothing(
    largest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.cuda.largest = largest
    with pytest.raises(BackendError) as caught:
        machine.open()
    assert is_out_of_memory(caught.value)
    assert (machine.cuda.memory, machine.cuda.streams) == ({}, {})


def test_after_a_conditioning_that_failed_it_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, monkeypatch, rtx=False)
    x, y = np.ones((1, 1, 8, 8), np.float32), np.array([3])
    earlier, other = ({"x": x, "t": np.full(1, time, np.float32), "y": y} for time in (500, 20))
    with machine.open() as backend:
        expected = backend(earlier)
        machine.cuda.largest = 10
        with pytest.raises(BackendError, match="cudaErrorMemoryAllocation"):
            backend(other)
        machine.cuda.largest = None
        np.testing.assert_array_equal(backend(earlier), expected)
    assert (machine.cuda.memory, machine.cuda.streams, machine.cuda.graphs) == ({}, {}, {})


def test_an_old_driver_is_not_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    status = cudaError_t.cudaErrorInsufficientDriver
    numbers = {"cudaRuntimeGetVersion": lambda: (0, 13040), "cudaGetDeviceCount": lambda: (status, None)}
    for driver in (0, 12080):
        library = SimpleNamespace(**numbers, cudaDriverGetVersion=lambda driver=driver: (0, driver))
        monkeypatch.setattr(cuda, "runtime", lambda library=library: library)
        if driver:
            with pytest.raises(BackendError, match=r"is for CUDA 12.8, and cuda-python for 13.4"):
                cuda.gpu()
        else:
            assert cuda.gpu() is None
    status = cudaError_t.cudaErrorSystemDriverMismatch
    with pytest.raises(BackendError, match="CUDA failed in cudaGetDeviceCount: cudaErrorSystemDriverMismatch"):
        cuda.gpu()


def stand_in_engine(bundle: Bundle, graph: str, batches: Sequence[tuple[int, int]]) -> Engine:
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
        outer_blocks=source.outer_blocks,
        seconds=0,
    )

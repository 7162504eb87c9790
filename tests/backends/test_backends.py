from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import ditzoo
from ditzoo.backends import cuda, load_module, open_backend
from ditzoo.backends.base import Backend
from ditzoo.backends.graph_backend import GraphBackend
from ditzoo.backends.options import parse_spec
from ditzoo.backends.sessions import open_session
from ditzoo.backends.table import ROWS, BackendRow, row_of
from ditzoo.errors import BackendError, DitzooError, InputError, MissingPackageError, UsageError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TOLERANCES
from ditzoo.model.opening import open_model
from ditzoo.specs import Form, Precision, Profile, Range
from ditzoo.zoo import digits
from ditzoo_export import cached_bundle, make_settings
from tests.support import backends_memory

CARDS = list(digits.CARDS)

ROOT = Path(__file__).parents[2]

RUN_HERE = ("torch", "onnxruntime", "openvino")
"""The backends that need no GPU."""


@pytest.fixture(params=[(name, card) for name in RUN_HERE for card in CARDS], ids=lambda param: f"{param[0]}-{param[1].name}")
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name, card = request.param
    with open_backend(name, cached_bundle(card)) as opened:
        yield opened


def inputs_of(backend: Backend, batch: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((batch, 1, 8, 8)).astype(np.float32),
        "t": rng.uniform(0, 999, batch).astype(np.float32),
        "y": rng.integers(0, 11, batch),
    }


def forward_error(reference: Backend, candidate: Backend, inputs: dict[str, np.ndarray]) -> float:
    return relative_l2(call(candidate, inputs), call(reference, inputs))


def call(backend: Backend, inputs: dict[str, np.ndarray]) -> np.ndarray:
    return backend.numpy(backend({name: backend.asarray(value) for name, value in inputs.items()}))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_every_backend_computes_the_network(backend: Backend, batch: int) -> None:
    with open_backend("torch", backend.card) as reference:
        assert forward_error(reference, backend, inputs_of(backend, batch)) <= 1e-5


def test_every_backend_gives_what_its_specs_say(backend: Backend) -> None:
    out = call(backend, inputs_of(backend, 3))
    assert out.shape == backend.outputs[0].concrete(batch=3, height=8, width=8)
    assert out.dtype == np.float32
    assert [spec.name for spec in backend.inputs] == ["x", "t", "y"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": np.zeros(1)}, "expected the inputs x, t, y; given: x, t, y, z"),
        (
            {"x": np.zeros((2, 1, 8, 8))},
            r"expected x: float32\[batch, 1, (8, 8|height, width)\] .*given x: float64\[2, 1, 8, 8\]",
        ),
        (
            {"x": np.zeros((2, 1, 8, 9), dtype=np.float32)},
            r"given x: float32\[2, 1, 8, 9\]|a latent of 8x9 is no",
        ),
        ({"x": np.zeros((2, 8, 8), dtype=np.float32)}, r"given x: float32\[2, 8, 8\]"),
        ({"t": np.zeros(3, dtype=np.float32)}, r"expected t: float32\[batch\] with batch = 2; given t: float32\[3\]"),
        ({"y": np.zeros(2, dtype=np.float32)}, r"expected y: int64\[batch\].*given y: float32\[2\]"),
    ],
)
def test_wrong_inputs_are_refused_with_what_was_expected(backend: Backend, change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(backend, {**inputs_of(backend), **change})


def test_a_missing_input_is_named(backend: Backend) -> None:
    inputs = inputs_of(backend)
    del inputs["y"]
    with pytest.raises(InputError, match="expected the inputs x, t, y; given: x, t"):
        call(backend, inputs)


def test_an_empty_batch_is_refused(backend: Backend) -> None:
    with pytest.raises(InputError, match="expected x"):
        call(backend, {name: value[:0] for name, value in inputs_of(backend).items()})


@pytest.mark.parametrize("name", RUN_HERE)
def test_a_closed_backend_says_so(name: str) -> None:
    with open_backend(name, cached_bundle(CARDS[0])) as backend:
        pass
    with pytest.raises(BackendError, match="is closed"):
        call(backend, inputs_of(backend))


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this ONNX Runtime has CUDA")
def test_a_missing_provider_is_an_error_and_never_the_cpu() -> None:
    with pytest.raises(BackendError, match=r"has no CUDAExecutionProvider .*CPUExecutionProvider.*pip install"):
        open_backend("onnxruntime", cached_bundle(CARDS[0]), device="cuda")


def test_a_provider_that_onnxruntime_swaps_silently_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU package lists CUDA as available even where its libraries do not load, and then falls back."""
    listed = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(BackendError, match="fell back from CUDA"):
        open_backend("onnxruntime", cached_bundle(CARDS[0]), device="cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_torch_without_a_gpu_says_so() -> None:
    with pytest.raises(BackendError, match="no CUDA device"):
        open_backend("torch", CARDS[0], device="cuda")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_half_precisions_stay_close_at_every_time(precision: Precision, card: ditzoo.Card) -> None:
    """Down to time 0 of the DiT, where its answer is a small difference of large numbers."""
    plan = ditzoo.make_plan(card, steps=10)
    with open_backend("torch", card) as reference, open_backend("torch", card, precision=precision) as half:
        report = ditzoo.compare(reference, half, plan, classes=[1, 8], times=10, tolerance=TOLERANCES[precision]).report
    assert len(report.forward) == 10
    assert min(forward.relative_l2 for forward in report.forward) > 0
    assert report.passed


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tensorflow", {}, "unknown backend 'tensorflow'"),
        ("torch", {"precision": "fp7"}, "unknown precision 'fp7'"),
        (
            "torch",
            {"precision": "int8"},
            "torch computes in fp32, bf16, fp16, fp64, not in int8; use --backend onnxruntime or openvino or",
        ),
        ("torch", {"device": "tpu"}, "unknown device 'tpu'"),
        ("torch", {"threads": 0}, "threads must be 1 or more"),
        ("torch", {"device": "tensorrt"}, "torch runs on cpu and cuda, not on tensorrt; use --backend onnxruntime for"),
        ("openvino", {"device": "cuda"}, "openvino runs on cpu, not on cuda; use --backend torch or diffusers or onnxruntime"),
        ("openvino", {"precision": "fp16"}, "openvino computes in fp32, bf16, int8, not in fp16; use --backend torch"),
        ("onnxruntime", {"compiled": True}, "onnxruntime has no compiler; use --backend torch or diffusers"),
        ("diffusers", {"form": "split"}, "diffusers has no choice of form; use --backend torch"),
        ("torch:bf16", {"precision": "fp32"}, "'torch:bf16' says bf16, and the argument says fp32; leave one out"),
        ("openvino", {}, "runs bundles; `ditzoo export onnx dit-digits --out DIR` makes one"),
        ("onnxruntime", {}, "runs bundles; `ditzoo export onnx dit-digits --out DIR` makes one"),
    ],
)
def test_wrong_requests_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(DitzooError, match=message):
        open_backend(name, CARDS[0], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "precision"), [("onnxruntime", "fp16"), ("openvino", "bf16")])
def test_a_bundle_runs_in_the_precision_it_was_exported_in(name: str, precision: Precision) -> None:
    with pytest.raises(BackendError, match=f"was exported in fp32, not {precision}"):
        open_backend(name, cached_bundle(CARDS[0]), precision=precision)


def test_a_name_may_carry_options() -> None:
    with open_backend("torch:bf16:split", CARDS[0]) as named, open_backend("torch", CARDS[0], precision="bf16") as single:
        assert (named.name, single.name) == ("torch bf16 cpu split", "torch bf16 cpu")
    with open_backend("onnxruntime:cpu", cached_bundle(CARDS[0]), device="cuda") as backend:
        assert backend.name == "onnxruntime fp32 cpu"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_names_what_is_there(row: BackendRow) -> None:
    """Its extra installs the distributions of its packages, and its module has the opener."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][row.extra]
    installed = {re.split(r"[\[>=]", text)[0].replace("-", "_") for text in requirements}
    extras = {extra for text in requirements for extra in re.findall(r"ditzoo\[(.*)\]", text)}
    for package in row.packages:
        top = {"cuda.bindings": "cuda_python"}.get(package, package)
        assert top in installed | extras
    tree = ast.parse(Path(str(find_spec(row.module).origin)).read_text())  # type: ignore[union-attr]
    assert row.opener in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_missing_package_names_the_extra(row: BackendRow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, row.packages[-1], None)
    message = rf"the backend {row.name} needs a package: pip install 'ditzoo\[{row.extra}\]'"
    with pytest.raises(MissingPackageError, match=message):
        load_module(row.name)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_openvino_computes_in_the_types_of_the_graph(precision: Precision, card: ditzoo.Card) -> None:
    """Half precision and eight bits cost what they cost elsewhere, and are not made of a float32 graph or left out."""
    target = row_of("openvino").target(precision=precision, device="cpu")
    bundle = cached_bundle(card, settings=make_settings(card, precision=precision, target=target))
    plan = ditzoo.make_plan(card, steps=10)
    with open_backend("torch", card) as reference, open_backend("openvino", bundle, threads=1) as candidate:
        report = ditzoo.compare(reference, candidate, plan, classes=[1, 8], times=4, tolerance=TOLERANCES[precision]).report
    assert report.candidate == f"openvino {precision} cpu"
    assert report.passed
    assert report.worst_forward is not None
    assert report.worst_forward > 1e-3


def test_openvino_runs_graphs_in_one_piece() -> None:
    bundle = cached_bundle(CARDS[0], settings=make_settings(CARDS[0], split=False))
    with open_backend("torch", CARDS[0]) as reference, open_backend("openvino:single", bundle) as candidate:
        assert candidate.name == "openvino fp32 cpu single"
        assert forward_error(reference, candidate, inputs_of(candidate, 3)) <= 1e-5
    with pytest.raises(BackendError, match="is single, not split"):
        open_backend("openvino:split", bundle)


def test_openvino_reads_int8_that_measures_as_it_runs() -> None:
    bundle = cached_bundle(CARDS[0], settings=make_settings(CARDS[0], precision="int8", target="onnxruntime"))
    with open_backend("onnxruntime", bundle) as reference, open_backend("openvino", bundle) as candidate:
        assert forward_error(reference, candidate, inputs_of(candidate, 7)) < 1e-3


def test_openvino_computes_the_rest_of_int8_in_bf16() -> None:
    settings = make_settings(CARDS[0], precision="int8", target="tensorrt")
    bundle, property_ = cached_bundle(CARDS[0], settings=settings), "INFERENCE_PRECISION_HINT=bf16"
    with (
        open_backend("torch", CARDS[0]) as reference,
        open_backend("openvino:int8", bundle) as plain,
        open_backend(f"openvino:int8:{property_}", bundle) as candidate,
    ):
        assert candidate.name == f"openvino int8 cpu {property_}"
        plan = ditzoo.make_plan(CARDS[0], steps=10)
        report = ditzoo.compare(reference, candidate, plan, classes=[1, 8], times=4, tolerance=TOLERANCES["int8"]).report
        assert report.worst_forward is not None
        assert 1e-2 < report.worst_forward <= 1e-1  # the norms of so small a network suffer more than its products
        assert forward_error(plain, candidate, inputs_of(candidate, 3)) > 1e-3


@pytest.mark.parametrize(
    "option",
    [
        "NOPE=1",
        "FULL_DEVICE_NAME=x",
        "INFERENCE_NUM_THREADS=1",
        "INFERENCE_PRECISION_HINT=bf16",
        "INFERENCE_PRECISION_HINT=bf17",
        "NUM_STREAMS=abc",
        "DEVICE_ID=7",
        f"PERFORMANCE_HINT={'x' * 3000}",
    ],
)
def test_properties_of_openvino_are_refused_before_an_export(
    option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DITZOO_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match=option.partition("=")[0]) as caught:
        open_model("dit-digits", parse_spec(f"openvino:{option}"))
    assert len(str(caught.value)) < 1000
    assert list(tmp_path.iterdir()) == []


def test_properties_of_openvino_that_are_refused() -> None:
    bundle = cached_bundle(CARDS[0])
    with pytest.raises(UsageError, match=r"INFERENCE_PRECISION_HINT=bf16 is not for fp32; write openvino:int8:INFERENCE_"):
        open_backend("openvino:INFERENCE_PRECISION_HINT=bf16", bundle)
    with pytest.raises(UsageError, match="ditzoo sets INFERENCE_NUM_THREADS of OpenVINO itself; use --threads"):
        open_backend("openvino:INFERENCE_NUM_THREADS=1", bundle)
    with pytest.raises(UsageError, match=r"unknown property of OpenVINO 'INFERENCE_PRECISION'; did you mean INFERENCE"):
        open_backend("openvino:INFERENCE_PRECISION=bf16", bundle)
    with pytest.raises(UsageError, match=r"OpenVINO refuses CPU_DENORMALS_OPTIMIZATION=maybe: Wrong value maybe for property"):
        open_backend("openvino:CPU_DENORMALS_OPTIMIZATION=maybe", bundle)
    with open_backend("openvino:CPU_DENORMALS_OPTIMIZATION=YES", bundle) as backend:
        assert backend.name == "openvino fp32 cpu CPU_DENORMALS_OPTIMIZATION=YES"
        assert isinstance(backend, GraphBackend)
        with backend.reopen(bundle) as again:
            assert again.name == backend.name


def test_openvino_without_bf16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    monkeypatch.setattr(openvino.Core, "get_property", lambda core, device, name: ["FP32", "INT8"])
    bundle = cached_bundle(CARDS[0], settings=make_settings(CARDS[0], precision="bf16"))
    with pytest.raises(BackendError, match="this CPU has no bf16 arithmetic for OpenVINO; use openvino or openvino:int8"):
        open_backend("openvino", bundle)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_torch_on_a_gpu_agrees_with_the_cpu(card: ditzoo.Card, precision: Precision) -> None:
    with open_backend("torch", card) as cpu, open_backend("torch", card, device="cuda", precision=precision) as gpu:
        report = ditzoo.compare(cpu, gpu, ditzoo.make_plan(card), classes=range(10)).report
    limits = TOLERANCES[precision]
    assert limits.forward <= {"fp32": 1e-5, "bf16": 1.5e-2, "fp16": 2e-3}[precision]
    assert report.worst_forward is not None
    assert report.worst_forward <= limits.forward
    assert report.sample_relative_l2 <= limits.sample


@pytest.mark.gpu
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_onnx_runtime_on_a_gpu_holds_the_limits_of_fp32(card: ditzoo.Card) -> None:
    with open_backend("torch", card) as cpu, open_backend("onnxruntime", cached_bundle(card), device="cuda") as gpu:
        report = ditzoo.compare(cpu, gpu, ditzoo.make_plan(card), classes=range(10)).report
    assert report.worst_forward is not None
    assert report.worst_forward <= 1e-5
    assert report.sample_relative_l2 <= 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_split_draws_what_torch_draws(precision: Precision) -> None:
    card = ditzoo.card("dit-digits")
    plan, drawn = ditzoo.make_plan(card, steps=4), []
    forms: tuple[Form, ...] = ("single", "split")
    for form in forms:
        with open_backend("torch", card, form=form, precision=precision) as backend:
            drawn.append(ditzoo.sample(backend, plan, classes=[3, 8]))
    assert relative_l2(drawn[1], drawn[0]) < {"fp32": 1e-6, "bf16": 1e-2}[precision]


def test_torch_cannot_split_every_network() -> None:
    for name, precision in (("uvit-digits", "fp32"), ("dit-digits", "fp64")):
        with pytest.raises(BackendError, match=f"{name} in {precision} cannot be split on torch; use torch:{precision}:single"):
            open_backend("torch", ditzoo.card(name), form="split", precision=precision)  # type: ignore[arg-type]


def test_unreadable_graphs_are_one_clear_error(tmp_path: Path) -> None:
    bundle = cached_bundle(CARDS[1])
    graphs = bundle.manifest.graphs
    (tmp_path / graphs["backbone"].file).write_bytes(b"no graph")
    from ditzoo.backends.onnxruntime import OnnxRuntimeBackend
    from ditzoo.backends.openvino import OpenVinoBackend

    with pytest.raises(BackendError, match="ONNX Runtime cannot load"):
        OnnxRuntimeBackend(tmp_path, graphs, bundle.card)
    with pytest.raises(BackendError, match="OpenVINO cannot load"):
        OpenVinoBackend(tmp_path, graphs, bundle.card)


def test_the_usage_error_for_a_precision_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match="did you mean fp16"):
        open_backend("torch", CARDS[0], precision="fp15")  # type: ignore[arg-type]


def test_backends_that_ask_alike_share_a_session_and_its_weights() -> None:
    from ditzoo.backends import onnxruntime as module

    bundle = cached_bundle(CARDS[0])
    with open_backend("onnxruntime", bundle) as first, open_backend("onnxruntime", bundle) as second:
        with open_backend("onnxruntime", bundle, threads=1) as other:
            assert first._sessions == second._sessions  # type: ignore[attr-defined]
            assert not set(first._sessions.values()) & set(other._sessions.values())  # type: ignore[attr-defined]
        held = set(module._open.values())
        first.__exit__(None, None, None)
        assert set(module._open.values()) == held == set(second._sessions.values())  # type: ignore[attr-defined]
        assert np.isfinite(call(second, inputs_of(second))).all()
    del held
    assert not module._open


@pytest.mark.skipif(not backends_memory.STATUS.exists(), reason="the system does not tell what memory is whose")
def test_a_second_backend_of_128_megabytes_of_weights_takes_none(tmp_path: Path) -> None:
    backends_memory.write_graph(tmp_path)
    done = subprocess.run([sys.executable, backends_memory.__file__, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, again, other_threads = map(float, done.stdout.split())
    assert 120 < first < 200  # one copy, prepacked, and what runs it; the pages of the mapped file are the system's
    assert again < 10
    assert other_threads > 120  # sessions of other settings prepack for themselves


def test_profiles_become_options_of_the_tensorrt_providers(monkeypatch: pytest.MonkeyPatch) -> None:
    from ditzoo.backends import onnxruntime as module

    bundle, given = cached_bundle(CARDS[0]), {}

    def on_cpu(path: Path, *, provider_options: Mapping[str, str], **_: object) -> onnxruntime.InferenceSession:
        given[path.name] = provider_options
        return open_session(path)

    monkeypatch.setattr(module, "_shared_session", on_cpu)
    profile = Profile(axes={"batch": Range(min=2, opt=4, max=8), "height": Range(min=8, opt=8, max=8)})
    open_backend("onnxruntime", bundle, device="tensorrt_rtx", profiles=[profile])
    assert given["backbone.onnx"]["nv_profile_min_shapes"] == "x:2x1x8x8,blocks:2x6x384,final:2x128"
    assert given["backbone.onnx"]["nv_profile_max_shapes"] == "x:8x1x8x8,blocks:8x6x384,final:8x128"
    rows = given["conditioning.onnx"]["nv_profile_max_shapes"].split(",")[0].removeprefix("t:")
    assert int(rows) > 1000  # a whole window of modulations, whatever the batch
    for name, device in (("onnxruntime", "cuda"), ("torch", "cpu")):
        with pytest.raises(UsageError, match="profiles are for onnxruntime on tensorrt or tensorrt_rtx"):
            open_backend(name, bundle, device=device, profiles=[profile])  # type: ignore[arg-type]


def test_inputs_are_bound_after_the_work_that_makes_them_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime may copy an input to another device as soon as it is bound."""
    done: list[str] = []
    bind = onnxruntime.IOBinding.bind_input

    def recorded(binding: onnxruntime.IOBinding, *arguments: object) -> None:
        done.append("bound")
        bind(binding, *arguments)

    monkeypatch.setattr(cuda, "settle", lambda library: done.append("settled"))
    monkeypatch.setattr(onnxruntime.IOBinding, "bind_input", recorded)
    with open_backend("onnxruntime", cached_bundle(CARDS[1])) as opened:
        shapes = {spec.name: np.ones(spec.concrete(batch=1), spec.dtype) for spec in opened.inputs}
        opened(shapes)
    assert done[0] == "settled"
    assert "bound" in done

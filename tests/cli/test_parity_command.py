"""What parity is measured between: backends by their spelling, float64, diffusers, and what cannot be compared."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ditzoo
from ditzoo.backends import open_backend
from ditzoo.backends.options import BackendSpec, parse_spec, parse_specs
from ditzoo.backends.table import BACKENDS
from ditzoo.backends.torch import TorchBackend
from ditzoo.bundle import open_bundle
from ditzoo.cli import run
from ditzoo.errors import BackendError, UsageError
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity import TIMES, compare
from ditzoo.plan.make import make_plan
from ditzoo_export import cached_bundle, make_settings
from tests.support.export_models import TINY_DIT, random_model

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")
FAST = ["--steps", "3", "--classes", "1,2"]


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, dict[str, str]]:
    """A backend with some of its options, at most one of each kind, in any order."""
    name = draw(st.sampled_from(sorted(BACKENDS)))
    options = BACKENDS[name].options
    fields = draw(st.lists(st.sampled_from(sorted(options)), unique=True))
    given = {field: draw(st.sampled_from(options[field])) for field in fields}
    return ":".join([name, *given.values()]), given


@given(spellings())
def test_options_come_in_any_order(spelling: tuple[str, dict[str, str]]) -> None:
    text, given = spelling
    spec = parse_spec(text)
    assert spec.name == text.partition(":")[0]
    assert (spec.compiled, spec.tf32) == ("compiled" in given, "tf32" in given)
    for field in ("precision", "form", "device"):
        assert getattr(spec, field) == given.get(field)
    name, *options = text.split(":")
    assert all(parse_spec(":".join([name, *order])) == spec for order in itertools.permutations(options))


def test_a_list_of_backends() -> None:
    assert parse_specs("torch, onnxruntime:single:int8") == [
        BackendSpec(name="torch"),
        BackendSpec(name="onnxruntime", precision="int8", form="single"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tosch", "unknown backend 'tosch'; did you mean torch"),
        (
            "torch:int8",
            "torch has no option 'int8'; it takes fp32, .* compile, tf32, such as torch:fp32:split:cpu:compile",
        ),
        ("diffusers:split", "diffusers has no option 'split'"),
        ("onnxruntime:fp64", "onnxruntime has no option 'fp64'; .*such as onnxruntime:fp32:split:cpu"),
        ("onnxruntime:", "no option ''"),
        ("tensorrt:cpu", "tensorrt has no option 'cpu'"),
        ("torch:bf16:fp16", "'torch:bf16:fp16' says both bf16 and fp16"),
        ("torch:cpu:cpu", "says both cpu and cpu"),
    ],
)
def test_what_there_is_not_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_spec(text)


def test_every_example_in_an_error_is_right() -> None:
    for name in BACKENDS:
        with pytest.raises(UsageError) as caught:
            parse_spec(f"{name}:nothing")
        assert parse_spec(str(caught.value).rpartition("such as ")[2]).name == name


def test_the_spelling_decides_what_runs(capfd: pytest.CaptureFixture[str]) -> None:
    typed = "parity dit-digits --backends torch,onnxruntime:single,onnxruntime:split:cpu,onnxruntime:int8,torch:fp64 --json"
    run([*typed.split(), *FAST, "--device", "cpu"])
    reports = json.loads(capfd.readouterr().out)
    assert [report["candidate"] for report in reports] == [
        "onnxruntime fp32 cpu single",
        "onnxruntime fp32 cpu",
        "onnxruntime int8 cpu",
        "torch fp64 cpu",
    ]
    assert [report["precision"] for report in reports] == ["fp32", "fp32", "int8", "fp64"]
    errors = [report["worst_forward"] for report in reports]
    assert max(errors[0], errors[1], errors[3]) < 1e-5 < errors[2]


def test_the_device_is_for_those_that_name_none(capfd: pytest.CaptureFixture[str]) -> None:
    typed = ["parity", "uvit-digits", "--device", "tensorrt_rtx", *FAST]
    assert run([*typed, "--backends", "torch:cpu,torch:cpu"]) == 0
    capfd.readouterr()
    assert run([*typed, "--backends", "torch:cpu,torch"]) == 2
    assert "torch runs on cpu and cuda, not on tensorrt_rtx" in capfd.readouterr().err


@pytest.mark.parametrize("card", [DIT, UVIT], ids=lambda card: card.name)
def test_float64_is_the_exact_reference(card: ditzoo.Card) -> None:
    plan = make_plan(card, steps=10)
    with open_backend("torch", card, precision="fp64") as exact, open_backend("torch", card) as single:
        assert {spec.dtype for spec in exact.inputs} == {"float64", "int64"}
        report = compare(exact, single, plan, classes=range(10)).report
        latents = ditzoo.sample(exact, plan, classes=[3])
    assert latents.dtype == np.float64
    for error in (*(entry.relative_l2 for entry in report.forward), *report.drift):
        assert 1e-8 < error < 3e-6
    assert report.psnr is not None
    assert report.psnr > 130


def test_float64_is_exact_itself() -> None:
    """Weights and times that float32 holds exactly, in float64: the last bits are those of float64."""
    with open_backend("torch", DIT, precision="fp64") as exact:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((4, 1, 8, 8)), np.array([0, 3, 9, 10])
        inputs = {"x": x, "t": np.array([1.5, 100.0, 500.25, 999.0]), "y": y}
        whole = exact.numpy(exact({name: exact.asarray(value) for name, value in inputs.items()}))
        alone = [
            exact.numpy(exact({name: exact.asarray(value[i : i + 1]) for name, value in inputs.items()})) for i in range(4)
        ]
    assert whole.dtype == np.float64
    assert relative_l2(np.concatenate(alone), whole) < 1e-14


def test_exact_on_the_command_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "uvit-digits", "--backends", "torch", "--exact", "--json", *FAST]) == 0
    (report,) = json.loads(capfd.readouterr().out)
    assert (report["reference"], report["candidate"]) == ("torch fp64 cpu", "torch fp32 cpu")
    assert report["worst_forward"] < 3e-6


class BadLabel(TorchBackend):
    """A backend that is wrong for one label alone."""

    def __init__(self, label: int, value: float) -> None:
        super().__init__(UVIT)
        self.label, self.value = label, value

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        wrong = (inputs["y"] == self.label).view(-1, 1, 1, 1)
        return torch.where(wrong, super().__call__(inputs) + self.value, super().__call__(inputs))


@pytest.mark.parametrize("label", [7, UVIT.null_label])
def test_one_bad_label_is_seen(label: int) -> None:
    plan = make_plan(UVIT, steps=6)
    report = compare(TorchBackend(UVIT), BadLabel(label, 1e-2), plan, classes=[1, 7, 1, 4, 5, 6]).report
    assert len(report.forward) == TIMES
    bad = "null" if label == UVIT.null_label else str(label)
    for error in report.forward:
        assert [entry.label for entry in error.labels] == ["1", "7", "4", "5", "6", "null"]
        assert {entry.label for entry in error.labels if entry.relative_l2 > 0} == {bad}
        assert {entry.label for entry in error.labels if entry.max_abs > 0} == {bad}
        assert error.worst == max(entry.relative_l2 for entry in error.labels) > error.relative_l2 > 0
    assert report.worst_forward == max(error.worst for error in report.forward)


def test_a_nan_under_one_label_is_named() -> None:
    plan = make_plan(UVIT, steps=4, guidance=1.0)  # the null label is never asked for on the way
    candidate = BadLabel(UVIT.null_label or 0, math.nan)
    time = plan.rows[0].time
    with pytest.raises(
        BackendError, match=rf"torch fp32 cpu gave NaN or infinity as its prediction at time {time:g} under label null"
    ):
        compare(TorchBackend(UVIT), candidate, plan, classes=[1, 2])


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is one graph to torch's compiler, at any batch size; generating its code would take half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    card, net = random_model(TINY_DIT)
    compiled = TorchBackend(card, net=net, compiled=True)
    assert compiled.name == "torch fp32 cpu compiled"
    report = compare(TorchBackend(card, net=net), compiled, make_plan(card, steps=2), classes=[1, 2], times=1).report
    assert report.passed
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest.fixture
def peer() -> None:
    pytest.importorskip("diffusers", reason="needs diffusers: pip install 'ditzoo[diffusers]'")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("peer")
def test_diffusers_is_a_backend_that_differs_by_its_sinusoids() -> None:
    plan = make_plan(DIT, steps=20)
    with open_backend("torch", DIT) as reference, open_backend("diffusers", DIT) as candidate:
        assert candidate.name == "diffusers fp32 cpu"
        report = compare(reference, candidate, plan, classes=range(10)).report
        assert report.forward[-1].time == 0
        assert report.forward[-1].relative_l2 < 1e-5  # at t = 0 any sinusoids are the same
        assert all(1e-3 < error.relative_l2 < 1e-1 for error in report.forward[:-1])
        for block in candidate._run.net.transformer_blocks:  # type: ignore[attr-defined]
            block.norm1.emb.time_proj.downscale_freq_shift = 0
        assert compare(reference, candidate, plan, classes=range(10)).report.passed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("peer")
def test_against_diffusers(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "dit-digits", "--backends", "torch,onnxruntime", "--against", "diffusers", "--json", *FAST]) == 1
    reports = json.loads(capfd.readouterr().out)
    assert [(r["reference"], r["candidate"], r["passed"]) for r in reports] == [
        ("torch fp32 cpu", "onnxruntime fp32 cpu", True),
        ("torch fp32 cpu", "diffusers fp32 cpu", False),
    ]
    assert run(["parity", "dit-digits", "--against", "diffusers:bf16", "--json", *FAST]) == 1
    (report,) = json.loads(capfd.readouterr().out)
    assert report["precision"] == "bf16"
    assert run(["parity", "uvit-digits", "--against", "diffusers"]) == 2
    assert "error: diffusers has no network like that of uvit-digits" in capfd.readouterr().err
    no_null = msgspec.structs.replace(
        DIT,
        backbone=msgspec.structs.replace(DIT.backbone, class_dropout_prob=0.0),
        null_label=None,
        sampling=msgspec.structs.replace(DIT.sampling, guidance=1.0),
    )
    with pytest.raises(UsageError, match="always has a null label, and dit-digits has none"):
        open_backend("diffusers", no_null)


def test_a_missing_peer_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "ditzoo.backends.diffusers", raising=False)
    assert run(["parity", "dit-digits", "--against", "diffusers"]) == 2
    assert capfd.readouterr().err == "error: the backend diffusers needs a package: pip install 'ditzoo[diffusers]'\n"


def test_bundles_of_different_resolutions_are_refused() -> None:
    card, net = random_model(TINY_DIT)
    square = cached_bundle(card, net=net)
    wide = cached_bundle(card, net=net, settings=make_settings(card, resolution="8x16"))
    with (
        open_backend("onnxruntime", square) as reference,
        open_backend("onnxruntime", wide) as candidate,
        pytest.raises(UsageError, match=r"takes x: float32\[batch, 4, 8, 8\], .* 4, 8, 16\]: their resolutions differ"),
    ):
        compare(reference, candidate, make_plan(card, steps=2), classes=[1])


def test_other_weights_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    known = UVIT.weights.sha256  # type: ignore[union-attr]
    bundle = tmp_path / "bundle"
    shutil.copytree(cached_bundle(UVIT).path, bundle)
    assert open_bundle(bundle).manifest.weights == known
    assert run(["parity", str(bundle), *FAST]) == 0
    capfd.readouterr()
    (bundle / "manifest.json").write_text((bundle / "manifest.json").read_text().replace(known, "0" * 64))
    assert run(["parity", str(bundle), *FAST]) == 2
    error = capfd.readouterr().err
    assert f"{bundle} was exported from other weights than uvit-digits has here" in error
    assert error.count("\n") == 1


def test_a_bundle_is_what_was_exported(capfd: pytest.CaptureFixture[str]) -> None:
    bundle = str(cached_bundle(DIT, settings=make_settings(DIT, split=False)).path)
    for text, message in (
        ("onnxruntime:fp16", "was exported in fp32, not fp16; leave that out"),
        ("onnxruntime:split", "is single, not split; leave that out, or export it with --split"),
    ):
        assert run(["parity", bundle, "--backends", f"torch,{text}", *FAST]) == 2
        assert message in capfd.readouterr().err
    assert run(["parity", bundle, "--backends", "torch,onnxruntime:single:fp32,onnxruntime", *FAST]) == 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--against tensorrt", "unknown peer 'tensorrt'; known: FILE.npz, diffusers (--backends takes the other backends)"),
        ("--against diffusers:int8", "diffusers has no option 'int8'"),
        ("--backends torch", "--backends needs two or more"),
        ("--times 0", "must be 1 or more, not 0"),
        ("--backends torch,onnxruntime:split", "uvit-digits cannot be split"),
    ],
)
def test_a_wrong_request_is_one_clear_line(typed: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", "uvit-digits", *typed.split()]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1

"""`--backend auto`: what is decided from given times, and what is measured, kept and found again with real backends."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

import ditzoo
from ditzoo.cache import contents, leftovers, of_model
from ditzoo.choices import Choice, Situation, Timing, choices, fastest, keep_choice, outdated, read_choice
from ditzoo.cli import run
from ditzoo.distributions import versions_of
from ditzoo.errors import BackendError, UsageError
from ditzoo.measure.evaluation_time import least_seconds
from ditzoo.measure.machine import PACKAGES
from ditzoo.model.automatic import candidates, fastest_backend
from ditzoo.model.opening import open_model
from ditzoo_export import cached_bundle, make_settings

CARD = ditzoo.card("dit-digits")
PLAN = ditzoo.make_plan(CARD, steps=3)
SITUATION = Situation(
    model="dit-digits",
    weights="0" * 64,
    precision="fp32",
    device="cpu",
    threads=None,
    images=4,
    rows=8,
    size=(8, 8),
    outer_blocks=0,
    processor="a processor",
    cores=2,
    gpu=None,
    versions=versions_of(PACKAGES),
)


def timings(**seconds: float | None) -> list[Timing]:
    return [Timing(backend=name, seconds=value, why="" if value else "no reason") for name, value in seconds.items()]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, in which the exports of the other tests are found too."""
    bundle = cached_bundle(CARD, settings=make_settings(CARD))
    shared = bundle.path.parent
    own = tmp_path / "cache"
    own.mkdir()
    (own / "bundles").symlink_to(shared)
    monkeypatch.setenv("DITZOO_CACHE", str(own))
    return own


@pytest.mark.parametrize(
    ("measured", "chosen"),
    [
        ({"torch": 2.0, "onnxruntime": 1.0, "openvino": 1.5}, "onnxruntime"),
        ({"torch": 1.0, "onnxruntime": 2.0}, "torch"),
        ({"torch": 1.04, "onnxruntime": 1.0}, "torch"),
        ({"torch": 1.06, "onnxruntime": 1.0}, "onnxruntime"),
        ({"torch": 2.0, "onnxruntime": 1.03, "openvino": 1.0}, "onnxruntime"),
        ({"torch": None, "openvino": 3.0}, "openvino"),
        ({"torch": None}, None),
        ({}, None),
    ],
)
def test_the_first_of_the_fastest_backends_is_chosen(measured: dict[str, float | None], chosen: str | None) -> None:
    assert fastest(timings(**measured)) == chosen


def test_only_backends_for_the_device_come_into_question() -> None:
    assert candidates(CARD, "cpu") == ["torch", "onnxruntime", "openvino"]
    assert candidates(CARD, "cuda:1") == ["torch", "onnxruntime", "tensorrt", "tensorrt_rtx"]
    assert candidates(CARD, "tensorrt") == ["onnxruntime"]


CHANGES: list[dict[str, object]] = [
    {"weights": "1" * 64},
    {"precision": "bf16"},
    {"threads": 1},
    {"images": 1, "rows": 2},
    {"size": (16, 8)},
    {"outer_blocks": 1},
    {"processor": "another"},
    {"versions": {**SITUATION.versions, "torch": "1.0"}},
]


def test_a_choice_holds_in_the_same_situation_only(cache: Path) -> None:
    choice = Choice(situation=SITUATION, timings=tuple(timings(torch=1.0)), chosen="torch", date="2026-01-01 00:00 UTC")
    assert read_choice(SITUATION) is None
    keep_choice(choice)
    assert read_choice(SITUATION) == choice
    for change in CHANGES:
        assert read_choice(msgspec.structs.replace(SITUATION, **change)) is None, change


def test_the_cache_knows_choices_and_prunes_the_outdated_ones(cache: Path) -> None:
    old = msgspec.structs.replace(SITUATION, versions={**SITUATION.versions, "torch": "1.0"})
    gone = msgspec.structs.replace(SITUATION, versions={**SITUATION.versions, "no-such-package": "1.0"})
    for situation in (SITUATION, old, gone):
        keep_choice(Choice(situation=situation, timings=tuple(timings(torch=1.0)), chosen="torch", date=""))
    damaged = cache / "backends" / "uvit-digits-0123.json"
    damaged.write_text('{"format": "ditzoo-choice/1", "situation": 3}')
    kept = [item for item in contents([CARD]) if item.what == "choice of a backend"]
    assert sorted(item.model for item in kept) == ["dit-digits"] * 3 + ["uvit-digits"]
    assert damaged in {item.path for item in of_model("uvit-digits", [CARD])}
    lost = {path for path, choice in choices() if choice is None or choice.situation != SITUATION}
    assert set(outdated()) == lost
    assert {item.path for item in leftovers([CARD], downloads=False) if item.what == "outdated choice of a backend"} == lost


def test_real_backends_are_measured_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counting(model: object, spec: object, **options: object) -> object:
        opened.append(spec.name)  # type: ignore[attr-defined]
        return open_model(model, spec, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("ditzoo.model.automatic.open_model", counting)
    choice = fastest_backend(CARD, plan=PLAN, images=2)
    assert opened == ["torch", "onnxruntime", "openvino"]
    assert choice.chosen == fastest(choice.timings)
    assert choice.measured.keys() == {"torch", "onnxruntime", "openvino"}
    assert (choice.situation.rows, choice.situation.precision, choice.situation.size) == (4, "fp32", (8, 8))
    assert fastest_backend(CARD, plan=PLAN, images=2) == choice
    assert len(opened) == 3
    assert fastest_backend(CARD, plan=PLAN, images=2, again=True).situation == choice.situation
    assert len(opened) == 6
    assert len(list(cache.joinpath("backends").iterdir())) == 1


def test_the_precision_is_never_another_one(cache: Path) -> None:
    fp64 = fastest_backend(CARD, "auto:fp64", plan=PLAN, images=1)
    assert fp64.backend == "torch:fp64"
    assert {t.backend: t.why for t in fp64.timings if t.seconds is None}.keys() == {"onnxruntime", "openvino"}
    assert "onnxruntime computes in fp32, bf16, fp16, int8, fp8, not in fp64" in fp64.timings[1].why
    with pytest.raises(UsageError, match="says fp64, and the precision is bf16"):
        fastest_backend(CARD, "auto:fp64", precision="bf16", plan=PLAN)
    with pytest.raises(UsageError, match="unknown precision of auto 'fast'"):
        fastest_backend(CARD, "auto:fast", plan=PLAN)


def test_a_bundle_runs_in_its_own_precision(cache: Path) -> None:
    bundle = cached_bundle(CARD, settings=make_settings(CARD))
    choice = fastest_backend(bundle, plan=PLAN, images=1)
    assert choice.situation.weights == bundle.manifest.key
    assert choice.measured.keys() == {"torch", "onnxruntime", "openvino"}
    with pytest.raises(UsageError, match="this bundle of dit-digits is in fp32, not in bf16"):
        fastest_backend(bundle, "auto:bf16", plan=PLAN)


def test_no_backend_is_an_error_with_the_reasons(cache: Path) -> None:
    with pytest.raises(BackendError, match="no backend runs dit-digits in fp8 on cpu here: torch: torch computes in"):
        fastest_backend(CARD, "auto:fp8", plan=PLAN)
    assert not list(choices())


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_a_time_is_that_of_real_evaluations(name: str) -> None:
    with ditzoo.open_backend("torch", name) as backend:
        assert least_seconds(backend, rows=2, size=CARD.backbone.latent_shape[1:]) > 0  # type: ignore[arg-type]


def test_the_command_tells_its_choice_and_draws_what_that_backend_draws(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["sample", "dit-digits", "--classes", "0-3", "--steps", "3"]
    assert run([*given, "--backend", "auto", "--save-latents", "a.npy", "--json"]) == 0
    shown = capfd.readouterr()
    ((_, choice),) = choices()
    assert choice is not None
    assert f"auto: {choice.chosen} for dit-digits in fp32 on cpu; torch " in shown.err
    assert json.loads(shown.out)["backend"].startswith(f"{choice.chosen} fp32 cpu")
    assert run([*given, "--backend", choice.backend, "--save-latents", "b.npy"]) == 0
    assert np.load("a.npy").tobytes() == np.load("b.npy").tobytes()
    capfd.readouterr()
    with ditzoo.load("dit-digits", backend="auto") as model:
        assert model.backend.name == json.loads(shown.out)["backend"]
    assert len(list(choices())) == 1
    assert run(["bench", "dit-digits", "--backends", "auto", "--repeats", "1", "--warmup", "0", "--steps", "3"]) == 0
    table = capfd.readouterr()
    assert [line.split("\t")[0].split()[0] for line in table.out.splitlines()[1:]] == ["torch", "onnxruntime", "openvino"]
    assert table.err.count("auto: ") == 1  # that of this bench; the choice for four images is not told again

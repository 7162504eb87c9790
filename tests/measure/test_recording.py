"""Latents of other systems: the file that `sample` writes and `parity --against` reads."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ditzoo
from ditzoo.backends import open_backend
from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.measure.recording import read_recording
from ditzoo.plan.make import make_plan
from ditzoo.plan.table import Plan
from ditzoo.sampling.noise import gaussian

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")
PLAN = make_plan(UVIT, steps=4)
CLASSES = [3, 1, 7]


def as_json(typed: list[str], capfd: pytest.CaptureFixture[str]) -> Any:
    capfd.readouterr()
    run([*typed, "--json"])
    return json.loads(capfd.readouterr().out)


def server(plan: Plan, classes: list[int], noise: np.ndarray, draws: np.ndarray | None = None) -> list[np.ndarray]:
    """Somebody else's sampler, from nothing but the plan's table: every state."""
    with open_backend("torch", UVIT if plan.rows[0].log_variance is None else DIT) as net:
        null = net.card.null_label
        states, predictions = [plan.initial * noise], []
        for i, row in enumerate(plan.rows):
            outputs = []
            for labels in (classes, [null] * len(classes)):
                inputs = {"x": states[-1], "t": np.full(len(classes), row.time), "y": np.array(labels)}
                inputs = {name: value.astype(np.int64 if name == "y" else np.float32) for name, value in inputs.items()}
                outputs.append(net.numpy(net({name: net.asarray(value) for name, value in inputs.items()})))
            cond, uncond = outputs
            channels, guided = plan.channels, plan.guided_channels
            prediction = cond[:, :channels].copy()
            prediction[:, :guided] = uncond[:, :guided] + row.guidance * (cond - uncond)[:, :guided]
            predictions.append(prediction)
            x = sum(weight * state for weight, state in zip(row.states, states[::-1], strict=False))
            x = x + sum(weight * value for weight, value in zip(row.predictions, predictions[::-1], strict=False))
            if row.log_variance is not None and draws is not None:
                fraction = (cond[:, channels:] + 1) / 2
                low, high = row.log_variance
                x = x + np.exp(0.5 * (fraction * high + (1 - fraction) * low)) * draws[i]
            states.append(np.asarray(x, dtype=np.float32))
    return states


def entries() -> dict[str, Any]:
    """What a server that uses noise of its own may hand over."""
    noise = np.random.default_rng(5).standard_normal((3, 1, 8, 8)).astype(np.float32)
    states = server(PLAN, CLASSES, noise)
    return {"states": np.stack(states), "noise": noise, "classes": np.array(CLASSES), "plan": PLAN.to_json().decode()}


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    return entries()


@pytest.mark.parametrize("solver", [None, "ddim:eta=0.5"])
def test_what_sample_writes_parity_reads(
    solver: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = "sample dit-digits --steps 5 --classes 0-3 --seed 9 --guidance 2 --batch 3 --save-latents it.npz --out it.png"
    assert run([*drawn.split(), *(["--solver", solver] if solver else [])]) == 0
    with np.load("it.npz", allow_pickle=False) as file:
        assert bytes(file["model"]) == b"dit-digits"
        assert Plan.from_json(bytes(file["plan"])).rows[0].guidance == 2
        assert file["classes"].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(file["noise"][2], gaussian(9, 2, 0, (1, 8, 8)))
        assert file["latents"].shape == (4, 1, 8, 8)
    (report,) = as_json(["parity", "dit-digits", "--against", "it.npz"], capfd)
    assert (report["candidate"], report["images"], report["steps"], report["forward"]) == ("it.npz", 4, 5, [])
    assert report["worst_forward"] is None
    assert len(report["drift"]) == 1
    assert report["drift"][0] < 1e-5
    assert report["passed"]


def test_a_repeated_picture_is_recorded_with_its_own_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["sample", "dit-digits", "--steps", "3", "--classes", "0-3", "--seed", "9", "--out", "pictures"])
    assert run(["sample", "--like", "pictures/0002-class2.png", "--save-latents", "it.npz", "--out", "it.png"]) == 0
    with np.load("it.npz") as file:
        assert int(file["first"]) == 2
        np.testing.assert_array_equal(file["noise"][0], gaussian(9, 2, 0, (1, 8, 8)))
    (report,) = as_json(["parity", "dit-digits", "--against", "it.npz"], capfd)
    assert report["passed"]


def test_a_server_with_noise_of_its_own(own: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its drift is known at every step, and begins where its error begins."""
    np.savez(tmp_path / "right.npz", **own)
    typed = ["parity", "uvit-digits", "--backends", "torch,torch:fp64", "--html", str(tmp_path / "report.html"), "--against"]
    other, report = as_json([*typed, str(tmp_path / "right.npz")], capfd)
    assert other["candidate"] == "torch fp64 cpu"
    assert other["passed"]
    assert len(report["drift"]) == 4
    assert max(report["drift"]) < 1e-6
    assert report["passed"]
    assert "The candidate is known only by its latents" in (tmp_path / "report.html").read_text()
    states = own["states"].copy()
    states[3:] += 0.01
    np.savez(tmp_path / "wrong.npz", **{**own, "states": states})
    (report,) = as_json(["parity", "uvit-digits", "--against", str(tmp_path / "wrong.npz")], capfd)
    assert max(report["drift"][:2]) < 1e-6 < 1e-3 < min(report["drift"][2:])
    assert not report["passed"]


def test_a_server_with_draws_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(DIT, steps=4)
    noise, draws = np.split(np.random.default_rng(5).standard_normal((5, 2, 1, 8, 8)).astype(np.float32), [1])
    latents = server(plan, [4, 8], noise[0], draws)[-1]
    known = {"latents": latents, "noise": noise[0], "classes": np.array([4, 8]), "plan": plan.to_json().decode()}
    np.savez(tmp_path / "a.npz", **known, draws=draws)
    (report,) = as_json(["parity", "dit-digits", "--against", str(tmp_path / "a.npz")], capfd)
    assert report["sample_relative_l2"] < 1e-6
    np.savez(tmp_path / "b.npz", **known, draws=draws[::-1])
    (report,) = as_json(["parity", "dit-digits", "--against", str(tmp_path / "b.npz")], capfd)
    assert report["sample_relative_l2"] > 1e-3
    np.savez(tmp_path / "c.npz", **known)
    with pytest.raises(UsageError, match=r"c.npz: its plan adds noise at its steps; add draws \[S, N, C, H, W\], or the seed"):
        read_recording(tmp_path / "c.npz", DIT)


def test_the_file_says_its_precision_and_the_plan_may_come_apart(
    own: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.json").write_bytes(PLAN.to_json())
    halves = {name: value for name, value in own.items() if name != "plan"}
    halves |= {"states": own["states"].astype(np.float16), "precision": "fp16"}
    np.savez(tmp_path / "half.npz", **halves)
    typed = ["parity", "uvit-digits", "--against", str(tmp_path / "half.npz"), "--plan", str(tmp_path / "plan.json")]
    (report,) = as_json(typed, capfd)
    assert report["precision"] == "fp16"
    assert 1e-5 < report["sample_relative_l2"] < 2e-3
    assert report["tolerance"]["sample"] == 2e-2
    np.savez(tmp_path / "half.npz", **halves, plan=own["plan"])
    assert run(typed) == 2
    assert "half.npz: it has its own plan; leave out --plan" in capfd.readouterr().err


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"states": None}, "it must have either latents .* or states"),
    ({"latents": np.zeros((3, 1, 8, 8))}, "it must have either latents .* or states"),
    ({"states": np.zeros((3, 3, 1, 8, 8))}, r"states must be \[5, N, 1, 8, 8\], not \[3, 3, 1, 8, 8\]"),
    ({"states": np.zeros((5, 3, 1, 8, 9))}, r"states must be \[5, N, 1, 8, 8\], not \[5, 3, 1, 8, 9\]"),
    ({"states": np.zeros((5, 0, 1, 8, 8))}, r"states must be .* not \[5, 0, 1, 8, 8\]"),
    ({"states": np.zeros((5, 3, 1, 8, 8), dtype=np.int32)}, "states must be floating-point numbers, not int32"),
    ({"states": np.full((5, 3, 1, 8, 8), np.nan)}, r"states has NaN or infinity, first at \[0, 0, 0, 0, 0\]"),
    ({"states": np.ones((5, 3, 1, 8, 8))}, r"states\[0\] is not the noise times 1"),
    ({"noise": None}, r"it has no noise; add noise \[N, C, H, W\]"),
    ({"noise": np.zeros((2, 1, 8, 8))}, r"noise must be \[3, 1, 8, 8\], not \[2, 1, 8, 8\]"),
    ({"draws": np.zeros((4, 2, 1, 8, 8))}, r"draws must be \[4, 3, 1, 8, 8\]"),
    ({"seed": np.array(1.5)}, "seed must be whole numbers"),
    ({"seed": np.array(-1)}, "seed must be 0 to"),
    ({"classes": None}, "it has no classes; add an entry of length 3, the number of images"),
    ({"classes": np.array([1, 2])}, r"classes must be whole numbers of shape \[3\], not int64 of \[2\]"),
    ({"classes": np.array([1.0, 2.0, 3.0])}, "classes must be whole numbers"),
    ({"prompts": "[]"}, "uvit-digits does not take prompts; leave out"),
    ({"plan": None}, "it has no plan; add the JSON that `ditzoo plan save` writes, or give --plan FILE"),
    ({"plan": "{}"}, "plan: not a plan"),
    ({"plan": np.zeros(3)}, "plan must be a text, or its bytes as uint8"),
    ({"plan": np.array([255], dtype=np.uint8)}, "plan is not UTF-8"),
    ({"plan": make_plan(DIT, steps=4).to_json().decode()}, "this plan asks for a learned variance, and uvit-digits has none"),
    ({"model": "dit-digits"}, "it was made with dit-digits, not uvit-digits"),
    ({"precision": "fp12"}, "precision must be one of fp64, fp32"),
    ({"latent": np.zeros(1)}, "unknown entry 'latent'; known: latents, states"),
    ({"classes": np.array([{}, {}, {}])}, "is not an .npz file of plain arrays: Object arrays cannot be loaded"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[f"{next(iter(change))}-{i}" for i, (change, _) in enumerate(WRONG)])
def test_a_bad_file_is_one_clear_line(own: dict[str, Any], change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: value for name, value in {**own, **change}.items() if value is not None})
    with pytest.raises(UsageError, match=message) as caught:
        read_recording(path, UVIT)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def sound(own: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "file.npz"
    np.savez(path, **own)
    return path


@pytest.mark.filterwarnings("ignore")
@given(place=st.integers(0, 10_000), value=st.integers(0, 255), length=st.integers(0, 10_000))
@settings(max_examples=30)
def test_a_damaged_file_is_no_traceback(sound: Path, place: int, value: int, length: int) -> None:
    content, path = bytearray(sound.read_bytes()), sound.with_name("damaged.npz")
    content[place % len(content)] = value
    for damaged in (content, content[: length % len(content)]):
        path.write_bytes(damaged)
        with suppress(UsageError):
            assert read_recording(path, UVIT).request.classes == tuple(CLASSES)


def test_files_that_are_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "single.npy", np.zeros(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    (tmp_path / "text.npz").write_text("latents")
    (tmp_path / "empty.npz").touch()
    for name, message in {
        "missing.npz": "cannot be read: No such file",
        "single.npz": "it is a single array",
        "text.npz": "is not an .npz file",
        "empty.npz": "is not an .npz file",
        ".npz": "cannot be read",
    }.items():
        assert run(["parity", "uvit-digits", "--against", str(tmp_path / name)]) == 2
        error = capfd.readouterr().err
        assert f"error: {tmp_path / name}: {message}" in error
        assert error.count("\n") == 1


def test_the_file_says_what_was_drawn(own: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", **own)
    typed = ["parity", "uvit-digits", "--against", str(tmp_path / "a.npz")]
    for option in ("--steps", "--seed", "--classes"):
        assert run([*typed, option, "3"]) == 2
        assert f"a.npz states what was drawn; leave out {option}" in capfd.readouterr().err
    np.savez(tmp_path / "a.npz", **{**own, "classes": np.array([1, 2, 12])})
    assert run(typed) == 2
    assert "class 12 is out of range" in capfd.readouterr().err


def test_prompts_travel_too(tmp_path: Path) -> None:
    from ditzoo.measure.recording import write_recording
    from ditzoo.sampling.request import SampleRequest

    card = ditzoo.card("uvit-s-2-coco")
    plan = make_plan(card, steps=2)
    shape = card.backbone.latent_shape
    request = SampleRequest(model=card.name, plan=plan, seed=3, count=2, prompts=("a dog", "naïve 🎨"))
    latents = np.stack([gaussian(1, i, 0, shape) for i in range(2)])
    write_recording(tmp_path / "a.npz", request, latents, precision="bf16")
    recording = read_recording(tmp_path / "a.npz", card)
    assert recording.request.prompts == request.prompts
    assert recording.drawn.precision == "bf16"
    np.testing.assert_array_equal(recording.drawn.states[-1], latents)
    np.testing.assert_array_equal(recording.noise(2)[1], gaussian(3, 1, 2, shape))
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    for prompts, message in (('["a dog"]', "prompts has length 1; it must be 2"), ('"a dog"', "must be a JSON list of texts")):
        np.savez(tmp_path / "b.npz", **{**arrays, "prompts": prompts})
        with pytest.raises(UsageError, match=message):
            read_recording(tmp_path / "b.npz", card)

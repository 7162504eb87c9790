from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ditzoo
from ditzoo.cli import run
from ditzoo.measure.metrics import relative_l2
from ditzoo_export import cached_bundle

FAST = ["--steps", "3"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(cached_bundle(ditzoo.card("dit-digits")).path, tmp_path / "bundle"))


def picture(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image)


BAD = {  # what is typed: a part of the one line that comes back
    "sample dit-digit": "unknown model 'dit-digit'; did you mean dit-digits",
    "info nothing-like-it": "unknown model 'nothing-like-it'",
    "sample dit-digits --classes 10": "class 10 is out of range; dit-digits knows 0 to 9",
    "sample dit-digits --classes 3-x": "'3-x' in --classes is neither a number nor a range",
    "sample dit-digits --classes 7-3": "runs backwards",
    "sample dit-digits --classes 1,,2": "unknown class ''; known: eight, five, four,",
    "sample dit-digits --steps -5": "steps must be 1 to 1000",
    "sample dit-digits --steps 0": "steps must be 1 to 1000",
    "sample dit-digits --steps 1001": "steps must be 1 to 1000",
    "sample dit-digits --steps many": "Invalid value for '--steps'",
    "sample dit-digits --batch 0": "batch must be 1 or more, not 0",
    "sample dit-digits --seed -1": "seed must be 0 to",
    "sample dit-digits --guidance nan": "guidance must be a finite number",
    "sample dit-digits --solver euler": "unknown solver 'euler'",
    "sample dit-digits --backend tensorflow": "unknown backend 'tensorflow'; did you mean tensorrt",
    "sample dit-digits --precision fp12": "unknown precision 'fp12'",
    "sample dit-digits --device tpu": "unknown device 'tpu'",
    "sample dit-digits --threads 0": "threads must be 1 or more",
    "sample dit-digits --out missing/x.png": "--out: there is no folder missing; create it",
    "sample dit-digits --out /proc/x.png": "--out: cannot write to /proc",
    "sample dit-digits --out x.docx": "x.docx is not a picture file",
    "sample dit-digits --save-latents missing/x.npy": "--save-latents: there is no folder missing",
    "sample dit-digits --save-latents x.pt": "--save-latents writes a .npy or .npz file",
    "sample ./nowhere": "no bundle at nowhere: there is no such folder",
    "sample .": "no bundle at .: it has no manifest.json",
    "sample": "Missing argument",
    "sampel dit-digits": "No such command 'sampel'",
    "parity dit-digits --backends torch": "--backends needs two or more",
    "parity dit-digits --backends torch,tf": "unknown backend 'tf'",
    "parity dit-digits --times 0": "must be 1 or more",
    "export onnx dit-digits": "Missing option '--out'",
    "export onnx dit-digits --out missing/bundle": "there is no folder missing",
    "export onnx dit-digits --out /proc/bundle": "cannot write to /proc",
    "export onnx nobody --out bundle": "unknown model 'nobody'",
    "demo --out missing/demo.png": "there is no folder missing",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_clear_line_and_status_2(typed: str, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(typed.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    assert BAD[typed] in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", ["missing", "changed", "truncated"])
def test_a_damaged_bundle_is_one_clear_line(bundle: Path, fault: str, capfd: pytest.CaptureFixture[str]) -> None:
    graph = bundle / "backbone.onnx"
    data = graph.read_bytes()
    graph.unlink()
    if fault != "missing":
        graph.write_bytes(data[:-1] + b"\x00" if fault == "changed" else data[:1000])
    assert run(["sample", str(bundle)]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert "backbone.onnx" in error
    assert "ditzoo export onnx dit-digits " in error
    assert f"--out {bundle} --overwrite" in error


def test_a_full_disk_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """/dev/full fails every write as a full disk does."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110
        pytest.skip("no /dev/full here")
    command = [sys.executable, "-m", "ditzoo", "list"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_sample_writes_a_sheet_and_latents(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    typed = f"sample dit-digits --backend {backend} --classes 0-3,9 --steps 3 --seed 5 --out a.png --save-latents a.npy"
    assert run(typed.split()) == 0
    out, err = capfd.readouterr()
    assert out.split() == ["a.png", "a.npy"]
    assert "5 images of dit-digits" in err
    card = ditzoo.card("dit-digits")
    latents = np.load("a.npy")
    with ditzoo.open_backend("torch", card) as reference:
        plan = ditzoo.make_plan(card, steps=3)
        expected = ditzoo.sample(reference, plan, classes=[0, 1, 2, 3, 9], seed=5)
    assert relative_l2(latents, expected) <= 1e-4
    sheet = ditzoo.contact_sheet(ditzoo.decode(card, latents), columns=5, captions=["0", "1", "2", "3", "9"])
    assert np.array_equal(picture("a.png"), np.asarray(sheet))


def test_batch_changes_no_picture() -> None:
    for batch in ("2", "5"):
        typed = f"sample uvit-digits --backend onnxruntime --classes 0-4 --steps 3 --batch {batch} --save-latents {batch}.npy"
        assert run(typed.split()) == 0
    assert np.abs(np.load("2.npy") - np.load("5.npy")).max() <= 1e-5


def test_sample_to_a_folder_writes_single_pictures(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "uvit-digits", "--classes", "3,1", *FAST, "--out", "digits/"]) == 0
    assert capfd.readouterr().out.split() == ["digits/0000-class3.png", "digits/0001-class1.png"]
    assert picture("digits/0000-class3.png").shape == (8, 8)


def test_sample_without_out_uses_the_models_name() -> None:
    assert run(["sample", "uvit-digits", *FAST]) == 0
    assert [path.name for path in Path().iterdir()] == ["uvit-digits.png"]


def test_sample_json(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "uvit-digits", "--classes", "7", *FAST, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told.pop("seconds") > 0
    assert told == {
        "model": "uvit-digits",
        "backend": "torch fp32 cpu",
        "solver": "dpmpp",
        "steps": 3,
        "seed": 0,
        "classes": [7],
        "files": ["uvit-digits.png"],
    }


def test_export_then_sample_the_bundle(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "onnx", "uvit-digits", "--out", "bundle"]) == 0
    out, err = capfd.readouterr()
    assert out == "bundle\n"
    assert "verified against torch" in err
    assert run(["sample", "bundle", *FAST, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["backend"] == "onnxruntime fp32 cpu"
    assert run(["export", "onnx", "uvit-digits", "--out", "bundle"]) == 0  # the same again: found
    assert run(["export", "onnx", "dit-digits", "--out", "bundle"]) == 2
    assert "--overwrite" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["dit-digits", "uvit-digits"])
def test_parity_of_the_embedded_models(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["parity", name, "--json"]) == 0
    (report,) = json.loads(capfd.readouterr().out)
    assert report["passed"] is True
    assert report["images"] == 10
    assert len(report["forward"]) == 5
    assert 0 < report["worst_forward"] <= 1e-5
    assert 0 < report["sample_relative_l2"] <= 1e-4
    assert report["psnr"] >= 60


def test_parity_beyond_its_tolerance_exits_with_1(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    from ditzoo.measure.parity import TOLERANCES
    from ditzoo.specs import Tolerance

    monkeypatch.setitem(TOLERANCES, "bf16", Tolerance(forward=1e-9, sample=1e-9, psnr=200.0))
    assert run(["parity", "uvit-digits", "--backends", "torch,torch:bf16", *FAST]) == 1
    assert "FAIL" in capfd.readouterr().out


def test_a_nan_fails_parity() -> None:
    from ditzoo.measure.parity import TOLERANCES, ForwardError, Report

    nan = float("nan")
    error = ForwardError(time=0.0, relative_l2=nan, max_abs=nan, cosine=nan, guided_relative_l2=nan)
    report = Report(
        model="m",
        reference="a",
        candidate="b",
        precision="fp32",
        solver="s",
        steps=1,
        images=1,
        forward=(error,),
        drift=(0.0,),
        psnr=None,
        ssim=1.0,
        tolerance=TOLERANCES["fp32"],
    )
    assert not report.passed


def test_list_and_info(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    assert "dit-digits" in capfd.readouterr().out
    assert run(["list", "--json"]) == 0
    assert {card["name"] for card in json.loads(capfd.readouterr().out)} >= {"dit-digits", "uvit-digits"}
    assert run(["info", "dit-digits"]) == 0
    assert "backbone.hidden_size" in capfd.readouterr().out
    assert run(["info", "dit-digits", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["backbone"]["kind"] == "dit"


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capfd.readouterr().out == f"{ditzoo.__version__}\n"
    assert run([]) == 0
    assert "Usage" in capfd.readouterr().out


@pytest.mark.parametrize(("typed", "model", "columns"), [("demo", "dit-icons", 12), ("demo uvit-digits", "uvit-digits", 10)])
def test_demo_draws_every_class_on_two_backends(
    typed: str, model: str, columns: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(typed.split()) == 0
    out, err = capfd.readouterr()
    assert out.count("pass") == 1
    assert out.count(model) == 1
    assert ("star" in err) == (model == "dit-icons")
    height, width = picture("demo.png").shape[:2]
    assert width > columns * 64
    assert height > 2 * 64

"""What `ditzoo sample` offers beyond a sheet of pictures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

import ditzoo
from ditzoo import zoo
from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.files import sha256
from ditzoo.pictures.png_metadata import read_request
from ditzoo.sampling.classes import choose_classes
from ditzoo.sampling.request import SampleRequest
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Embedded
from tests.support.golden import Golden
from tests.support.solvers_world import VP

DIT = ditzoo.card("dit-digits")
IMAGENET = msgspec.structs.replace(
    DIT,
    name="imagenet",
    classes="imagenet",
    null_label=1000,
    backbone=msgspec.structs.replace(DIT.backbone, num_classes=1000),
)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("golden retriever", [207]), ("Tench, goldfish,7", [0, 1, 7]), ("0-2,999", [0, 1, 2, 999])],
)
def test_classes_by_name(text: str, numbers: list[int]) -> None:
    assert choose_classes(IMAGENET, text) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("golden retreiver", "did you mean golden retriever"),
        ("cardigan", "the name of several classes; write one of"),
        ("", "unknown class ''"),
        ("5-1", "runs backwards"),
    ],
)
def test_wrong_names_of_classes(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose_classes(IMAGENET, text)


def test_num_lets_classes_take_turns(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "uvit-digits", "--classes", "3,5", "--num", "5", "--steps", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["classes"] == [3, 5, 3, 5, 3]


@pytest.mark.parametrize("solver", ["ddpm", "dpmpp-fast"])
def test_like_repeats_a_picture_from_its_file_alone(solver: str, capfd: pytest.CaptureFixture[str]) -> None:
    typed = (
        f"sample dit-digits --classes 0-4 --solver {solver} --steps 4 --guidance-interval 0.3,5 --seed 9 --out many --batch 2"
    )
    assert run(typed.split()) == 0
    capfd.readouterr()
    assert run(["sample", "--like", "many/0003-class3.png", "--out", "again"]) == 0
    out, err = capfd.readouterr()
    assert out == "again/0003-class3.png\n"
    assert "seed 9, image 3" in err
    assert np.array_equal(pixels("again/0003-class3.png"), pixels("many/0003-class3.png"))
    assert read_request(Path("again/0003-class3.png")) == read_request(Path("many/0003-class3.png"))


def test_like_repeats_a_sheet_on_another_backend() -> None:
    typed = "sample uvit-digits --classes 7,1 --num 4 --steps 3 --seed 2 --out a.png"
    assert run(typed.split()) == 0
    assert run(["sample", "--like", "a.png", "--backend", "onnxruntime", "--out", "b.png"]) == 0
    assert np.abs(pixels("a.png").astype(int) - pixels("b.png")).max() <= 1
    request = read_request(Path("a.png"))
    assert (request.model, request.seed, request.classes) == ("uvit-digits", 2, (7, 1, 7, 1))


def test_a_saved_plan_draws_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    asked = ["--solver", "dpm-fast", "--steps", "5", "--guidance", "2"]
    assert run(["plan", "save", "dit-digits", *asked, "--out", "p.json"]) == 0
    assert run(["sample", "dit-digits", "--plan", "p.json", "--out", "a.png"]) == 0
    assert run(["sample", "dit-digits", "--solver", "dpm-fast", "--steps", "5", "--guidance", "2", "--out", "b.png"]) == 0
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    capfd.readouterr()
    assert run(["plan", "show", "dit-digits", "--solver", "dpm-fast", "--steps", "5", "--json"]) == 0
    assert len(json.loads(capfd.readouterr().out)["rows"]) == 5
    assert run(["plan", "show", "dit-digits", "--steps", "3", "--guidance-interval", "0.1,1"]) == 0
    out, err = capfd.readouterr()
    assert "guidance" in out
    assert "exp ½" in out
    assert "ddpm" in err


def test_previews_and_animation(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "uvit-digits", "--steps", "6", "--preview", "2", "--animate", "way.webp", "--out", "p.png"]) == 0
    assert capfd.readouterr().out.split() == ["p.png", "p.step0002.png", "p.step0004.png", "way.webp"]
    assert pixels("p.step0002.png").shape == pixels("p.png").shape
    with Image.open("way.webp") as image:
        assert sum(1 for _ in ImageSequence.Iterator(image)) == 7


def test_unconditional_models_draw_any_number(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    golden = Golden("uvit_uncond_pixel")
    save_file(golden.group("weights."), "pixel.safetensors")
    monkeypatch.setattr("ditzoo.weights.local.ASSETS", Path.cwd())
    card = msgspec.structs.replace(
        VP,
        name="pixel",
        backbone=golden.config,
        weights=Embedded(file="pixel.safetensors", sha256=sha256(Path("pixel.safetensors"))),
        sampling=msgspec.structs.replace(VP.sampling, solver="euler-maruyama", steps=4, guidance=1.0, guided_channels=3),
        null_label=None,
        classes=None,
    )
    monkeypatch.setitem(zoo.CARDS, "pixel", card)
    assert run(["sample", "pixel", "--num", "3", "--out", "out", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["files"] == ["out/0000.png", "out/0001.png", "out/0002.png"]
    assert run(["sample", "--like", "out/0002.png", "--out", "again"]) == 0
    assert np.array_equal(pixels("again/0002.png"), pixels("out/0002.png"))
    capfd.readouterr()
    assert run(["sample", "pixel", "--classes", "3"]) == 2
    assert "pixel has no classes to choose from; say how many images (--num)" in capfd.readouterr().err
    assert run(["sample", "pixel", "--guidance", "2"]) == 2
    assert "no null label" in capfd.readouterr().err


BAD = {
    "sample dit-digits --num 0": "the number of images must be 1 or more, not 0",
    "sample dit-digits --plan p.json --steps 3": "--plan says it all",
    "sample dit-digits --plan missing.json": "cannot read the plan missing.json",
    "sample dit-digits --guidance-interval 3": "takes two noise levels like 0.28,2.9",
    "sample dit-digits --guidance-interval 3,1": "the lower one first",
    "sample dit-digits --animate a.png": "--animate writes a .webp or .gif file",
    "sample dit-digits --animate missing/a.webp": "--animate: there is no folder missing",
    "sample dit-digits --preview 0": "--preview takes a number of steps",
    "sample --like missing.png": "cannot read the picture missing.png",
    "sample --like plain.png": "does not say how it was made",
    "sample --like plain.png --steps 3": "leave out --steps",
    "sample --like wrong.png": "cannot be read",
    "sample dit-digits --prompt cat": "dit-digits takes no prompt",
    "plan show nobody": "unknown model 'nobody'",
    "plan show dit-digits --guided-channels 2": "guided channels must be 0 to 1",
    "plan save dit-digits --out plan.txt": "--out writes a .json file",
}


@pytest.mark.parametrize("typed", BAD)
def test_bad_input_is_one_clear_line(typed: str, capfd: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (2, 2)).save("plain.png")
    info = PngInfo()
    info.add_text("ditzoo", '{"model": "dit-digits"}', zip=True)
    Image.new("L", (2, 2)).save("wrong.png", pnginfo=info)
    assert run(typed.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert BAD[typed] in err


@given(seed=st.integers(0, 2**64 - 1), first=st.integers(0, 1000), classes=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_drawings_survive_their_own_parts(seed: int, first: int, classes: list[int]) -> None:
    plan = ditzoo.make_plan(DIT, solver="ddim", steps=2)
    request = SampleRequest(model="dit-digits", plan=plan, seed=seed, first=first, count=len(classes), classes=tuple(classes))
    for i, number in enumerate(classes):
        one = request.only(i)
        assert (one.first, one.count, one.classes, one.plan) == (first + i, 1, (number,), plan)
    assert msgspec.json.decode(msgspec.json.encode(request), type=SampleRequest) == request


def test_out_of_memory_names_the_batch_that_fits(tmp_path: Path) -> None:
    """In a process that may take only a little more memory than it has."""
    script = """
import re, resource, sys
import numpy as np, ditzoo
from ditzoo.cli import run
from ditzoo.cli import sample
from ditzoo.pictures import draw, writers
from ditzoo.measure import recording
with ditzoo.open_backend("torch", ditzoo.card("dit-digits")) as backend:
    ditzoo.sample(backend, ditzoo.make_plan(backend.card, steps=1), classes=range(10))
taken = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024
resource.setrlimit(resource.RLIMIT_AS, (taken + 200 * 2**20,) * 2)
sys.exit(run("sample dit-digits --steps 1 --num 20000 --out x.png".split()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: out of memory with a batch of 20000 on torch fp32 cpu: a batch of ")
    fits = int(done.stderr.rstrip().removesuffix(" fits").rpartition(" ")[2])
    assert 1 <= fits < 20000


@pytest.mark.parametrize(("precision", "status"), [("fp16", 2), ("bf16", 0)])
def test_half_precision_that_overflows_draws_no_picture(
    precision: str, status: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Activations of 1e5 are beyond fp16, which ends at 65504, and within bf16."""
    weights = load_file(weights_file(DIT))
    weights["blocks.0.mlp.fc1.bias"] = torch.full_like(weights["blocks.0.mlp.fc1.bias"], 1e5)
    weights["blocks.0.mlp.fc2.weight"] = weights["blocks.0.mlp.fc2.weight"] * 1e-3
    save_file(weights, tmp_path / "large.safetensors")
    monkeypatch.setattr("ditzoo.weights.local.ASSETS", tmp_path)
    source = Embedded(file="large.safetensors", sha256=sha256(tmp_path / "large.safetensors"))
    monkeypatch.setitem(zoo.CARDS, "large", msgspec.structs.replace(DIT, name="large", weights=source))
    typed = f"sample large --classes 3 --steps 2 --precision {precision} --out picture.png"
    assert run(typed.split()) == status
    assert Path("picture.png").exists() == (status == 0)
    if status:
        line = capfd.readouterr().err.splitlines()[-1]
        assert "torch fp16 cpu gave NaN or infinity in step 1 of 2, at time 999, image 0" in line
        assert "use --precision bf16" in line


def test_pictures_are_decoded_in_bf16() -> None:
    for decoding in ("fp32", "bf16"):
        assert (
            run(["sample", "dit-icons", "--classes", "0-3", "--steps", "4", "--decoding", decoding, "--out", f"{decoding}.png"])
            == 0
        )
    off = np.abs(pixels("bf16.png").astype(int) - pixels("fp32.png"))
    assert 0 < off.max() <= 24
    assert off.mean() <= 2
    with ditzoo.load("dit-icons", decoding="bf16") as in_half, ditzoo.load("dit-icons") as in_full:
        half, full = (np.asarray(model.sample(classes=[2], steps=4)[0]).astype(int) for model in (in_half, in_full))
    assert 0 < np.abs(half - full).max() <= 24


@pytest.mark.parametrize(
    ("decoding", "message"),
    [
        ("bf61", "unknown decoding 'bf61'; did you mean bf16?"),
        ("", "unknown decoding ''; known: bf16, fp32, tiles"),
        ("fp32,bf16", "one of fp32, bf16, and tiles, each once"),
        ("tiles,tiles", "each once"),
        ("bf16", "dit-digits denoises pixels and has no decoder"),
    ],
)
def test_wrong_ways_of_decoding(decoding: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "dit-digits", "--decoding", decoding]) == 2
    assert message in capfd.readouterr().err
    with pytest.raises(UsageError, match=re.escape(message)):
        ditzoo.load("dit-digits", decoding=decoding)


def test_latents_alone_are_not_decoded(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "dit-icons", "--save-latents", "x.npy", "--decoding", "bf16"]) == 2
    assert "writes no pictures; add --out, or leave out --decoding" in capfd.readouterr().err

"""Latents of other sizes than that of training: drawn, compared, measured and repeated, on torch and with bundles."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

import ditzoo
from ditzoo.bundle import Bundle, Engine
from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.manifests import FileRecord
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.operations import multiply_adds
from ditzoo.pictures.png_metadata import read_request
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import predictor, trajectory
from ditzoo.sampling.noise import gaussian
from ditzoo.sampling.request import make_request
from ditzoo.sampling.sizes import choose_size, sizes_of
from ditzoo.specs import Profile, Range
from ditzoo.zoo.sizes import parse_size
from ditzoo_export import cached_bundle, make_settings

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")
PLAN = make_plan(DIT, steps=3)
SIZE, CLASSES = (16, 24), [3, 1]


def bundle(resolution: str) -> Bundle:
    return cached_bundle(DIT, settings=make_settings(DIT, resolution=resolution))


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def expected() -> np.ndarray:
    """The images of CLASSES at SIZE: the loop on noise of that shape, with the network itself."""
    noise = [np.stack([gaussian(0, image, draw, (1, *SIZE)) for image in range(2)]) for draw in range(len(PLAN.rows) + 1)]
    with ditzoo.open_backend("torch", DIT) as backend:
        predict = predictor(backend, PLAN, class_condition(DIT, CLASSES))
        *_, last = trajectory(PLAN, predict, lambda draw: torch.from_numpy(noise[draw]))
    return last.numpy()


@pytest.mark.parametrize("split", [False, True])
def test_torch_draws_another_size(split: bool) -> None:
    with ditzoo.open_backend("torch", DIT, form="split" if split else None) as backend:
        drawn = ditzoo.sample(backend, PLAN, classes=CLASSES, size=SIZE)
        own = ditzoo.sample(backend, PLAN, classes=CLASSES)
    assert drawn.shape == (2, 1, 16, 24)
    assert own.shape == (2, 1, 8, 8)
    assert relative_l2(drawn, expected()) <= 1e-5


@pytest.mark.parametrize("resolution", ["16x24", "dynamic"])
def test_bundles_draw_what_torch_draws(resolution: str) -> None:
    with ditzoo.open_backend("onnxruntime", bundle(resolution)) as backend:
        drawn = ditzoo.sample(backend, PLAN, classes=CLASSES, size=None if resolution == "16x24" else SIZE)
    assert drawn.shape == (2, 1, 16, 24)
    assert relative_l2(drawn, expected()) <= 1e-4


def test_a_loaded_model_draws_at_a_resolution() -> None:
    values = np.clip(127.5 * expected() + 128, 0, 255).astype(int)[:, 0]
    for source in (DIT, bundle("dynamic")):
        with ditzoo.load(source) as model:
            images = model.sample(classes=CLASSES, steps=3, resolution="16x24")
            square = model.sample(classes=[0], steps=1, resolution=16)
        assert [image.size for image in images] == [(24, 16)] * 2
        assert square[0].size == (16, 16)
        assert (
            max(np.abs(np.asarray(image).astype(int) - value).max() for image, value in zip(images, values, strict=True)) <= 1
        )
    with ditzoo.load(bundle("16x24")) as model:
        assert model.sample(classes=[0], steps=1)[0].size == (24, 16)


def test_a_picture_says_its_size_and_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ["sample", str(bundle("16x24").path), "--classes", "3,1", "--steps", "3", "--out", "many"]
    assert run(typed) == 0
    assert read_request(Path("many/0001-class1.png")).size == SIZE
    assert run(["sample", "--like", "many/0001-class1.png", "--out", "again"]) == 0
    assert pixels("again/0001-class1.png").shape == SIZE
    assert np.abs(pixels("again/0001-class1.png") - pixels("many/0001-class1.png")).max() <= 1
    assert read_request(Path("again/0001-class1.png")) == read_request(Path("many/0001-class1.png"))
    assert run(["sample", "dit-digits", "--resolution", "16x24", "--classes", "3,1", "--steps", "3", "--out", "torch"]) == 0
    assert np.abs(pixels("torch/0001-class1.png") - pixels("many/0001-class1.png")).max() <= 1


def test_a_request_at_the_own_size_is_written_as_before() -> None:
    """Pictures that were drawn before there was a size are read, and pictures at the own size stay the same bytes."""
    fields = ["format", "model", "plan", "seed", "first", "count", "classes", "prompts"]
    request = make_request(DIT, PLAN, classes=[1], size=(8, 8))
    assert list(json.loads(msgspec.json.encode(request))) == fields
    assert request == make_request(DIT, PLAN, classes=[1])
    other = make_request(DIT, PLAN, classes=[1], size=SIZE)
    assert json.loads(msgspec.json.encode(other))["size"] == [16, 24]
    assert other.only(0).latent_size(DIT) == SIZE


def test_parity_at_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    fast = ["--steps", "3", "--classes", "3,1"]
    for model, resolution in ((bundle("16x24").path, []), (bundle("dynamic").path, ["--resolution", "16x24"])):
        assert run(["parity", str(model), *resolution, *fast, "--json"]) == 0
        (report,) = json.loads(capfd.readouterr().out)
        assert 0 < report["forward"][0]["relative_l2"] < 1e-5
    compared = ditzoo.parity("dit-digits", resolution="16x24", steps=3, classes=CLASSES).comparisons[0]
    assert compared.reference.shape == compared.candidate.shape == (2, 1, 16, 24)
    assert relative_l2(compared.reference, expected()) <= 1e-5
    typed = ["sample", "dit-digits", "--resolution", "16x24", *fast, "--save-latents", "it.npz"]
    assert run(typed) == 0
    assert run(["parity", "dit-digits", "--against", "it.npz"]) == 0
    assert run(["parity", "dit-digits", "--against", "it.npz", "--resolution", "8"]) == 2
    assert "states what was drawn; leave out --resolution" in capfd.readouterr().err


def test_diffusers_is_for_the_own_size(capfd: pytest.CaptureFixture[str]) -> None:
    typed = ["parity", "dit-digits", "--backends", "torch,diffusers", "--resolution", "16", "--steps", "1", "--classes", "1"]
    assert run(typed) == 2
    assert "diffusers fp32 cpu takes latents for 8x8 pixels, not for 16x16" in capfd.readouterr().err


def test_bench_at_another_size(capfd: pytest.CaptureFixture[str]) -> None:
    typed = ["bench", str(bundle("dynamic").path), "--resolution", "16", "--steps", "2", "--repeats", "1", "--json"]
    assert run(typed) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["multiply_adds"] == multiply_adds(msgspec.structs.replace(DIT.backbone, input_size=16))
    assert result["measurements"][1]["error"] < 1e-5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("15", "a resolution of 15 is no multiple of 2"),
        ("0x8", "no multiple"),
        ("8x34", "more than 4 times that of training; at most 32 pixels a side"),
        ("dynamic", "--resolution 'dynamic' is none; write 256 or 256x384"),
    ],
)
def test_sizes_that_no_network_has(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_size(DIT, text)


def test_sizes_that_a_model_or_a_bundle_has_not(capfd: pytest.CaptureFixture[str]) -> None:
    path = str(bundle("16x24").path)
    for model, message in {
        "uvit-digits": "uvit-digits learned the positions of 8x8 pixels; it takes no 16x16",
        path: f"the bundle {path} is for 16x24 pixels, not 16x16; `ditzoo export onnx dit-digits --resolution 16x16 --out DIR`",
    }.items():
        for command in (["sample", model, "--out", "x.png"], ["parity", model], ["bench", model]):
            assert run([*command, "--resolution", "16", "--steps", "1"]) == 2
            assert message in capfd.readouterr().err
    with ditzoo.load(DIT, backend="onnxruntime") as model, pytest.raises(UsageError, match="takes latents for 8x8 pixels, not"):
        model.sample(classes=[1], steps=1, resolution=16)


def test_engines_have_the_sizes_of_their_profiles() -> None:
    exported = bundle("dynamic")

    def engine(*sizes: tuple[int, int]) -> Engine:
        axes = [dict(zip(("batch", "height", "width"), (1, *size), strict=True)) for size in sizes]
        profiles = [Profile(axes={axis: Range(min=n, opt=n, max=n) for axis, n in each.items()}) for each in axes]
        graph = exported.manifest.graphs["backbone"]
        return Engine(
            file="backbone.engine",
            graph="backbone",
            flavour="tensorrt_rtx",
            version="1.7",
            gpus=("sm89",),
            precision="fp32",
            profiles=tuple(profiles),
            options=(),
            inputs=graph.inputs,
            outputs=graph.outputs,
            seconds=0,
        )

    def engines(*each: Engine) -> Bundle:
        named = {str(i): engine for i, engine in enumerate(each)}
        files = {engine.file: FileRecord(size=0, sha256="") for engine in each}
        manifest = msgspec.structs.replace(exported.manifest, graphs={}, engines=named, files=files)
        return msgspec.structs.replace(exported, manifest=manifest)

    assert sizes_of(exported) is None
    assert sizes_of(engines(engine((16, 24)), engine((8, 8), (16, 24)))) == [(16, 24), (8, 8)]
    assert choose_size(engines(engine((16, 24), (8, 8))), None) == (8, 8)
    assert choose_size(engines(engine((16, 24), (12, 12))), None) == (16, 24)
    with pytest.raises(UsageError, match="is for 16x24, 12x12 pixels, not 8x8"):
        choose_size(engines(engine((16, 24), (12, 12))), 8)

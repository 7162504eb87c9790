"""A bundle stands alone: its decoder, plan and text encoder are used, and no torch where the backends need none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

import ditzoo
from ditzoo import zoo
from ditzoo.backends import cuda, gpus, graphs
from ditzoo.bundle import MANIFEST, PLAN, Bundle, open_bundle
from ditzoo.cli import run
from ditzoo.manifests import record_file
from ditzoo.measure.metrics import relative_l2
from ditzoo.pictures import autoencoders, decode
from ditzoo.pictures.decoding import WHOLE
from ditzoo.pictures.text_encoder import prompt_condition
from ditzoo.plan.make import make_plan
from ditzoo.records import to_json
from ditzoo.zoo.card import Card
from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings
from ditzoo_export.artifacts import engine_key, made_by, onnx_key, sources
from tests.support.latents_models import latents_dit, text_to_image
from tests.test_architecture import MODULES, imports

ROOT = Path(__file__).parents[2]
ARCHITECTURES = ["AutoencoderKL", "AutoencoderDC"]

pytestmark = pytest.mark.filterwarnings("ignore")  # of diffusers and transformers, as they load


@pytest.fixture(params=ARCHITECTURES)
def card(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    autoencoders.load.cache_clear()
    return latents_dit(tmp_path, monkeypatch, architecture=request.param)


@pytest.fixture
def latents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    autoencoders.load.cache_clear()
    monkeypatch.chdir(tmp_path)
    return latents_dit(tmp_path, monkeypatch)


def exported(card: Card, resolution: str | None = None) -> Bundle:
    return cached_bundle(card, settings=make_settings(card, resolution=resolution))


def test_the_decoder_of_a_bundle_is_for_its_size(card: Card) -> None:
    """Latents of 16x24 are images of 64x96, which is what the bundle is exported for."""
    bundle = exported(card, "64x96")
    decoder = bundle.manifest.graphs["decoder"]
    assert decoder.inputs[0].shape == ("batch", 4, 16, 24)
    assert decoder.outputs[0].shape == ("batch", 3, 64, 96)
    values = 0.2301 * np.random.default_rng(1).standard_normal((2, 4, 16, 24)).astype(np.float32)
    images = decode.open_decoder(bundle)(values)
    assert images.shape == (2, 3, 64, 96)
    assert relative_l2(images, decode.open_decoder(card)(values)) <= 1e-5


def test_the_decoder_of_a_dynamic_bundle_takes_any_size(card: Card) -> None:
    bundle = exported(card, "dynamic")
    assert bundle.manifest.graphs["decoder"].inputs[0].shape == ("batch", 4, "height", "width")
    theirs, ours = decode.open_decoder(card), decode.open_decoder(bundle)
    for height, width in ((8, 8), (16, 24), (10, 32)):
        values = 0.2301 * np.random.default_rng(width).standard_normal((1, 4, height, width)).astype(np.float32)
        assert relative_l2(ours(values), theirs(values)) <= 1e-5


def test_a_decoder_that_takes_one_size_says_so(latents: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that cannot be exported for any size is exported for the size of training."""

    class Fixed(autoencoders.LatentDecoder):
        def forward(self, latents: Any) -> Any:
            if latents.shape[3] != 8:
                raise ValueError("this decoder has learned positions")
            return super().forward(latents)

    load = autoencoders.load
    net = Fixed(load(latents, WHOLE).autoencoder, latents.decoder).eval()  # type: ignore[arg-type]
    monkeypatch.setattr(autoencoders, "load", lambda card, decoding: net)
    card = msgspec.structs.replace(latents, summary="one size")
    bundle = exported(card, "dynamic")
    assert bundle.manifest.graphs["backbone"].inputs[0].shape == ("batch", 4, "height", "width")
    assert bundle.manifest.graphs["decoder"].inputs[0].shape == ("batch", 4, 8, 8)
    with pytest.raises(ditzoo.DitzooError, match=r"does not take these latents: expected latents: .*4, 8, 8.*16, 24"):
        decode.open_decoder(bundle)(np.zeros((1, 4, 16, 24), np.float32))


def with_plan(bundle: Bundle, folder: Path, **settings: Any) -> Path:
    """A copy of a bundle with another plan."""
    shutil.copytree(bundle.path, folder)
    (folder / PLAN).write_bytes(make_plan(bundle.card, **settings).to_json())
    manifest = msgspec.structs.replace(bundle.manifest, files={**bundle.manifest.files, PLAN: record_file(folder / PLAN)})
    (folder / MANIFEST).write_bytes(to_json(manifest))
    return folder


def test_the_plan_of_a_bundle_is_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    card = ditzoo.card("dit-digits")
    folder = with_plan(exported(card), tmp_path / "b", solver="ddim", steps=3, guidance=1.5)
    assert run(["sample", str(folder), "--classes", "1", "--save-latents", "a.npy", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["solver"], told["steps"], told["files"]) == ("ddim", 3, ["a.npy"])
    with ditzoo.open_backend("onnxruntime", folder) as backend:
        expected = ditzoo.sample(backend, make_plan(card, solver="ddim", steps=3, guidance=1.5), classes=[1])
    np.testing.assert_array_equal(np.load("a.npy"), expected)
    (comparison,) = ditzoo.parity(folder, classes=[1], backends="onnxruntime,onnxruntime:cpu").comparisons
    assert (comparison.report.solver, comparison.report.steps) == ("ddim", 3)
    assert run(["bench", str(folder), "--backends", "onnxruntime", "--repeats", "1", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["steps"] == 3
    done: list[int] = []
    with ditzoo.load(folder) as model:
        model.sample(classes=[1], callback=lambda step: done.append(step.done))
        model.sample(classes=[1], steps=2, callback=lambda step: done.append(step.done))
    assert done == [1, 2, 3, 1, 2]


def test_a_bundle_needs_no_torch(latents: Card) -> None:
    """Sampling, parity and a benchmark in a process where torch, diffusers and transformers cannot be imported."""
    folder = str(exported(latents).path)
    fast = ["--steps", "2"]
    commands = [
        ["sample", folder, *fast, "--classes", "1,2", "--out", "x.png"],
        ["parity", folder, *fast, "--classes", "1", "--backends", "onnxruntime,onnxruntime:cpu"],
        ["bench", folder, *fast, "--backends", "onnxruntime", "--repeats", "1"],
    ]
    program = (
        "import sys\nfor name in ('torch', 'diffusers', 'transformers', 'onnx'): sys.modules[name] = None\n"
        f"from ditzoo.cli import run\nsys.exit(max(run(typed) for typed in {commands!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path("x.png").is_file()


@pytest.mark.parametrize("html", [False, True])
def test_a_command_opens_one_decoder(latents: Card, html: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opened = str(exported(latents).path), list[str]()
    load_graph = decode.load_graph

    def count(bundle: Bundle, name: str, *, device: Any) -> graphs.Run:
        opened.append(name)
        return load_graph(bundle, name, device=device)

    def refuse(card: Card) -> None:
        raise AssertionError("torch's decoder was loaded")

    monkeypatch.setattr(decode, "load_graph", count)
    monkeypatch.setattr(autoencoders, "load", refuse)
    compared = ["--backends", "torch,onnxruntime,onnxruntime:cpu", *(["--html", "r.html"] if html else [])]
    assert run(["parity", folder, "--steps", "2", "--classes", "1", *compared]) == 0
    assert opened == ["decoder"]
    if not html:
        assert (
            run(["sample", folder, "--steps", "2", "--batch", "1", "--preview", "1", "--classes", "1,2", "--out", "x.png"]) == 0
        )
        assert opened == ["decoder"] * 2


def test_latents_are_saved_without_a_decoder(
    latents: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(zoo.CARDS, latents.name, latents)
    shutil.rmtree(tmp_path / "vae")
    typed = ["sample", latents.name, "--steps", "2", "--classes", "1", "--save-latents", "a.npz"]
    assert run(typed) == 0
    assert capfd.readouterr().out == "a.npz\n"
    assert np.load("a.npz")["latents"].shape == (1, 4, 8, 8)
    assert run([*typed, "--out", "x.png"]) == 2
    assert "decoder" in capfd.readouterr().err


def test_decoder_and_text_encoder_run_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, latents: Card) -> None:
    """Where ONNX Runtime has CUDA. The device that is asked for is recorded; it runs on the CPU here."""
    asked: list[tuple[str, str]] = []
    load_graph = graphs.load_graph

    def record(bundle: Bundle, name: str, *, device: Any = "cpu") -> graphs.Run:
        asked.append((name, device))
        return load_graph(bundle, name)

    for module in ("decode", "text_encoder"):
        monkeypatch.setattr(f"ditzoo.pictures.{module}.load_graph", record)
    bundle = exported(latents)
    opened = ditzoo.open_backend("onnxruntime", bundle)
    with ditzoo.Model(bundle, opened, device="cuda") as model:
        model.sample(classes=[1], steps=1)
    text = exported(text_to_image(tmp_path, monkeypatch))
    prompt_condition(text, [f"a prompt of {tmp_path}"], device="cuda")
    assert asked == [("decoder", "cuda"), ("text_encoder", "cuda")]


def test_graphs_run_where_onnx_runtime_can(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import onnxruntime as ort

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert graphs.graph_device("cpu") == "cpu"
    assert not caplog.messages
    assert graphs.graph_device("cuda") == "cpu"
    assert caplog.messages == ["this ONNX Runtime has no CUDAExecutionProvider: decoder and text encoder run on the CPU"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert graphs.graph_device("cuda") == graphs.graph_device("tensorrt_rtx") == "cuda"
    monkeypatch.setattr(gpus, "gpu_count", lambda: 2)
    assert graphs.graph_device("tensorrt:1") == "cuda:1"


def test_the_key_covers_the_decoder(latents: Card, tmp_path: Path) -> None:
    settings = make_settings(latents)
    first = onnx_key(latents, settings)
    assert onnx_key(latents, settings) == first
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert onnx_key(latents, settings) != first
    assert {"diffusers", "onnx-ir"} <= set(made_by(latents))
    assert "transformers" not in made_by(latents)


def test_the_key_covers_the_text_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = text_to_image(tmp_path, monkeypatch)
    first = onnx_key(card, make_settings(card))
    (tmp_path / "clip" / "config.json").write_text((tmp_path / "clip" / "config.json").read_text() + " ")
    assert onnx_key(card, make_settings(card)) != first
    assert {"transformers", "tokenizers"} <= set(made_by(card))


def test_the_key_covers_all_code_that_an_export_can_run() -> None:
    """Every module that the exporter imports, directly or through others. (`ditzoo` itself holds no code but names.)"""
    found, coming = set[str](), {name for name in MODULES if name.startswith("ditzoo_export")}
    while coming:
        found |= coming
        coming = {name for module in coming for name in imports(MODULES[module])} - found - {"ditzoo"}
    hashed = {path.resolve() for path in sources()}
    assert {
        "ditzoo.solvers.schedules",
        "ditzoo.measure.parity",
        "ditzoo.sampling.loop",
        "ditzoo.pictures.autoencoders",
    } <= found
    assert {MODULES[name].resolve() for name in found} <= hashed


def test_the_key_of_engines_names_the_gpu_that_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    card, keys = ditzoo.card("dit-digits"), {}
    for gpu in ("sm89", "sm120"):
        monkeypatch.setattr(cuda, "gpu", lambda gpu=gpu: gpu)
        keys[gpu] = engine_key(card, make_engine_settings(card))
        assert keys[gpu] == engine_key(card, make_engine_settings(card, gpu=gpu))
    assert keys["sm89"] != keys["sm120"]
    monkeypatch.setattr(cuda, "gpu", lambda: None)
    with pytest.raises(ditzoo.DitzooError, match="--gpu current: this machine has no GPU"):
        engine_key(card, make_engine_settings(card))


def test_engines_bring_their_decoder(latents: Card) -> None:
    settings = make_engine_settings(latents, gpu="sm89", resolution="64x96", precision="fp32", batch="2")
    bundle = open_bundle(cached_engines(latents, settings=settings).path)
    assert list(bundle.manifest.graphs) == ["decoder"]
    assert "Attention" not in {node.op_type for node in onnx.load(bundle.path / "decoder.onnx").graph.node}  # it is in fp32
    assert {"decoder.onnx", "decoder.onnx.data", "plan.json"} <= set(bundle.manifest.files)
    values = 0.2301 * np.random.default_rng(1).standard_normal((1, 4, 16, 24)).astype(np.float32)
    assert relative_l2(decode.open_decoder(bundle)(values), decode.open_decoder(latents)(values)) <= 1e-5

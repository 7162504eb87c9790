"""The client in C++ draws what Python draws, and says in one line what is wrong with a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import ditzoo
from ditzoo.bundle import Bundle, Graph
from ditzoo.cli import run
from ditzoo.measure.metrics import relative_l2
from ditzoo.pictures import autoencoders
from ditzoo.plan.table import Plan, Row
from ditzoo.sampling.loop import trajectory
from ditzoo.sampling.noise import noise_of
from ditzoo.specs import TensorSpec
from ditzoo.zoo.sizes import parse_size
from ditzoo_export import cached_bundle, make_settings
from tests.support.cpp_client import built_client, commands
from tests.support.export_models import TINY_UVIT, random_model
from tests.support.latents_models import latents_dit

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")
SEED, LIMIT = 2**64 - 1, 1e-5


@pytest.fixture(scope="session")
def program() -> Path:
    return built_client()


def draw(program: Path, bundle: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    words = [program, bundle, "--threads", "1", *options]
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


def latents(program: Path, bundle: Path, folder: Path, *options: str | Path) -> np.ndarray:
    """The latents that the client draws under `SEED`."""
    done = draw(program, bundle, "--seed", str(SEED), "--latents", folder / "latents.npy", *options)
    assert (done.returncode, done.stderr) == (0, "")
    return np.load(folder / "latents.npy")


@pytest.mark.parametrize("card", [DIT, UVIT], ids=lambda card: card.name)
@pytest.mark.parametrize(
    ("solver", "settings"),
    [
        ("ddpm", {"steps": 5, "guidance_interval": (0.5, 3.0)}),  # learned variance, where the network has one
        ("ddim:eta=0.7", {"steps": 6, "guidance": 1.0}),
        ("dpmpp:order=3", {"steps": 7, "guidance": 4.0}),
        ("diffusers:PNDMScheduler", {"steps": 20}),
        ("dpmpp", {"steps": 8, "guidance_every": 3}),
    ],
)
def test_latents_are_those_of_python(
    card: ditzoo.Card, solver: str, settings: dict[str, Any], program: Path, tmp_path: Path
) -> None:
    bundle = cached_bundle(card)
    plan = ditzoo.make_plan(card, solver=solver, **settings)
    plan.save(tmp_path / "plan.json")
    drawn = latents(program, bundle.path, tmp_path, "--plan", tmp_path / "plan.json", "--classes", "9,0-2,2")
    with ditzoo.open_backend("onnxruntime", bundle) as backend:
        expected = ditzoo.sample(backend, plan, classes="9,0-2,2", seed=SEED)
    assert (drawn.shape, drawn.dtype) == (expected.shape, np.float32)
    assert relative_l2(drawn, expected) <= LIMIT


def test_the_commands_of_the_page_draw_what_the_command_line_draws(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eleven pictures, in two rows, are the same too. The client writes no names of classes above them."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cached_bundle(DIT).path, "digits-bundle")
    Path("build").symlink_to(program.parent)
    done = subprocess.run(commands()[-1], shell=True, capture_output=True, text=True)  # noqa: S602
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    python = ["sample", "digits-bundle", "--seed", "3", "--save-latents", "python.npy"]
    assert run([*python, "--classes", "0-9"]) == 0
    ditzoo.contact_sheet(ditzoo.decode(DIT, np.load("python.npy")), columns=10).save("python.png")
    assert_same_picture("digits.png", "python.png")
    assert relative_l2(np.load("digits.npy"), np.load("python.npy")) <= LIMIT
    assert run([*python, "--classes", "0-9,3"]) == 0
    ditzoo.contact_sheet(ditzoo.decode(DIT, np.load("python.npy")), columns=10).save("python.png")
    assert draw(program, Path("digits-bundle"), "--classes", "0-9,3", "--seed", "3", "--out", "eleven.png").returncode == 0
    assert_same_picture("eleven.png", "python.png")


def assert_same_picture(path: str | Path, expected: str | Path) -> None:
    """The two files have the same mode and size, and no pixel differs by more than one level."""
    with Image.open(path) as found, Image.open(expected) as wanted:
        assert (found.mode, found.size) == (wanted.mode, wanted.size)
        assert np.abs(np.asarray(found).astype(int) - np.asarray(wanted)).max() <= 1


@pytest.mark.filterwarnings("ignore")  # of diffusers, as it loads
def test_a_decoder_makes_the_picture(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoders.load.cache_clear()
    bundle = cached_bundle(latents_dit(tmp_path, monkeypatch))
    drawn = latents(program, bundle.path, tmp_path, "--classes", "1,7", "--out", tmp_path / "decoded.png")
    ditzoo.contact_sheet(ditzoo.decode(bundle, drawn), columns=2).save(tmp_path / "expected.png")
    assert_same_picture(tmp_path / "decoded.png", tmp_path / "expected.png")


def reusing() -> Bundle:
    card, net = random_model(msgspec.structs.replace(TINY_UVIT, depth=4))
    return cached_bundle(card, settings=make_settings(card, reuse="blocks=1"), net=net)


def test_a_plan_with_reuse_takes_the_second_graph(program: Path, tmp_path: Path) -> None:
    bundle = reusing()
    plan = ditzoo.make_plan(bundle.card, solver="dpmpp", steps=7, guidance_interval=(0.0, 2.0), reuse="every=3,blocks=1")
    plan.save(tmp_path / "plan.json")
    drawn = latents(program, bundle.path, tmp_path, "--plan", tmp_path / "plan.json", "--classes", "1,2")
    with ditzoo.open_backend("onnxruntime", bundle) as backend:
        expected = ditzoo.sample(backend, plan, classes=[1, 2], seed=SEED)
    assert relative_l2(drawn, expected) <= LIMIT


def test_a_bundle_of_any_size_takes_a_size(program: Path, tmp_path: Path) -> None:
    bundle = cached_bundle(DIT, settings=make_settings(DIT, resolution="dynamic"))
    ditzoo.make_plan(DIT, steps=3).save(tmp_path / "plan.json")
    options = ("--plan", tmp_path / "plan.json", "--classes", "3")
    drawn = latents(program, bundle.path, tmp_path, *options, "--size", "16x24")
    with ditzoo.open_backend("onnxruntime", bundle) as backend:
        plan, size = ditzoo.make_plan(DIT, steps=3), parse_size(DIT, "16x24")
        assert relative_l2(drawn, ditzoo.sample(backend, plan, classes=[3], seed=SEED, size=size)) <= LIMIT
    done = draw(program, bundle.path, *options, "--latents", tmp_path / "no.npy")
    assert (done.returncode, done.stderr) == (2, "ditzoo-client: the bundle takes any size, so choose one with --size HxW\n")


def without_classes(folder: Path) -> Path:
    """A bundle whose network takes no labels. Its prediction is tanh(x)."""
    shape = ["batch", 4, 8, 8]
    x, prediction = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "prediction"))
    t = helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["prediction"])], "backbone", [x, t], [prediction])
    folder.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "backbone.onnx")
    network = Graph(
        file="backbone.onnx",
        precision="fp32",
        opset=20,
        inputs=(TensorSpec(name="x", shape=tuple(shape)), TensorSpec(name="t", shape=("batch",))),
        outputs=(TensorSpec(name="prediction", shape=tuple(shape)),),
    )
    card = {"null_label": None, "decoder": {"kind": "pixels"}}
    size = (folder / "backbone.onnx").stat().st_size
    manifest = {"model": "tanh", "graphs": {"backbone": network}, "files": {"backbone.onnx": {"size": size}}}
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "manifest.json").write_bytes(msgspec.json.encode({"format": "ditzoo-bundle/2", **manifest}))
    return folder


def test_a_model_without_classes_draws_a_count(program: Path, tmp_path: Path) -> None:
    row = Row(time=0.5, guidance=2.0, states=(0.9,), predictions=(-0.4,), noise=0.3)
    last = Row(time=0.25, guidance=2.0, states=(0.5, 0.2), predictions=(0.0, 0.1))
    plan = Plan(solver="by hand", channels=4, guided_channels=4, initial=1.5, rows=(row, last))
    bundle = without_classes(tmp_path / "tanh")
    plan.save(bundle / "plan.json")
    drawn = latents(program, bundle, tmp_path, "--count", "3")
    *_, expected = trajectory(plan, lambda x, row: np.tanh(x), noise_of(SEED, range(3), (4, 8, 8)))
    assert relative_l2(drawn, expected) <= LIMIT
    done = draw(program, bundle, "--out", tmp_path / "no.png")
    assert (done.returncode, "a PNG has 1 or 3 channels, not 4" in done.stderr) == (2, True)
    done = draw(program, bundle, "--out", tmp_path / "no.png", "--classes", "1")
    assert (done.returncode, done.stderr) == (2, "ditzoo-client: tanh has no classes; use --count\n")


def edit(name: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    """Changes a record of a bundle, and its size in the manifest."""

    def damage(bundle: Path) -> None:
        record = json.loads((bundle / name).read_text())
        change(record)
        (bundle / name).write_text(json.dumps(record))
        if name != "manifest.json":
            edit("manifest.json", lambda manifest: manifest["files"][name].update(size=(bundle / name).stat().st_size))(bundle)

    return damage


def overwrite(name: str) -> Callable[[Path], None]:
    """Puts zeros in place of the bytes of a file, whose size stays."""

    def damage(bundle: Path) -> None:
        (bundle / name).write_bytes(bytes((bundle / name).stat().st_size))

    return damage


manifest, plan, card = (partial(edit, f"{name}.json") for name in ("manifest", "plan", "card"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "cannot read BUNDLE/manifest.json: No such file or directory"),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), "BUNDLE/manifest.json is not JSON"),
        (
            lambda bundle: (bundle / "backbone.onnx.data").write_bytes(b""),
            "BUNDLE/backbone.onnx.data has 0 bytes, but",
        ),
        (lambda bundle: (bundle / "backbone.onnx").unlink(), "cannot read BUNDLE/backbone.onnx: No such file or directory"),
        (overwrite("backbone.onnx"), "ONNX Runtime cannot load BUNDLE/backbone.onnx: "),
        (
            manifest(lambda it: it.update(format="ditzoo-bundle/3")),
            'format is "ditzoo-bundle/3", but this client reads',
        ),
        (
            manifest(lambda it: it["files"].update({"../x": {"size": 1}})),
            "files.../x is not the name of a file in",
        ),
        (manifest(lambda it: it["graphs"].pop("backbone")), "BUNDLE has no ONNX graph of the network"),
        (
            manifest(lambda it: it["graphs"]["backbone"].update(file="other.onnx")),
            "graphs.backbone.file is not one of the files of the manifest",
        ),
        (plan(lambda it: it.update(format="ditzoo-plan/2")), 'plan.json: format is "ditzoo-plan/2"'),
        (plan(lambda it: it.update(rows=[])), "plan.json: rows is empty"),
        (plan(lambda it: it["rows"][1].update(newer=1)), "plan.json: rows[1].newer is unknown to this client"),
        (plan(lambda it: it.update(newer=1)), "plan.json: newer is unknown to this client"),
        (
            plan(lambda it: it["rows"][0].update(difference="reuse")),
            "rows reuse the difference of the conditions, but no row before",
        ),
        (plan(lambda it: it["rows"][1].pop("time")), "plan.json: rows[1].time is missing"),
        (plan(lambda it: it["rows"][0].update(states=[1, 1])), "rows[0] looks back further than there are states"),
        (plan(lambda it: it["rows"][2].update(noise="1")), "plan.json: rows[2].noise is not a finite number"),
        (
            plan(lambda it: it.update(channels=2)),
            "the plan is for 2 channels, and BUNDLE/backbone.onnx has others",
        ),
        (plan(lambda it: it.update(channels=10**30)), "channels is not a whole number from 1 to 1000000"),
        (plan(lambda it: it.update(outer_blocks=1)), "export it with --reuse blocks=1"),
        (
            plan(lambda it: it["rows"][0].update(evaluation="reuse")),
            "rows reuse the middle blocks, but no row before",
        ),
        (card(lambda it: it.update(null_label=1.5)), "card.json: null_label is not a whole number"),
        (card(lambda it: it.pop("decoder")), "card.json: decoder is missing"),
    ],
)
def test_a_bad_bundle_is_one_clear_line(damage: Callable[[Path], None], message: str, program: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(cached_bundle(DIT).path, tmp_path / "bundle")
    damage(bundle)
    done = draw(program, bundle, "--classes", "1", "--latents", tmp_path / "latents.npy")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert message.replace("BUNDLE", str(bundle)) in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", "nothing to write: add --out or --latents"),
        ("--latents l.npy", "choose --classes from 0 to 9, such as 0,1"),
        ("--latents l.npy --classes 10", "--classes: '10' is not a whole number from 0 to 9"),
        ("--latents l.npy --classes 5-3", "--classes: '3' is not a whole number from 5 to 9"),
        ("--latents l.npy --classes 1,,2", "--classes: '' is not a whole number from 0 to 9"),
        ("--latents l.npy --classes 1 --seed -1", "--seed: '-1' is not a whole number from 0 to 18446744073709551615"),
        ("--latents l.npy --classes 1 --size 8", "--size: write height x width, such as 32x32"),
        ("--latents l.npy --classes 1 --size 8x16", "--size: the bundle takes 8x8"),
        ("--latents l.npy --classes 1 --plan no.json", "cannot read no.json: No such file or directory"),
        ("--latents no/l.npy --classes 1", "cannot write no/l.npy"),
        ("--out no/l.png --classes 1", "cannot write no/l.png: No such file or directory"),
        ("--latens l.npy --classes 1", "--latens is unknown or lacks its value; see --help"),
        ("more --latents l.npy --classes 1", "name one bundle; see --help"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    options: str, message: str, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = draw(program, cached_bundle(DIT).path, *options.split())
    assert (done.returncode, done.stderr) == (2, f"ditzoo-client: {message}\n")


def test_numbers_that_are_not_finite_are_an_error(program: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(cached_bundle(DIT).path, tmp_path / "bundle")
    plan(lambda it: it["rows"][1].update(states=[1e308, 0]))(bundle)
    done = draw(program, bundle, "--classes", "1", "--latents", tmp_path / "latents.npy")
    assert (done.returncode, done.stderr) == (1, "ditzoo-client: NaN or infinity after row 2 of the plan of dit-digits\n")

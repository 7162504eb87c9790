"""Recipes, and the client that needs nothing of ours."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import typer

import ditzoo
from ditzoo.cli import run
from ditzoo.cli.app import app
from ditzoo.measure.metrics import relative_l2
from ditzoo.recipes import Outcome, Recipe, needed_files, outcomes, record_outcome, reproduction, run_recipe
from ditzoo.zoo.card import Unreleased
from ditzoo_export import cached_bundle

RECIPES = Path(__file__).parents[2] / "recipes"
RELEASED = [card for card in ditzoo.CARDS.values() if not isinstance(card.weights, Unreleased)]
WRITTEN = msgspec.toml.decode((RECIPES / "dit-digits.toml").read_bytes(), type=Recipe)
SMALL = """
model = "dit-digits"
[[steps]]
name = "list"
command = ["list"]
[[steps]]
name = "sample"
command = ["sample", "dit-digits", "--classes", "CLASSES", "--steps", "2"]
[[steps]]
name = "version"
command = ["info", "dit-digits"]
[expected]
fid = 1.5
images = 10
settings = "none"
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(SMALL.replace("CLASSES", "0-3"))
    return path


@pytest.mark.parametrize("card", RELEASED, ids=lambda card: card.name)
def test_every_released_model_has_a_recipe_with_the_settings_of_its_card(card: ditzoo.Card) -> None:
    recipe = reproduction(card)
    assert recipe.model == card.name
    assert all(card.name in step.command for step in recipe.steps if step.name not in ("pack", "evaluate"))
    (sample,) = [step.command for step in recipe.steps if step.name == "sample"]
    options = dict(zip(sample[2::2], sample[3::2], strict=True))
    assert (options["--solver"], options["--steps"]) == (card.sampling.solver, str(card.sampling.steps))
    assert float(options.get("--guidance", 1)) == card.sampling.guidance
    assert ("--prompts" in options, "--labels" in options) == (card.text is not None, card.number_of_classes > 0)
    if card.published is not None:
        assert recipe.expected is not None
        assert (recipe.expected.fid, options["--num"]) == (card.published.fid, str(card.published.images))


@pytest.mark.parametrize(
    ("name", "getting", "files"),
    [
        ("dit-xl-2-256", ("pull", "dit-xl-2-256"), ["reference.npz"]),
        (
            "uvit-h-2-256",
            ("import", "uvit-h-2-256", "imagenet256_uvit_huge.pth"),
            ["imagenet256_uvit_huge.pth", "reference.npz"],
        ),
        (
            "uvit-s-2-coco",
            ("import", "uvit-s-2-coco", "mscoco_uvit_small.pth"),
            ["mscoco_uvit_small.pth", "captions.txt", "reference.npz"],
        ),
        ("dit-digits", ("export", "onnx", "dit-digits", "--out", "bundle", "--overwrite"), []),
    ],
)
def test_the_first_step_gets_the_weights(name: str, getting: tuple[str, ...], files: list[str]) -> None:
    assert reproduction(ditzoo.card(name)).steps[0].command == getting
    assert list(needed_files(ditzoo.card(name))) == files


def test_reproducing_names_the_files_that_it_needs_and_can_go_on(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "reproduce", "uvit-h-2-256"]) == 1
    out, err = capfd.readouterr()
    assert "put imagenet256_uvit_huge.pth into runs/uvit-h-2-256 first; it is at the Google Drive folder" in err
    assert "expected: FID 2.29 over 50,000 images" in err
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["pull", "failed"], ["export", "not"]]
    record = json.loads(Path("runs/uvit-h-2-256/run.json").read_text())
    assert list(record) == ["pull"]
    assert "there is no file imagenet256_uvit_huge.pth" in Path("runs/uvit-h-2-256/pull.log").read_text()


@pytest.mark.slow
def test_reproducing_an_embedded_model_ends_with_its_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The steps that draw, pack and score; its own card says which figure the recipe of the digits measured."""
    monkeypatch.chdir(tmp_path)
    recipe = reproduction(ditzoo.card("uvit-digits"))
    assert [step.name for step in recipe.steps] == ["export", "parity", "sample", "pack", "evaluate"]
    for step in ("sample", "pack", "evaluate"):
        assert run(["run", "reproduce", "uvit-digits", "--only", step]) == 0
    out = capfd.readouterr().out
    scores = json.loads(Path("runs/uvit-digits/evaluation.json").read_text())
    assert [f"{scores['fid']:.4g}", "1,000"] in [line.split()[1:3] for line in out.splitlines()]
    assert scores["read"] >= 0.98
    assert np.load("runs/uvit-digits/samples.npz")["arr_0"].shape == (1000, 8, 8, 3)


@pytest.mark.slow
def test_the_recipe_of_the_digits_runs_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["run", str(RECIPES / "dit-digits.toml")]) == 0
    told = capfd.readouterr()
    assert told.out.count("done") == 3
    record = json.loads(Path("runs/dit-digits/run.json").read_text())
    assert [(name, outcome["status"]) for name, outcome in record.items()] == [("export", 0), ("parity", 0), ("sample", 0)]
    assert len(list(Path("runs/dit-digits/samples").glob("*.png"))) == 20
    assert "pass" in Path("runs/dit-digits/parity.log").read_text()
    assert run(["run", str(RECIPES / "dit-digits.toml")]) == 0
    assert json.loads(Path("runs/dit-digits/run.json").read_text()) == record


def test_a_recipe_stops_at_a_failure_and_goes_on_from_there(small: Path, capfd: pytest.CaptureFixture[str]) -> None:
    small.write_text(SMALL.replace("CLASSES", "99"))
    assert run(["run", "small.toml", "--dir", "work"]) == 1
    out, err = capfd.readouterr()
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [["list", "done"], ["sample", "failed"], ["version", "not"]]
    assert "\nsample: error: " in err
    assert "FID 1.5 over 10 images" in err
    assert "class 99 is out of range" in Path("work/sample.log").read_text()
    before = json.loads(Path("work/run.json").read_text())["list"]
    small.write_text(SMALL.replace("CLASSES", "0-3"))
    assert run(["run", "small.toml", "--dir", "work"]) == 0
    record = json.loads(Path("work/run.json").read_text())
    assert record["list"] == before
    assert {outcome["status"] for outcome in record.values()} == {0}


def test_one_step_alone(small: Path) -> None:
    assert run(["run", "small.toml", "--only", "list", "--dir", "work"]) == 0
    assert list(json.loads(Path("work/run.json").read_text())) == ["list"]


@pytest.mark.parametrize(
    ("old", "new", "typed", "message"),
    [
        ("dit-digits", "dit-digit", "run small.toml", "unknown model 'dit-digit'; did you mean dit-digits"),
        ('["list"]', '["lits"]', "run small.toml", "unknown command 'lits'; did you mean list"),
        ('"version"', '"list"', "run small.toml", "every step needs a different name"),
        ("name =", "nam =", "run small.toml", "small.toml is not a recipe"),
        ("[[steps]]", "[steps", "run small.toml", "small.toml is not a recipe"),
        ("", "", "run missing.toml", "cannot read the recipe missing.toml"),
        ("", "", "run small.toml --only build", "unknown step 'build'"),
        ("", "", "run small.toml dit-digits", "leave out 'dit-digits'"),
        ("", "", "run reproduce", "needs the name of a model"),
        ("", "", "run reproduce dit-digit", "unknown model 'dit-digit'; did you mean dit-digits"),
        ("", "", "run reproduce dit-s-2", "were never released"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(
    old: str, new: str, typed: str, message: str, small: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small.write_text(small.read_text().replace(old, new))
    assert run(typed.split()) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_the_numpy_client_draws_what_ditzoo_draws(tmp_path: Path) -> None:
    """In a process that cannot import ditzoo."""
    client = RECIPES / "numpy_client.py"
    assert len(client.read_text().splitlines()) <= 62
    card = ditzoo.card("dit-digits")
    bundle = shutil.copytree(cached_bundle(card).path, tmp_path / "bundle")
    plan = ditzoo.make_plan(card, solver="ddpm", steps=8, guidance_interval=(0.2, 4.0), guidance_every=2)
    assert {row.difference == "reuse" for row in plan.rows if row.guided} == {True, False}
    assert not all(row.guided for row in plan.rows)
    (bundle / "plan.json").write_bytes(plan.to_json())
    code = f"import sys, runpy; sys.modules['ditzoo'] = None; runpy.run_path({str(client)!r}, run_name='__main__')"
    arguments = [str(bundle), "3", "1", "4", "--seed", "7", "--out", str(tmp_path / "latents.npy")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with ditzoo.open_backend("torch", card) as backend:
        expected = ditzoo.sample(backend, plan, classes=[3, 1, 4], seed=7)
    assert relative_l2(np.load(tmp_path / "latents.npy"), expected) <= 1e-5
    (bundle / "plan.json").write_bytes(ditzoo.make_plan(card, steps=6, reuse="every=2,blocks=1").to_json())
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1][-20:]) == (2, "plan without --reuse")


@pytest.mark.parametrize("recipe", [*map(reproduction, RELEASED), WRITTEN], ids=lambda recipe: recipe.model)
def test_every_command_of_a_recipe_is_one(recipe: Recipe) -> None:
    """Options and arguments of each command are read, and nothing is run."""
    for step in recipe.steps:
        command, arguments = typer.main.get_command(app), list(step.command)
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context(step.name, arguments)


def test_a_recipe_that_runs_recipes_is_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    small.write_text(SMALL.replace('["list"]', '["run", "../small.toml"]'))
    assert run(["run", "small.toml"]) == 2
    assert "step list of small.toml runs a recipe; a recipe cannot run recipes" in capfd.readouterr().err
    small.write_text(SMALL)
    monkeypatch.setenv("DITZOO_RUNNING", "elsewhere")
    assert run(["run", "small.toml"]) == 2
    assert "a step of the recipe in elsewhere runs a recipe" in capfd.readouterr().err


def test_a_step_knows_that_it_is_one(small: Path) -> None:
    """A step that runs another program, which runs a recipe, is refused too: the variable reaches every process."""
    recipe = msgspec.toml.decode(small.read_bytes(), type=Recipe)
    step = msgspec.structs.replace(recipe.steps[0], command=("run", str(small)))
    recipe = msgspec.structs.replace(recipe, steps=(step,))
    assert not run_recipe(recipe, small.parent / "work", begin=lambda step: None)
    assert "a recipe cannot run recipes" in (small.parent / "work" / "list.log").read_text()


def test_eight_writers_of_one_record_lose_nothing(tmp_path: Path) -> None:
    def write(writer: int) -> None:
        for i in range(10):
            record_outcome(tmp_path, f"{writer}-{i}", Outcome(command=("list",), status=0, seconds=1.0, at=0.0))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len(outcomes(tmp_path)) == 80

"""Recipes: what to do with a published model from its name to its FID, as data; and the record of what was done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from ditzoo.errors import UsageError, unknown
from ditzoo.files import replacing
from ditzoo.records import Data, from_json, to_json

RECORD = "run.json"


class Expected(Data, frozen=True, kw_only=True):
    """The published figure that the samples are to reach, and how it was reached, in words."""

    fid: float
    images: int
    settings: str


class RecipeStep(Data, frozen=True, kw_only=True):
    """One command of `ditzoo`, without the word itself."""

    name: str
    command: tuple[str, ...]


class Recipe(Data, frozen=True, kw_only=True):
    """The steps for one model, in their order."""

    model: str
    steps: tuple[RecipeStep, ...]
    expected: Expected | None = None

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names or len(set(names)) != len(names):
            raise ValueError("a recipe needs steps, each of a name of its own")
        if any(not step.command or "/" in step.name for step in self.steps):
            raise ValueError("every step needs a command, and a name without slashes")


class Outcome(Data, frozen=True, kw_only=True):
    """What became of a step. `at` is when it ended, in seconds since 1970."""

    command: tuple[str, ...]
    status: int
    seconds: float
    at: float


def load_recipe(path: Path, *, models: Collection[str], commands: Collection[str]) -> Recipe:
    """The recipe in the TOML file at `path`; raises UsageError, naming the place, if it is none, or of an unknown model or
    command."""
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise UsageError(f"{path} is no recipe: {error}") from error
    if recipe.model not in models:
        raise unknown("model", recipe.model, models, hint=f"in {path}")
    for step in recipe.steps:
        if step.command[0] not in commands:
            raise unknown("command", step.command[0], commands, hint=f"step {step.name} of {path}")
    return recipe


def run_recipe(recipe: Recipe, folder: Path, *, only: str | None = None, begin: Callable[[RecipeStep], object]) -> bool:
    """Runs the steps in `folder` that did not end well there before, in their order, or just the one called `only`, anew.

    What each one says goes to `STEP.log`, and its outcome to `run.json`. Returns False at the first that fails. `begin` is told
    each step before it runs. Raises UsageError for a step that there is not.
    """
    names = [step.name for step in recipe.steps]
    if only is not None and only not in names:
        raise unknown("step", only, names)
    folder.mkdir(parents=True, exist_ok=True)
    for step in recipe.steps:
        if step.name == only or (only is None and not _done(folder, step)):
            begin(step)
            outcome = _run(step, folder)
            _record(folder, {**outcomes(folder), step.name: outcome})
            if outcome.status:
                return False
    return True


def outcomes(folder: Path) -> dict[str, Outcome]:
    """The recorded outcome of each step; raises UsageError where the record is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        return from_json(path.read_bytes(), dict[str, Outcome])
    except ValueError as error:
        raise UsageError(f"the record {path} is damaged: {error}; delete it to begin again") from error


def _done(folder: Path, step: RecipeStep) -> bool:
    outcome = outcomes(folder).get(step.name)
    return outcome is not None and outcome.status == 0 and outcome.command == step.command


def _run(step: RecipeStep, folder: Path) -> Outcome:
    started = time.perf_counter()
    command = [sys.executable, "-m", "ditzoo.cli", *step.command]
    paths = os.pathsep.join([*(str(Path(path).absolute()) for path in sys.path if path)])
    with (folder / f"{step.name}.log").open("w") as log:
        done = subprocess.run(  # noqa: S603  (our own command line)
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": paths}, check=False
        )
    return Outcome(command=step.command, status=done.returncode, seconds=time.perf_counter() - started, at=time.time())


def _record(folder: Path, record: dict[str, Outcome]) -> None:
    with replacing(folder / RECORD) as scratch:
        scratch.write_bytes(to_json(record))

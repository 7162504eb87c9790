"""Recipes: lists of commands that, for example, reproduce the FID of a published model, and the record of their outcomes.

A recipe is a TOML file, or `reproduction` makes it from a card.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path

from ditzoo.errors import StepError, UsageError, shown_path, unknown
from ditzoo.files import disk_errors, make_folder, replacing
from ditzoo.locks import lock_of
from ditzoo.records import Data, convert, from_json, from_toml, read_limited, to_json
from ditzoo.tasks import Task, run_tasks
from ditzoo.zoo.card import ByHand, Card, Embedded, OnHub, Unreleased

RECORD = "run.json"
CAPTIONS = "captions.txt"
"""The file in the working folder with the captions for a text-conditioned model, one per line."""

REFERENCE, SAMPLES, SCORES = "reference.npz", "samples", "evaluation.json"
"""In the working folder: the statistics of the data set, the folder of the shards, and the scores."""

RUNS = "run"
"""The command that runs recipes."""

_RUNNING = "DITZOO_RUNNING"
"""The environment variable that the steps of a recipe get: the recipe's working folder, so that no step runs a recipe."""

_OPTION = "--dir"
"""The option of `ditzoo run` that chooses the working folder."""

_PROMPTS = ("a dog runs on the beach", "a red bus in a street")
_IMAGES, _FEW = 50_000, 1000
_LONGEST_NAME = 200


class Expected(Data, frozen=True, kw_only=True):
    """The published FID that the samples should reach, the number of images it was computed over, and its settings in words."""

    fid: float
    images: int
    settings: str


class RecipeStep(Data, frozen=True, kw_only=True):
    """One command of `ditzoo`: its words after `ditzoo`."""

    name: str
    command: tuple[str, ...]


class Recipe(Data, frozen=True, kw_only=True):
    """The steps for one model, in their order. Raises ValueError if a step has no command or no name of its own."""

    model: str
    steps: tuple[RecipeStep, ...]
    expected: Expected | None = None

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names or len(set(names)) != len(names):
            raise ValueError("a recipe needs at least one step, and every step needs a different name")
        if any(not step.command for step in self.steps):
            raise ValueError("every step needs a command")
        for name in names:
            if "/" in name or not name.isprintable() or not 1 <= len(name.encode()) <= _LONGEST_NAME:
                raise ValueError(
                    f"{name[:_LONGEST_NAME]!r} is not a name for a step; write at most {_LONGEST_NAME} printable"
                    " characters without slashes"
                )


class Outcome(Data, frozen=True, kw_only=True):
    """The outcome of a step: its command, exit status and duration in seconds. `at` is its end, in seconds since 1970."""

    command: tuple[str, ...]
    status: int
    seconds: float
    at: float


def load_recipe(path: Path, *, models: Collection[str], commands: Collection[str]) -> Recipe:
    """The recipe in the TOML file at `path`.

    Raises UsageError, with the place, if the file is not a recipe, or if its model or one of its commands is unknown.
    """
    try:
        recipe = convert(from_toml(read_limited(path)), Recipe)
    except OSError as error:
        raise UsageError(f"cannot read the recipe {shown_path(path)}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a recipe: {error}") from error
    if recipe.model not in models:
        raise unknown("model", recipe.model, models, hint=f"in {path}")
    for step in recipe.steps:
        if step.command[0] == RUNS:
            raise UsageError(f"step {step.name} of {path} runs a recipe; a recipe cannot run recipes, so write its steps here")
        if step.command[0] not in commands:
            raise unknown("command", step.command[0], commands, hint=f"step {step.name} of {path}")
    return recipe


def reproduction(card: Card) -> Recipe:
    """The recipe that reproduces the published FID of `card`, with the card's settings.

    It gets the weights, exports to ONNX, builds a TensorRT engine, measures parity, draws as many images as the FID was
    computed over, packs them, and scores them. The models that ship with ditzoo take the CPU and no engine. Raises UsageError
    if the weights were never released.
    """
    if isinstance(card.weights, Unreleased):
        raise UsageError(f"the weights of {card.name} were never released; `ditzoo list --state hub` shows models with weights")
    name, published = card.name, card.published
    engines = ["--resolution", str(card.resolution), "--batch", "1-16", "--precision", "fp16", "--flavour", "tensorrt"]
    prompts = [word for prompt in _PROMPTS for word in ("--prompt", prompt)] if card.text else []
    building = ["export", "tensorrt", name, *engines, "--gpu", "current", "--out", "engines", "--overwrite"]
    steps = {
        "pull": _getting(card),
        "export": ["export", "onnx", name, "--out", "bundle", "--overwrite"],
        "build": [] if isinstance(card.weights, Embedded) else building,
        "parity": ["parity", name, "--backends", "torch,onnxruntime", *prompts],
        "sample": _sampling(card),
        "pack": ["pack", SAMPLES, "--npz"],
        "evaluate": _evaluation(card),
    }
    return Recipe(
        model=name,
        steps=tuple(RecipeStep(name=step, command=tuple(command)) for step, command in steps.items() if command),
        expected=Expected(fid=published.fid, images=published.images, settings=published.settings) if published else None,
    )


def needed_files(card: Card) -> dict[str, str]:
    """The files that must be in the working folder before `reproduction` runs. The values say what they are, by file name."""
    needed = {}
    if isinstance(card.weights, ByHand):
        needed[card.weights.file.path] = f"it is at {card.weights.where}"
    if card.text:
        needed[CAPTIONS] = f"it has one caption a line, for each of the {_images(card):,} images of the FID"
    if isinstance(card.weights, OnHub | ByHand):
        needed[REFERENCE] = (
            "it has the statistics of the data set: for ImageNet, the reference batch of this resolution that the evaluation of"
            " ADM publishes (openai/guided-diffusion)"
        )
    return needed


def _images(card: Card) -> int:
    """The number of images that the published FID was computed over."""
    if card.published is not None:
        return card.published.images
    return _FEW if isinstance(card.weights, Embedded) else _IMAGES


def _getting(card: Card) -> list[str]:
    """The command that gets the weights; empty if they ship with ditzoo."""
    if isinstance(card.weights, OnHub):
        return ["pull", card.name]
    return ["import", card.name, card.weights.file.path] if isinstance(card.weights, ByHand) else []


def _sampling(card: Card) -> list[str]:
    """The command that draws the images into shards, with the card's own solver, steps and guidance."""
    chosen, shown = card.sampling, []
    if card.text:
        shown = ["--prompts", CAPTIONS]
    elif card.number_of_classes:
        shown = ["--labels", "balanced" if isinstance(card.weights, Embedded) else "random"]
    guidance = ["--guidance", f"{chosen.guidance:g}"] if chosen.guidance != 1 else []
    drawn = ["--num", str(_images(card)), "--solver", chosen.solver, "--steps", str(chosen.steps), *guidance]
    return ["sample", card.name, "--device", _device(card), *shown, *drawn, "--shard-size", "1000", "--out", SAMPLES]


def _evaluation(card: Card) -> list[str]:
    """The command that scores the images; empty if the package has neither a reference nor a classifier for them."""
    if isinstance(card.weights, Embedded) and card.classes != "digits":
        return []
    reference = [] if isinstance(card.weights, Embedded) else ["--reference", REFERENCE]
    return ["evaluate", SAMPLES, *reference, "--device", _device(card), "--out", SCORES]


def _device(card: Card) -> str:
    return "cpu" if isinstance(card.weights, Embedded) else "cuda"


def run_recipe(recipe: Recipe, folder: Path, *, only: str | None = None, begin: Callable[[RecipeStep], object]) -> bool:
    """Runs the steps that have not succeeded in `folder` yet, in their order. With `only`, it runs that step in any case.

    The output of each step goes to `STEP.log` and its outcome to `run.json`. The first step that fails ends the run. Returns
    whether all steps succeeded. `begin` is called with each step before it runs. Raises UsageError if `only` is not a step of
    the recipe, if an outcome cannot be written, or if this process is itself a step of a recipe.
    """
    if running := os.environ.get(_RUNNING):
        raise UsageError(f"a step of the recipe in {running} runs a recipe; a recipe cannot run recipes")
    names = [step.name for step in recipe.steps]
    if only is not None and only not in names:
        raise unknown("step", only, names)
    make_folder(folder, _OPTION)
    before = {} if only else outcomes(folder)
    tasks = [_task(step, folder, before.get(step.name), begin=begin) for step in recipe.steps if only in (None, step.name)]
    for finished in run_tasks(tasks, stop_at_failure=True):
        if isinstance(finished.error, StepError):
            return False
        if finished.error is not None:
            raise finished.error
    return True


def _task(step: RecipeStep, folder: Path, before: Outcome | None, *, begin: Callable[[RecipeStep], object]) -> Task[Outcome]:
    """A step as a task. It is finished if, according to `before`, the same command succeeded."""

    def find() -> Outcome | None:
        return before if before and before.status == 0 and before.command == step.command else None

    def make() -> Outcome:
        begin(step)
        outcome = _run(step, folder)
        record_outcome(folder, step.name, outcome)
        if outcome.status:
            log = folder / f"{step.name}.log"
            raise StepError(f"step {step.name} ended with status {outcome.status}; see {log}")
        return outcome

    return Task(name=step.name, find=find, make=make)


def outcomes(folder: Path) -> dict[str, Outcome]:
    """The recorded outcome of each step, by name. Raises UsageError if the record is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        return from_json(read_limited(path), dict[str, Outcome])
    except ValueError as error:
        raise UsageError(f"the record {path} is damaged: {error}; delete it to begin again") from error


def _run(step: RecipeStep, folder: Path) -> Outcome:
    started = time.perf_counter()
    command = [sys.executable, "-m", "ditzoo", *step.command]
    paths = os.pathsep.join([*(str(Path(path).absolute()) for path in sys.path if path)])
    environment = {**os.environ, "PYTHONPATH": paths, _RUNNING: str(folder.absolute())}
    path = folder / f"{step.name}.log"
    with disk_errors(path, option=_OPTION), path.open("wb") as log:
        done = subprocess.run(  # noqa: S603  (our own command line)
            command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        )
    return Outcome(command=step.command, status=done.returncode, seconds=time.perf_counter() - started, at=time.time())


def record_outcome(folder: Path, name: str, outcome: Outcome) -> None:
    """Adds an outcome to the record in `folder`. A lock keeps the outcomes that other processes add at the same time."""
    path = folder / RECORD
    with lock_of(path), replacing(path, option=_OPTION) as scratch:
        scratch.write_bytes(to_json({**outcomes(folder), name: outcome}))

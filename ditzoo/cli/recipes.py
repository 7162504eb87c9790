"""The command `ditzoo run`: runs a recipe step by step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import complete, output
from ditzoo.errors import UsageError, shortened, shown_path

if TYPE_CHECKING:
    from ditzoo.recipes import Recipe

REPRODUCE = "reproduce"


def run_recipe(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE.toml|reproduce",
            help="The file of a recipe; or reproduce, for the recipe of NAME.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The model to reproduce.", show_default=False, autocompletion=complete.models),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="STEP", help="Run only this step, even if it is done.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="The folder for the results and the record. Default: runs/RECIPE or runs/NAME."),
    ] = None,
) -> None:
    """Run the steps of a recipe that are not done yet. Outcomes are recorded, so the same command can continue later.

    `ditzoo run reproduce NAME` makes the recipe from the card: get the weights, export, build engines, measure parity, draw
    the images of the published FID with the settings of the card, pack and score them, and show both figures.
    """
    from ditzoo.files import check_target, file_name
    from ditzoo.recipes import RECORD, load_recipe
    from ditzoo.recipes import run_recipe as run
    from ditzoo.weights.catalogue import cards

    if folder is not None:
        check_target(folder, "--dir")
    if recipe == REPRODUCE:
        if name is None:
            raise UsageError("run reproduce needs the name of a model; `ditzoo list` shows the names")
        folder = folder or Path("runs") / file_name(name)
        loaded = _reproduction(name, folder)
    else:
        if name is not None:
            shown = shown_path(recipe)
            raise UsageError(
                f"the recipe {shown} names its model; leave out {shortened(name)!r}, or run `ditzoo run reproduce NAME`"
            )
        root = context.find_root().command
        loaded = load_recipe(Path(recipe), models=cards(), commands=getattr(root, "commands", {}))
        folder = folder or Path("runs") / Path(recipe).stem
    passed = run(loaded, folder, only=only, begin=lambda step: output.talk(f"{step.name}: ditzoo {' '.join(step.command)}"))
    _show(loaded, folder)
    if not passed:
        _tell_why(loaded, folder)
        output.talk(f"the record is {folder / RECORD}; the same command continues from the failed step")
        raise typer.Exit(1)


def _reproduction(name: str, folder: Path) -> Recipe:
    """Makes the recipe from a card. Tells the user which files must be put into the working folder."""
    from ditzoo.recipes import needed_files, reproduction
    from ditzoo.weights.catalogue import card

    chosen = card(name)
    for file, where in needed_files(chosen).items():
        if not (folder / file).is_file():
            output.talk(f"put {file} into {folder} first; {where}")
    return reproduction(chosen)


def _tell_why(recipe: Recipe, folder: Path) -> None:
    """Prints the last line that each failed step wrote, which is its error."""
    from ditzoo.recipes import outcomes

    done = outcomes(folder)
    for step in recipe.steps:
        if step.name in done and done[step.name].status:
            lines = (folder / f"{step.name}.log").read_text(errors="replace").split("\n")
            output.talk(f"{step.name}: {next((line for line in reversed(lines) if line.strip()), 'it wrote nothing')}")


def _show(recipe: Recipe, folder: Path) -> None:
    """Prints the outcome of each step, and the FID that is expected."""
    from ditzoo.recipes import SCORES, outcomes

    done = outcomes(folder)
    rows = [
        (step.name, _verdict(done[step.name].status), f"{done[step.name].seconds:.1f} s", str(folder / f"{step.name}.log"))
        if step.name in done
        else (step.name, "not run", "", "")
        for step in recipe.steps
    ]
    output.table(["step", "outcome", ">time", "log"], rows)
    if (folder / SCORES).is_file():
        _show_scores(recipe, folder / SCORES)
    elif recipe.expected is not None:
        expected = recipe.expected
        output.talk(f"expected: FID {expected.fid} over {output.count(expected.images, 'image')} ({expected.settings})")


def _show_scores(recipe: Recipe, path: Path) -> None:
    """Prints the published and the measured figure, with the settings of each."""
    from ditzoo.evaluation.scores import Scores
    from ditzoo.records import from_json

    scores, expected = from_json(path.read_bytes(), Scores), recipe.expected
    drawing = next((" ".join(step.command[2:]) for step in recipe.steps if step.command[0] == "sample"), "")
    measured = f"{scores.network} against {scores.reference}; sample {drawing}"
    rows = [("measured", f"{scores.fid:.4g}", f"{scores.images:,}", measured)]
    if expected is not None:
        rows.insert(0, ("published", f"{expected.fid:g}", f"{expected.images:,}", expected.settings))
    output.table(["", ">FID", ">images", "settings"], rows)


def _verdict(status: int) -> str:
    return "done" if status == 0 else f"failed ({status})"

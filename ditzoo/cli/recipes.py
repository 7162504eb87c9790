"""`ditzoo run`: a recipe, step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ditzoo.cli import output


def run_recipe(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.toml", help="The recipe; see recipes/.", show_default=False)],
    only: Annotated[str | None, typer.Option(metavar="STEP", help="Run this step alone, even if it is done.")] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Where to work, and to keep the record. [default: runs/RECIPE]")
    ] = None,
) -> None:
    """Run the steps of a recipe that are not done yet; each one's outcome is recorded, so that it can go on later."""
    from ditzoo.recipes import RECORD, load_recipe, outcomes
    from ditzoo.recipes import run_recipe as run
    from ditzoo.weights.catalogue import cards

    root = context.find_root().command
    loaded = load_recipe(recipe, models=cards(), commands=getattr(root, "commands", {}))
    folder = folder or Path("runs") / recipe.stem
    passed = run(loaded, folder, only=only, begin=lambda step: output.talk(f"{step.name}: ditzoo {' '.join(step.command)}"))
    done = outcomes(folder)
    rows = [
        (step.name, _verdict(done[step.name].status), f"{done[step.name].seconds:.1f} s", str(folder / f"{step.name}.log"))
        if step.name in done
        else (step.name, "not run", "", "")
        for step in loaded.steps
    ]
    output.table(["step", "outcome", ">time", "log"], rows)
    if loaded.expected is not None:
        expected = loaded.expected
        output.talk(f"expected: FID {expected.fid} over {expected.images:,} images ({expected.settings})")
    if not passed:
        output.talk(f"the record is {folder / RECORD}; the same command goes on from the step that failed")
        raise typer.Exit(1)


def _verdict(status: int) -> str:
    return "done" if status == 0 else f"failed ({status})"

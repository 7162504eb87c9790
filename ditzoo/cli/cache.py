"""The commands `ditzoo cache`: list, verify and remove stored files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from ditzoo.cli import output
from ditzoo.cli.help import described, show_help
from ditzoo.cli.options import Json
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.cache import Item

app = typer.Typer(
    help="List, verify and remove the files in ditzoo's cache and in the Hub's cache.",
    callback=show_help,
    invoke_without_command=True,
)

Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Remove without asking.")]


@app.command("ls", **described("cache ls"))
def ls(json: Json = False) -> None:
    """List the stored files of each model, with their sizes."""
    from ditzoo.cache import contents
    from ditzoo.weights.catalogue import cards

    items = contents(cards().values())
    if json:
        output.json(items)
        return
    _table(items)
    output.talk(f"{output.size(_total(items))} in total")


@app.command("verify", **described("cache verify"))
def verify(json: Json = False) -> None:
    """Check every file against its recorded checksum. The exit status is 1 if a file is damaged."""
    import msgspec

    from ditzoo.cache import verify as check
    from ditzoo.weights.catalogue import cards

    with output.status("verifying"):
        results = list(check(cards().values()))
    if json:
        output.json([{**msgspec.structs.asdict(item), "problem": problem or None} for item, problem in results])
    else:
        rows = [(item.model, item.cache, item.what, item.options or "-", problem or "sound") for item, problem in results]
        output.table(["model", "cache", "what", "~options", "~state"], rows)
    if any(problem for _, problem in results):
        raise typer.Exit(1)


@app.command("rm", **described("cache rm"))
def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Models.", show_default=False)], yes: Yes = False
) -> None:
    """Remove all stored files of models, except files that other models use too."""
    from ditzoo.cache import of_model
    from ditzoo.weights.catalogue import cards

    known = cards().values()
    _remove([item for name in names for item in of_model(name, known)], yes=yes)


@app.command("prune", **described("cache prune"))
def prune(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Folders of yours: also remove the hidden leftovers in them."),
    ] = None,
    downloads: Annotated[
        bool,
        typer.Option("--downloads", help="Also remove the original checkpoints of models whose canonical weights are stored."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Remove unused files: the leftovers of killed processes, and the weights of cards that have changed.

    A killed process can also leave a hidden file or folder beside the picture or bundle that it wrote. FOLDER is where that is.
    """
    from ditzoo.cache import leftovers
    from ditzoo.files import check_path
    from ditzoo.weights.catalogue import cards

    for folder in folders or ():
        check_path(folder, "FOLDER")
    _remove(leftovers(cards().values(), downloads=downloads, folders=folders or ()), yes=yes)


def _remove(items: list[Item], *, yes: bool) -> None:
    from ditzoo.cache import remove

    if not items:
        output.talk("nothing to remove")
        return
    _table(items)
    if not yes and not sys.stdin.isatty():
        raise UsageError("nothing was removed: without a terminal, the command cannot ask; add --yes")
    if not yes:
        typer.confirm(f"Remove these files ({output.size(_total(items))})?", abort=True, err=True)
    remove(items)
    output.talk(f"removed {output.size(_total(items))}")


def _table(items: list[Item]) -> None:
    rows = [
        (item.model or "-", item.cache, item.what, item.options or "-", output.size(item.size), str(item.path))
        for item in items
    ]
    output.table(["model", "cache", "~what", "~options", ">size", "path"], rows)


def _total(items: list[Item]) -> int:
    """The total size in bytes. A file that several models share counts once."""
    return sum({item.path: item.size for item in items}.values())

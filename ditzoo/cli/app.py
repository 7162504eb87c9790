"""The commands of the command line, with their options for all commands and their examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ditzoo.cli import (
    bench,
    cache,
    demo,
    doctor,
    evaluation,
    export,
    inspect,
    output,
    parity,
    plan,
    pull,
    recipes,
    sample,
    ui,
    zoo,
)
from ditzoo.cli.help import described, show_help

app = typer.Typer(
    name="ditzoo",
    help="Diffusion Transformers by name: sample them, export them to ONNX, and check that both give the same results.",
    **described(""),
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_COMMANDS: dict[str, Callable[..., Any]] = {
    "list": zoo.list_models,
    "info": zoo.info,
    "where": zoo.where,
    "pull": pull.pull,
    "import": pull.import_,
    "push": pull.push,
    "to-diffusers": pull.to_diffusers,
    "sample": sample.sample,
    "pack": evaluation.pack,
    "evaluate": evaluation.evaluate,
    "parity": parity.parity,
    "bench": bench.bench,
    "demo": demo.demo,
    "doctor": doctor.doctor,
    "run": recipes.run_recipe,
    "inspect": inspect.inspect,
    "ui": ui.ui,
}
for name, function in _COMMANDS.items():
    app.command(name, **described(name))(function)
for name, group in {"cache": cache.app, "export": export.app, "plan": plan.app}.items():
    app.add_typer(group, name=name, **described(name))


def _version(asked: bool) -> None:
    if asked:
        from ditzoo import __version__

        output.data(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    zoo_file: Annotated[
        str | None, typer.Option("--zoo", metavar="FILE", help="A TOML file with your own cards. Default: $DITZOO_ZOO.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print what the library logs, and where an error arose.")
    ] = False,
) -> None:
    from ditzoo.hub.environment import check_environment

    check_environment()
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other; leave one out")
    if zoo_file is not None:
        os.environ["DITZOO_ZOO"] = zoo_file
    output.set_volume(verbose - quiet)
    show_help(context)

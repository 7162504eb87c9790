"""The command line. Each module holds one group of commands. A command imports the library when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from ditzoo.cli import bench, cache, demo, export, inspect, output, parity, plan, pull, recipes, sample, streams, zoo
from ditzoo.errors import DitzooError

app = typer.Typer(
    name="ditzoo",
    help="Diffusion Transformers by name: sample them, export them to ONNX, and check that both give the same results.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(zoo.list_models)
app.command("info")(zoo.info)
app.command("where")(zoo.where)
app.command("pull")(pull.pull)
app.command("import")(pull.import_)
app.command("push")(pull.push)
app.command("to-diffusers")(pull.to_diffusers)
app.add_typer(cache.app, name="cache")
app.command("sample")(sample.sample)
app.command("parity")(parity.parity)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)
app.command("run")(recipes.run_recipe)
app.command("inspect")(inspect.inspect)
app.add_typer(export.app, name="export")
app.add_typer(plan.app, name="plan")


STOPPED = 130
"""The exit status if the user stopped the command with Ctrl-C."""


def _version(asked: bool) -> None:
    if asked:
        from ditzoo import __version__

        output.data(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    zoo_file: Annotated[
        str | None, typer.Option("--zoo", metavar="FILE", help="A TOML file with your own cards. [default: $DITZOO_ZOO]")
    ] = None,
) -> None:
    from ditzoo.hub.environment import check_environment

    check_environment()
    if zoo_file is not None:
        os.environ["DITZOO_ZOO"] = zoo_file
    if context.invoked_subcommand is None:
        output.data(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit status.

    The status is 0 for success, 1 if a check failed or the system reported an error, 2 if the request is wrong or cannot be
    fulfilled, and 130 if the user stopped the command.
    """
    try:
        with output.warnings():
            status = app(list(arguments), standalone_mode=False) or 0
            sys.stdout.flush()
            if status == STOPPED:
                output.talk("stopped")
            return status
    except DitzooError as error:
        output.error(str(error))
        return 2
    except typer.TyperException as error:
        context: typer.Context | None = getattr(error, "ctx", None)
        output.error(f"{error.format_message().rstrip('.')}; see `{context.command_path if context else 'ditzoo'} --help`")
        return 2
    except BrokenPipeError:  # the reader of stdout has read enough
        return 1
    except MemoryError:
        output.error("out of memory; use fewer images (--num), a smaller --batch, or a machine with more memory")
        return 1
    except OSError as error:
        output.error(str(error))
        return 1
    except (typer.Abort, KeyboardInterrupt):
        output.talk("stopped")
        return STOPPED


def main() -> int:
    """Runs the command line of this process, and returns the exit status."""
    try:
        streams.prepare()
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        output.talk("stopped")
        return STOPPED
    except OSError:
        streams.abandon_stdout()
    return status

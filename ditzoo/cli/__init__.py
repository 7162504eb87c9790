"""The command line. Each module holds one group of commands. A command imports the library when it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import copy_context
from traceback import format_exc

from ditzoo.cli import streams
from ditzoo.cli.terminal import talk

ANYWHERE = {"--zoo": 2, "--quiet": 1, "-q": 1, "--verbose": 1, "-v": 1, "--version": 1, "-V": 1}
"""The options for all commands, which may also stand after the command. The number counts the option and its value."""

STOPPED = 130
"""The exit status if the user stopped the command with Ctrl-C."""


def run(arguments: Sequence[str]) -> int:
    """Runs the command line and returns the exit status.

    The status is 0 for success, 1 if a check failed or the system reported an error, 2 if the request is wrong or cannot be
    fulfilled, and 130 if the user stopped the command.
    """
    status = copy_context().run(_run, list(arguments))
    if status == STOPPED:
        talk("stopped")
    return status


def _run(arguments: list[str]) -> int:
    import typer

    from ditzoo.cli import output
    from ditzoo.cli.app import app
    from ditzoo.errors import DitzooError

    try:
        with output.warnings():
            status = app(arguments, prog_name="ditzoo", standalone_mode=False, obj=arguments) or 0
            sys.stdout.flush()
            return status
    except DitzooError as error:
        output.error(str(error), trace=format_exc())
        return 2
    except typer.TyperException as error:
        option: str | None = getattr(error, "option_name", None)
        if (sooner := _moved_forward(arguments, option)) is not None:
            return _run(sooner)
        context: typer.Context | None = getattr(error, "ctx", None)
        behind = "the options of a command stand after its name; " if option and _before_command(arguments, option) else ""
        place = context.command_path if context else "ditzoo"
        output.error(f"{error.format_message().rstrip('.')}; {behind}see `{place} --help`")
        return 2
    except BrokenPipeError:  # the reader of stdout has read enough
        return 1
    except MemoryError:
        output.error("out of memory; use fewer images (--num), a smaller --batch, or a machine with more memory")
        return 1
    except OSError as error:
        output.error(_system_error(error), trace=format_exc())
        return 1
    except (typer.Abort, KeyboardInterrupt):
        return STOPPED


def _system_error(error: OSError) -> str:
    """The message of an error that the system reported, with the path that it is about."""
    from ditzoo.errors import shown_path

    path = error.filename
    return str(error) if error.strerror is None or not isinstance(path, str) else f"{error.strerror}: {shown_path(path)}"


def _moved_forward(arguments: list[str], option: str | None) -> list[str] | None:
    """The arguments with an option for all commands before the command, if a command has refused it; else None."""
    places = [i for i, argument in enumerate(arguments) if argument.partition("=")[0] == option]
    if option not in ANYWHERE or not places or places[-1] == 0:
        return None
    first = places[-1]
    last = first + (1 if "=" in arguments[first] else ANYWHERE[option])
    moved, rest = arguments[first:last], arguments[:first] + arguments[last:]
    return [*moved, *rest]


def _before_command(arguments: list[str], option: str) -> bool:
    """Whether a refused option stands before the command."""
    from ditzoo.cli.help import EXAMPLES

    words = [argument.partition("=")[0] for argument in arguments]
    return option in words and not any(word in EXAMPLES for word in words[: words.index(option)])


def main() -> int:
    """Runs the command line of this process, and returns the exit status."""
    try:
        streams.prepare()
        status = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        talk("stopped")
        return STOPPED
    except OSError:
        streams.abandon_stdout()
    return status

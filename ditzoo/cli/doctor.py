"""The command `ditzoo doctor`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Json

if TYPE_CHECKING:
    from ditzoo.model.checkup import Finding


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Make no request to the Hub.")] = False, json: Json = False
) -> None:
    """Check this machine: packages and their conflicts, GPUs, caches, the Hub, and what can run here.

    The exit status is 1 if there is a problem. A part that is not installed is no problem.
    """
    from ditzoo.model.checkup import checkup

    findings = checkup(hub=not offline, display=output)
    width = output.terminal_width()
    if json:
        output.json(findings)
    elif width is not None:
        output.data("\n".join(line for finding in findings for line in _lines(finding, width)))
    else:
        rows = [(each.area, each.subject, each.outcome, each.found, each.remedy) for each in findings]
        output.table(["area", "subject", "outcome", "found", "what to do"], rows)
    problems = [finding.subject for finding in findings if finding.outcome == "problem"]
    if problems:
        output.talk(f"{output.count(len(problems), 'problem')}: {', '.join(problems)}")
        raise typer.Exit(1)
    output.talk("no problems")


def _lines(finding: Finding, width: int) -> Iterator[str]:
    """A finding for a terminal: its outcome, its subject and what was found; then what to do, if there is anything."""
    begin = f"{finding.outcome:9}"
    yield from _wrapped(f"{finding.subject}: {finding.found}", width, begin=begin)
    if finding.remedy:
        yield from _wrapped(finding.remedy, width, begin=" " * 11)


def _wrapped(text: str, width: int, *, begin: str) -> list[str]:
    """The lines of a text. No word is cut, so a path or a command with a long word may be wider."""
    hanging = " " * len(begin)
    return textwrap.wrap(
        text, width, initial_indent=begin, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )

"""The command `ditzoo doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Json


def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Make no request to the Hub.")] = False, json: Json = False
) -> None:
    """Check this machine: packages and their conflicts, GPUs, caches, the Hub, and what can run here.

    The exit status is 1 if there is a problem. A part that is not installed is no problem.
    """
    from ditzoo.model.checkup import checkup

    findings = checkup(hub=not offline, display=output)
    if json:
        output.json(findings)
    else:
        rows = [(each.area, each.subject, each.outcome, each.found, each.remedy) for each in findings]
        output.table(["area", "~subject", "outcome", "~found", "~what to do"], rows)
    problems = [finding.subject for finding in findings if finding.outcome == "problem"]
    if problems:
        output.talk(f"{output.count(len(problems), 'problem')}: {', '.join(problems)}")
        raise typer.Exit(1)
    output.talk("no problems")

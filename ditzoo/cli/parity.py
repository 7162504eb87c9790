"""`ditzoo parity`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Classes, Device, Guidance, Json, Model, Prompt, Prompts, Seed, Solver, Steps, Threads
from ditzoo.errors import UsageError, unknown

if TYPE_CHECKING:
    from ditzoo.bisection import Bisection
    from ditzoo.card import Card
    from ditzoo.parity import Comparison, Report, Tolerance

FORWARD_TIMES = 5


def parity(
    model: Model,
    backends: Annotated[
        str,
        typer.Option(metavar="LIST", help="The reference first, then what is compared with it; torch:bf16 sets a precision."),
    ] = "torch,onnxruntime",
    classes: Classes = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    times: Annotated[int, typer.Option(help="At how many timesteps to compare single evaluations.")] = FORWARD_TIMES,
    device: Device = "cpu",
    threads: Threads = None,
    tolerance: Annotated[
        str | None,
        typer.Option(metavar="NAME=VALUE,...", help="Other limits: forward, sample, psnr. [default: those of the precision]"),
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Also say where it breaks: the error of every block, the first operation beyond.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Also write a report with plots and pictures, as this one .html file.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure how far backends are apart; exit status 1 if one is beyond its tolerance."""
    from ditzoo.cli.bisect import bisect_all
    from ditzoo.cli.models import card_of, find, open_on
    from ditzoo.cli.request import condition_of, new_drawing, shown
    from ditzoo.parity import TOLERANCES, compare
    from ditzoo.plan import make_plan

    found = find(model)
    card = card_of(found)
    count, chosen, texts = shown(card, classes, None, prompt, prompts)
    plan = make_plan(card, solver=solver, steps=steps, guidance=guidance)
    names = [parse_backend(name) for name in backends.split(",")]
    if len(names) < 2:
        raise UsageError(f"--backends needs two or more, the reference first, such as torch,onnxruntime; not {backends!r}")
    if html is not None:
        _check_html(html)
    condition = condition_of(found, new_drawing(card, plan, seed, count, chosen, texts))
    comparisons = []
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_on(found, name, device=device, precision=precision, threads=threads))
            for name, precision in names
        ]
        limits = [(candidate, override(TOLERANCES[candidate.precision], tolerance)) for candidate in opened[1:]]
        bisections = (
            bisect_all(opened[0], limits, plan, condition=condition, count=count, seed=seed, times=times) if bisect else []
        )
        for candidate, limit in limits:
            with output.progress(f"{card.name}: {candidate.name}", 2 * len(plan.rows)) as advance:
                comparison = compare(
                    opened[0],
                    candidate,
                    plan,
                    condition=condition,
                    count=count,
                    seed=seed,
                    times=times,
                    tolerance=limit,
                    advance=advance,
                )
            comparisons.append(comparison)
    reports = [comparison.report for comparison in comparisons]
    show(reports, bisections, json=json)
    if html is not None:
        _write_html(html, card, comparisons, bisections)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def override(tolerance: Tolerance, text: str | None) -> Tolerance:
    """`tolerance` with the limits that "name=value,..." names; raises UsageError for one that there is not."""
    import msgspec

    known = tolerance.__struct_fields__
    given: dict[str, float] = {}
    for item in (text or "").split(",") if text else ():
        name, _, value = item.strip().partition("=")
        if name not in known:
            raise unknown("limit", name, known, hint="--tolerance forward=1e-4,psnr=50")
        try:
            given[name] = float(value)
        except ValueError:
            raise UsageError(f"--tolerance {name} takes a number, not {value!r}") from None
    return msgspec.structs.replace(tolerance, **given)


def parse_backend(text: str) -> tuple[str, str]:
    """The name and precision of "torch" or "torch:bf16"."""
    name, _, precision = text.strip().partition(":")
    return name, precision or "fp32"


def show(reports: list[Report], bisections: Sequence[Bisection] = (), *, json: bool) -> None:
    """Prints the reports: a table, each number beside its tolerance, or JSON; and the bisections, if there are, one each."""
    from ditzoo.cli.bisect import show_bisection, told

    if json:
        parts = [{"bisect": told(bisection)} for bisection in bisections] or [{} for _ in reports]
        output.json([_with_verdict(report) | part for report, part in zip(reports, parts, strict=True)])
        return
    columns = ["model", "compared with the reference", ">forward", ">sample", ">PSNR dB", "verdict"]
    rows = [
        (
            report.model,
            f"{report.candidate} with {report.reference}",
            f"{report.worst_forward:.1e}",
            f"{report.sample_relative_l2:.1e}",
            "identical" if report.psnr is None else f"{report.psnr:.1f}",
            "pass" if report.passed else "FAIL",
        )
        for report in reports
    ]
    limits = {report.precision: report.tolerance for report in reports}
    rows += [
        ("", f"limits for {precision}", f"{limit.forward:.1e}", f"{limit.sample:.1e}", f"{limit.psnr:.1f}", "")
        for precision, limit in limits.items()
    ]
    output.table(columns, rows)
    output.talk("forward: relative L2 error of one evaluation, the largest over the timesteps; sample: of the final latents")
    for bisection in bisections:
        show_bisection(bisection)


def _with_verdict(report: Report) -> dict[str, object]:
    import msgspec

    derived = ("worst_forward", "sample_relative_l2", "passed")
    return {**msgspec.to_builtins(report), **{name: getattr(report, name) for name in derived}}


def _check_html(path: Path) -> None:
    from ditzoo.files import check_writable
    from ditzoo.plots import check_matplotlib

    check_writable(path.parent, "--html")
    if path.suffix not in (".html", ".htm"):
        raise UsageError(f"--html writes an .html file, not {path}")
    check_matplotlib()


def _write_html(path: Path, card: Card, comparisons: list[Comparison], bisections: list[Bisection]) -> None:
    from ditzoo.files import replacing
    from ditzoo.report import html

    with replacing(path) as scratch:
        scratch.write_text(html(card, comparisons, bisections))
    output.talk(f"report: {path}")

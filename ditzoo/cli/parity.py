"""The command `ditzoo parity`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import complete, output
from ditzoo.cli.options import (
    BACKEND,
    Classes,
    Device,
    Guidance,
    Json,
    Model,
    Prompt,
    Prompts,
    Resolution,
    Reuse,
    Seed,
    Solver,
    Steps,
    Threads,
    check_alone,
    read_prompts,
)
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.bundle import Bundle
    from ditzoo.measure.bisection import Bisection
    from ditzoo.measure.parity import Report
    from ditzoo.measure.parity_run import ParityRun
    from ditzoo.zoo.card import Card


def parity(
    context: typer.Context,
    model: Model,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            autocompletion=complete.backends,
            help=f"The reference first, then the backends to compare with it: {BACKEND}."
            " Default: torch,onnxruntime; with --against torch.",
        ),
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all backends with torch in float64.")] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="diffusers|FILE.npz",
            help="Also compare diffusers' own network, or latents that another system drew; see docs/parity.md.",
        ),
    ] = None,
    classes: Classes = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    reuse: Reuse = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan file from `ditzoo plan save`. It replaces --solver, --steps and --guidance.")
    ] = None,
    resolution: Resolution = None,
    seed: Seed = 0,
    times: Annotated[int, typer.Option(help="The number of timesteps at which single evaluations are compared.")] = 5,
    device: Device = "cpu",
    threads: Threads = None,
    tolerance: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=VALUE,...", help="Other limits for forward, sample or psnr. Default: those of the precision."
        ),
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Also show the error of every block, and the first operation beyond the tolerance.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a report with plots and pictures to this .html file.")] = None,
    json: Json = False,
) -> None:
    """Measure how far the results of backends differ. The exit status is 1 if a backend exceeds its tolerance."""
    from ditzoo.model.comparing import RECORDING
    from ditzoo.model.comparing import parity as compare
    from ditzoo.model_names import find_model

    found = find_model(model)
    if against is not None and against.endswith(RECORDING):
        check_alone(context, f"{against} states what was drawn", allowed=("plan",))
    if html is not None:
        _check_html(html)
    run = compare(
        found,
        backends=backends,
        exact=exact,
        against=against,
        classes=classes,
        prompts=read_prompts(prompt, prompts),
        solver=solver,
        steps=steps,
        guidance=guidance,
        reuse=reuse,
        plan=plan,
        resolution=resolution,
        seed=seed,
        times=times,
        device=device,
        threads=threads,
        tolerance=tolerance,
        bisect=bisect,
        display=output,
    )
    show([comparison.report for comparison in run.comparisons], run.bisections, json=json)
    if html is not None:
        _write_html(html, found, run, command=shlex.join(["ditzoo", *(context.find_root().obj or ())]))
    if not run.passed:
        raise typer.Exit(1)


def show(reports: Sequence[Report], bisections: Sequence[Bisection] = (), *, json: bool) -> None:
    """Prints the reports as a table with the limits, or as JSON, and then the bisections, if there are any."""
    from ditzoo.cli.bisection import bisection_facts, show_bisection

    if json:
        parts = [{"bisect": bisection_facts(bisection)} for bisection in bisections]
        parts += [{}] * (len(reports) - len(parts))
        output.json([_with_verdict(report) | part for report, part in zip(reports, parts, strict=True)])
        return
    columns = ["model", "~compared with the reference", ">forward", ">sample", ">PSNR dB", "verdict"]
    rows = [
        (
            report.model,
            f"{report.candidate} with {report.reference}",
            "-" if report.worst_forward is None else f"{report.worst_forward:.1e}",
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
    output.talk(
        "forward: largest relative L2 error of one evaluation over timesteps and labels; sample: that of the final latents"
    )
    for bisection in bisections:
        show_bisection(bisection)


def _with_verdict(report: Report) -> dict[str, object]:
    import msgspec

    derived = ("worst_forward", "sample_relative_l2", "passed")
    return {**msgspec.to_builtins(report), **{name: getattr(report, name) for name in derived}}


def _check_html(path: Path) -> None:
    from ditzoo.files import check_output_file
    from ditzoo.measure.report import check_packages

    check_output_file(path, "--html")
    if path.suffix not in (".html", ".htm"):
        raise UsageError(f"--html writes an .html file, not {path}")
    check_packages()


def _write_html(path: Path, model: Card | Bundle, run: ParityRun, *, command: str) -> None:
    from ditzoo.files import replacing
    from ditzoo.measure.provenance import provenance
    from ditzoo.measure.report import html
    from ditzoo.weights.catalogue import card_of

    request = run.request
    origin = {} if request is None else provenance(model, request, command=command)
    classes = () if request is None else request.classes or ()
    text = html(card_of(model), run.comparisons, run.bisections, classes=classes, origin=origin)
    with replacing(path, option="--html") as scratch:
        scratch.write_text(text, encoding="utf-8")
    output.talk(f"report: {path}")

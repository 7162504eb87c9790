"""`ditzoo parity`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Classes, Device, Guidance, Json, Model, Seed, Solver, Steps, Threads
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.parity import Report

FORWARD_TIMES = 5


def parity(
    model: Model,
    backends: Annotated[
        str,
        typer.Option(metavar="LIST", help="The reference first, then what is compared with it; torch:bf16 sets a precision."),
    ] = "torch,onnxruntime",
    classes: Classes = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    times: Annotated[int, typer.Option(help="At how many timesteps to compare single evaluations.")] = FORWARD_TIMES,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Measure how far backends are apart; exit status 1 if one is beyond its tolerance."""
    from ditzoo.cli.models import card_of, find, open_on
    from ditzoo.cli.request import choose_classes
    from ditzoo.parity import TOLERANCES, compare
    from ditzoo.plan import make_plan
    from ditzoo.sample import class_condition

    found = find(model)
    card = card_of(found)
    chosen = choose_classes(card, classes) or None
    class_condition(card, chosen or [])
    plan = make_plan(card, solver=solver, steps=steps, guidance=guidance)
    names = [parse_backend(name) for name in backends.split(",")]
    if len(names) < 2:
        raise UsageError(f"--backends needs two or more, the reference first, such as torch,onnxruntime; not {backends!r}")
    reports = []
    with ExitStack() as stack:
        opened = [
            stack.enter_context(open_on(found, name, device=device, precision=precision, threads=threads))
            for name, precision in names
        ]
        for candidate in opened[1:]:
            with output.progress(f"{card.name}: {candidate.name}", 2 * len(plan.rows)) as advance:
                report = compare(
                    opened[0],
                    candidate,
                    plan,
                    classes=chosen,
                    seed=seed,
                    times=times,
                    tolerance=TOLERANCES[candidate.precision],
                    advance=advance,
                )
            reports.append(report)
    show(reports, json=json)
    if not all(report.passed for report in reports):
        raise typer.Exit(1)


def parse_backend(text: str) -> tuple[str, str]:
    """The name and precision of "torch" or "torch:bf16"."""
    name, _, precision = text.strip().partition(":")
    return name, precision or "fp32"


def show(reports: list[Report], *, json: bool) -> None:
    """Prints the reports: a table, each number beside its tolerance, or JSON."""
    if json:
        import msgspec

        output.json([{**msgspec.to_builtins(r), "worst_forward": r.worst_forward, "passed": r.passed} for r in reports])
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

"""The commands `ditzoo plan`: the sampler as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import complete, output
from ditzoo.cli.help import described, show_help
from ditzoo.cli.options import (
    Device,
    Guidance,
    GuidanceEvery,
    GuidanceInterval,
    GuidanceTimes,
    GuidedChannels,
    Json,
    Model,
    Prompt,
    Resolution,
    Reuse,
    Seed,
    Solver,
    Steps,
    Threads,
    parse_interval,
)
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.plan.table import Plan

app = typer.Typer(help="Show or save the exact sampler as a table of numbers.", callback=show_help, invoke_without_command=True)


@app.command("show", **described("plan show"))
def show(
    model: Model,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    guidance_times: GuidanceTimes = None,
    guidance_every: GuidanceEvery = None,
    guided_channels: GuidedChannels = None,
    reuse: Reuse = None,
    json: Json = False,
) -> None:
    """Print the table of a sampler. Each new state is a weighted sum of states, predictions (both newest first) and noise."""
    plan = _plan(model, solver, steps, guidance, guidance_interval, guidance_times, guidance_every, guided_channels, reuse)
    if json:
        output.data(plan.to_json().decode().rstrip())
        return
    output.talk(
        f"{plan.solver}: x[0] = {plan.initial:.6g} z; guidance on {plan.guided_channels} of {plan.channels} channels;"
        f" {plan.evaluations} evaluations of the network per image"
    )
    reusing = [str(i) for i, row in enumerate(plan.rows) if row.reuses]
    if reusing:
        output.talk(f"rows {', '.join(reusing)} run the first {plan.outer_blocks} and the last {plan.outer_blocks} blocks only")
    halved = [str(i) for i, row in enumerate(plan.rows) if row.guided and not row.evaluates_null]
    if halved:
        output.talk(f"rows {', '.join(halved)} evaluate cond only, and reuse the last difference cond - uncond")
    rows = [
        (
            str(i),
            f"{row.time:.6g}",
            f"{row.guidance:g}",
            _numbers(row.states),
            _numbers(row.predictions),
            "exp ½[{:.4g}, {:.4g}]".format(*row.log_variance) if row.log_variance else f"{row.noise:.6g}",
        )
        for i, row in enumerate(plan.rows)
    ]
    output.table([">row", ">time", ">guidance", "~states", "~predictions", "~noise"], rows)


@app.command("save", **described("plan save"))
def save(
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="The JSON file to write.")] = Path("plan.json"),
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    guidance_times: GuidanceTimes = None,
    guidance_every: GuidanceEvery = None,
    guided_channels: GuidedChannels = None,
    reuse: Reuse = None,
) -> None:
    """Write the table of a sampler as JSON, for `sample --plan` or for your own client."""
    from ditzoo.files import check_output_file

    check_output_file(out, "--out")
    if out.suffix != ".json":
        raise UsageError(f"--out writes a .json file, not {out}")
    plan = _plan(model, solver, steps, guidance, guidance_interval, guidance_times, guidance_every, guided_channels, reuse)
    plan.save(out)
    output.data(str(out))


@app.command("tune", **described("plan tune"))
def tune(
    model: Model,
    target: Annotated[str, typer.Option(metavar="FACTOR", help="How many times fewer blocks the plan runs at least: 1.8x.")],
    blocks: Annotated[
        int | None, typer.Option(help="The first and last blocks that every row runs. Default: a seventh of all each.")
    ] = None,
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    guidance_interval: GuidanceInterval = None,
    guidance_times: GuidanceTimes = None,
    guidance_every: GuidanceEvery = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="The classes to draw: 0-9, 1,3,5-7 or names. Default: the first 4."),
    ] = None,
    prompt: Prompt = None,
    resolution: Resolution = None,
    seed: Seed = 0,
    backend: Annotated[
        str | None,
        typer.Option(
            help="torch, onnxruntime or openvino, with options. Default: as for `sample`.", autocompletion=complete.backends
        ),
    ] = None,
    device: Device = "cpu",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Find by measuring which rows of a plan run all blocks. Prints the value for --reuse.

    The model draws a few images without reuse. How much the middle blocks' part changes from row to row decides which rows stay
    full. The lists that come into question draw the same images, and the one with the least error is printed.
    """
    from ditzoo.model.tuning import parse_target, tune_reuse

    tuned = tune_reuse(
        model,
        target=parse_target(target),
        blocks=blocks,
        backend=backend,
        classes=classes,
        prompts=prompt,
        solver=solver,
        steps=steps,
        guidance=guidance,
        guidance_interval=parse_interval(guidance_interval),
        guidance_times=parse_interval(guidance_times, option="--guidance-times"),
        guidance_every=guidance_every,
        resolution=resolution,
        seed=seed,
        device=device,
        threads=threads,
        display=output,
    )
    output.talk(f"{tuned.model}, {tuned.solver}, {output.count(tuned.rows, 'row')}, {output.count(tuned.images, 'image')}:")
    for each in (tuned.best, *tuned.others):
        output.talk(
            f"{each.how}: {len(each.full)} full rows, {each.factor:.2f}x fewer blocks, mean change of the residual"
            f" {each.expected:.1%}, error of the latents {each.error:.1%}"
        )
    output.json(tuned) if json else output.data(tuned.reuse)


def _plan(
    model: str,
    solver: str | None,
    steps: int | None,
    guidance: float | None,
    interval: str | None,
    times: str | None,
    every: int | None,
    channels: int | None,
    reuse: str | None,
) -> Plan:
    from ditzoo.model_names import find_model
    from ditzoo.plan.make import make_plan

    return make_plan(
        find_model(model),
        solver=solver,
        steps=steps,
        guidance=guidance,
        guidance_interval=parse_interval(interval),
        guidance_times=parse_interval(times, option="--guidance-times"),
        guidance_every=every,
        guided_channels=channels,
        reuse=reuse,
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "  ".join(f"{value:.6g}" for value in values)

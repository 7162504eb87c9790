"""`ditzoo bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import BACKEND, Device, Guidance, Json, Model, Solver, Steps, Threads, parse_numbers
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.measure.bench import Bench, Ceilings, Measurement
    from ditzoo.zoo.card import Card


def bench(
    model: Model,
    backends: Annotated[
        str, typer.Option(metavar="LIST", help=f"What to measure side by side: {BACKEND}.")
    ] = "torch,onnxruntime",
    batch: Annotated[str, typer.Option(metavar="LIST", help="Images at a time: 1,8,32.")] = "1",
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    repeats: Annotated[int, typer.Option(help="Timed evaluations of each backend at each batch size.")] = 10,
    warmup: Annotated[int, typer.Option(help="Evaluations before those, not timed.")] = 2,
    device: Device = "cpu",
    threads: Threads = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw images per second over the batch size, as this .svg file.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure backends side by side: time, memory, and the share of the machine's limits that they reach."""
    from ditzoo.backends.options import parse_specs
    from ditzoo.cli.models import card_of, find, open_on
    from ditzoo.measure import bench as library
    from ditzoo.plan.make import make_plan

    found = find(model)
    card = card_of(found)
    plan = make_plan(card, solver=solver, steps=steps, guidance=guidance)
    batches = parse_numbers(batch, option="--batch")
    if plot is not None:
        _check_plot(plot)
    openers = [partial(open_on, found, spec, device=device, threads=threads) for spec in parse_specs(backends)]
    with output.progress(f"{card.name}: {backends}", len(batches) * (warmup + repeats)) as advance:
        result = library.run(
            openers, plan, batches=batches, repeats=repeats, warmup=warmup, multiply_adds=_count(card), advance=advance
        )
    if plot is not None:
        _draw(result, plot)
    output.json(result) if json else _show(result)


def _count(card: Card) -> int | None:
    """The multiply-adds of one evaluation, where torch is there to count them."""
    try:
        from ditzoo.measure.operations import multiply_adds
    except ModuleNotFoundError:
        return None
    return multiply_adds(card.backbone)


def _show(result: Bench) -> None:
    first = result.measurements[0]
    base = {entry.batch: entry.evaluation.median for entry in reversed(result.measurements)}
    rows = [
        (
            entry.backend,
            str(entry.batch),
            f"{1e3 * entry.evaluation.median:.2f}",
            f"{1e3 * entry.evaluation.low:.2f}-{1e3 * entry.evaluation.high:.2f}",
            f"{base[entry.batch] / entry.evaluation.median:.2f}x",
            f"{entry.images_per_second:.3g}",
            share(result, entry),
            f"{entry.error:.1e}",
            f"{entry.load:.2f}",
            f"{entry.first_image:.2f}",
            f"{entry.overhead:.1%}",
            " + ".join(f"{size / 1e6:.0f}" for size in (entry.host_memory, entry.device_memory) if size is not None),
        )
        for entry in result.measurements
    ]
    columns = [
        "backend",
        ">batch",
        ">ms",
        ">quartiles",
        ">ratio",
        ">images/s",
        ">of limit",
        ">error",
        ">load s",
        ">first image s",
        ">outside",
        ">MB",
    ]
    output.table(columns, rows)
    work = "" if result.multiply_adds is None else f"; {result.multiply_adds / 1e9:.4g} GMAC an image and evaluation"
    output.talk(
        f"{result.model}, {result.steps} evaluations an image{work}; ms: one guided evaluation; ratio: times as fast as"
        f" {first.backend}; error: relative L2, to {first.backend}; outside: the share of the first image's time that was not"
        " the network's; MB: peak of loading and one image, host + GPU"
    )
    for ceilings in result.ceilings:
        output.talk(_limits(result, ceilings))
    output.talk(", ".join(f"{key} {value}" for key, value in result.machine.items()))


def share(result: Bench, entry: Measurement) -> str:
    """How much of the rate of its device, which its name says, a backend reaches; empty where either is not known."""
    device = "cpu" if "cpu" in entry.backend.split() else "cuda"
    rate = next((ceilings.multiply_adds for ceilings in result.ceilings if ceilings.device == device), None)
    return "" if entry.speed is None or rate is None else f"{entry.speed / rate:.0%}"


def _limits(result: Bench, ceilings: Ceilings) -> str:
    """What a device can do, and how long one guided image takes it at least."""
    from ditzoo.specs import PRECISION_TRAITS

    read = PRECISION_TRAITS[ceilings.precision].bytes * result.parameters / ceilings.copy
    parts = [f"{1e3 * read:.3g} ms for reading the weights once"]
    if result.multiply_adds is not None:
        parts.insert(0, f"{1e3 * result.rows * result.multiply_adds / ceilings.multiply_adds:.3g} ms of products")
    return (
        f"limits of this {ceilings.device} in {ceilings.precision}: {ceilings.multiply_adds / 1e9:.0f} GMAC/s in a product,"
        f" {ceilings.copy / 1e9:.1f} GB/s in a copy; so one guided image takes at least {' or '.join(parts)}"
    )


def _check_plot(path: Path) -> None:
    from ditzoo.files import check_writable
    from ditzoo.measure.plots import check_matplotlib

    check_writable(path.parent, "--plot")
    check_matplotlib()
    if path.suffix != ".svg":
        raise UsageError(f"--plot writes an .svg file, not {path}")


def _draw(result: Bench, path: Path) -> None:
    from ditzoo.files import replacing
    from ditzoo.measure.plots import line_chart, svg

    series: dict[str, list[tuple[float, float]]] = {}
    for entry in result.measurements:
        series.setdefault(entry.backend, []).append((entry.batch, entry.images_per_second))
    figure = line_chart(series, title=f"{result.model}, {result.steps} steps", x_label="batch", y_label="images per second")
    with replacing(path) as scratch:
        scratch.write_text(svg(figure))

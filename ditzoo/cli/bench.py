"""The command `ditzoo bench`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import complete, output
from ditzoo.cli.options import BACKEND, Device, Guidance, Json, Model, Resolution, Reuse, Solver, Steps, Threads
from ditzoo.errors import UsageError

if TYPE_CHECKING:
    from ditzoo.backends.options import BackendSpec
    from ditzoo.bundle import Bundle
    from ditzoo.choices import Choice
    from ditzoo.measure.bench import Bench
    from ditzoo.measure.machine import Ceilings
    from ditzoo.plan.table import Plan
    from ditzoo.zoo.card import Card
    from ditzoo.zoo.sizes import Size

PROMPT = "a photograph"
"""The prompt that text-to-image models draw during the benchmark."""

_REUSE = ">reuse ms"
"""The column for evaluations with reuse. It is there if the plan has reuse."""

_COLUMNS = (
    "backend",
    ">batch",
    ">ms",
    ">?quartiles",
    _REUSE,
    ">ratio",
    ">images/s",
    ">?of limit",
    ">error",
    ">?MB",
    ">?load s",
    ">?first image s",
    ">?outside",
)


def bench(
    model: Model,
    backends: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            autocompletion=complete.backends,
            help=f"The backends to measure side by side: {BACKEND}. auto stands for all that `sample --backend auto` can"
            " choose, and chooses anew.",
        ),
    ] = "torch,onnxruntime",
    batch: Annotated[str, typer.Option(metavar="LIST", help="The batch sizes, in images: 1,8,32.")] = "1",
    solver: Solver = None,
    steps: Steps = None,
    guidance: Guidance = None,
    reuse: Reuse = None,
    resolution: Resolution = None,
    repeats: Annotated[int, typer.Option(help="Timed evaluations of each backend at each batch size.")] = 10,
    warmup: Annotated[int, typer.Option(help="Evaluations before the timed ones.")] = 2,
    device: Device = "cpu",
    threads: Threads = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also plot images per second over the batch size in this .svg file.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure backends side by side: time, memory, and how close they come to the limits of the machine."""
    from ditzoo.cli.automatic import tell
    from ditzoo.measure.bench import check_rounds, count_multiply_adds, parse_batches, rows_per_image, run
    from ditzoo.model.opening import check_openable, open_model
    from ditzoo.model_names import find_model
    from ditzoo.pictures.text_encoder import prompt_condition
    from ditzoo.plan.make import choose_plan
    from ditzoo.sampling.sizes import choose_size
    from ditzoo.weights.catalogue import card_of

    found = find_model(model)
    card = card_of(found)
    plan = choose_plan(found, None, solver=solver, steps=steps, guidance=guidance, reuse=reuse)
    size = choose_size(found, resolution)
    batches = parse_batches(batch)
    check_rounds(repeats, warmup)
    if plot is not None:
        _check_plot(plot)
    rows = sorted({rows_per_image(plan) * images for images in (1, *batches)})
    profiles = ",".join(map(str, rows))
    specs, chosen = _specs(found, backends, plan, batches=batches, size=size, device=device, threads=threads)
    check_openable(found, specs, device=device, threads=threads)
    text = None if card.text is None else prompt_condition(found, [PROMPT], device=device)
    with output.progress(f"{card.name}: {backends}", len(batches) * (warmup + repeats)) as bar:
        openers = [
            partial(open_model, found, spec, device=device, threads=threads, size=size, batch=profiles, plan=plan, display=bar)
            for spec in specs
        ]
        result = run(
            openers,
            plan,
            batches=batches,
            repeats=repeats,
            warmup=warmup,
            size=size,
            text=text,
            multiply_adds=count_multiply_adds(card, size=size),
            advance=bar,
        )
    if json:
        output.json(result)
    else:
        _show(result)
        for choice in chosen:
            tell(choice)
    if plot is not None:
        _draw(result, plot)


def _specs(
    model: Card | Bundle, backends: str, plan: Plan, *, batches: list[int], size: Size, device: str, threads: int | None
) -> tuple[list[BackendSpec], list[Choice]]:
    """The backends of the list, each once. In place of "auto" come all that it may choose, and the new choices are returned."""
    import msgspec

    from ditzoo.backends.options import parse_spec
    from ditzoo.model.automatic import fastest_backend, own_precision
    from ditzoo.model.opening import is_automatic
    from ditzoo.records import to_json

    names: list[str] = []
    chosen: list[Choice] = []
    for text in backends.split(","):
        if not is_automatic(text):
            names.append(text)
            continue
        for images in batches:
            choice = fastest_backend(
                model, text, device=device, threads=threads, size=size, images=images, plan=plan, again=True, display=output
            )
            names += [f"{name}:{choice.situation.precision}" for name in choice.measured]
            chosen.append(choice)
    specs: dict[bytes, BackendSpec] = {}
    for spec in map(parse_spec, names):
        whole = msgspec.structs.replace(spec, precision=spec.precision or own_precision(model), device=spec.device or device)
        specs.setdefault(to_json(whole), spec)
    return list(specs.values()), chosen


def _show(result: Bench) -> None:
    first = result.measurements[0]
    base = {entry.batch: entry.evaluation.median for entry in reversed(result.measurements)}
    rows = [
        (
            entry.backend,
            str(entry.batch),
            f"{1e3 * entry.evaluation.median:.2f}",
            f"{1e3 * entry.evaluation.low:.2f}-{1e3 * entry.evaluation.high:.2f}",
            *([] if entry.reuse is None else [f"{1e3 * entry.reuse.median:.2f}"]),
            f"{base[entry.batch] / entry.evaluation.median:.2f}x",
            f"{entry.images_per_second:.3g}",
            "" if (share := result.share(entry)) is None else f"{share:.0%}",
            f"{entry.error:.1e}",
            " + ".join(f"{size / 1e6:.0f}" for size in (entry.host_memory, entry.device_memory) if size is not None),
            f"{entry.load:.2f}",
            f"{entry.first_image:.2f}",
            f"{entry.overhead:.1%}",
        )
        for entry in result.measurements
    ]
    output.table([column for column in _COLUMNS if column != _REUSE or first.reuse is not None], rows)
    work = "" if result.multiply_adds is None else f"; {result.multiply_adds / 1e9:.4g} GMAC per image and evaluation"
    output.talk(
        f"{result.model}, {result.steps} evaluations per image{work}; ms: time of one guided evaluation"
        f"{'; reuse ms: the same with reuse of the middle blocks' if first.reuse else ''}; ratio: speed relative"
        f" to {first.backend}; error: relative L2 difference from {first.backend}; outside: share of the first image's time"
        " that was spent outside the network; MB: memory for loading and drawing one image, host + GPU;"
        f" {result.warmup} rounds of warm-up"
    )
    for ceilings in result.ceilings:
        output.talk(_limits(result, ceilings))
    output.talk(", ".join(f"{key} {value}" for key, value in result.machine.items()))


def _limits(result: Bench, ceilings: Ceilings) -> str:
    """The limits of a device, and the least time that they allow for one guided image."""
    work, read = result.least_seconds(ceilings)
    parts = [] if work is None else [f"{1e3 * work:.3g} ms of matrix multiplication"]
    parts.append(f"{1e3 * read:.3g} ms for reading the weights once")
    return (
        f"limits of this {ceilings.device} in {ceilings.precision}: {ceilings.multiply_adds / 1e9:.0f} GMAC/s in a matrix"
        f" multiplication, {ceilings.copy / 1e9:.1f} GB/s in a copy; least time of one guided evaluation of one image:"
        f" {', '.join(parts)}"
    )


def _check_plot(path: Path) -> None:
    from ditzoo.files import check_output_file
    from ditzoo.measure.plots import check_matplotlib

    check_output_file(path, "--plot")
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
    with replacing(path, option="--plot") as scratch:
        scratch.write_text(svg(figure), encoding="utf-8")

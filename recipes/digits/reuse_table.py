"""Measures what reuse saves and costs on the embedded models, and writes two tables of docs/samplers.md between their marks:
reuse of the middle blocks, and guidance at less cost.

    python -m recipes.digits.reuse_table
    python -m recipes.digits.reuse_table --random dit-xl-2 --backend onnxruntime:int8

Each plan draws 1,000 guided digits. A table has the rows of the network and the blocks that run, as shares of those of the plan
without reuse, the speed of one whole sampling run of ten digits relative to that plan (the medians of runs in turns), the share
of digits that the classifier reads as the one that was asked for, the Fréchet distance to the real held-out half on the
classifier's features, and the relative L2 error of the latents against the plan without reuse.

The rows of a tuned plan were found with other noise than that of the table. With --random, both tables are printed for one
image of a model with random weights. They have the speed and the error alone, say nothing about the quality, and have no tuned
plans.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from sklearn.neural_network import MLPClassifier

import ditzoo
from ditzoo.backends.base import Backend
from ditzoo.backends.options import parse_spec
from ditzoo.evaluation.digits import Digits, fit_classifier, load
from ditzoo.measure.machine import machine
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.tuning import tune
from ditzoo.model.opening import open_model
from ditzoo.model.tuning import default_blocks
from ditzoo.plan.table import Plan
from ditzoo.plan.tuning import block_runs
from ditzoo.sampling.condition import class_condition
from recipes.digits.evaluate import CLASSES
from recipes.judging import judge
from recipes.random_models import MODELS, random_model

DOCS = Path(__file__).parents[2] / "docs" / "samplers.md"
MARKS = {
    "reuse": ("<!-- reuse_table.py writes from here -->\n", "<!-- to here, reuse -->\n"),
    "guidance": ("<!-- reuse_table.py writes from here, guidance -->\n", "<!-- to here, guidance -->\n"),
}
PLANS = (
    ("dit-digits", "ddim", 50),
    ("dit-digits", "dpmpp", 50),
    ("dit-digits", "dpmpp", 20),
    ("uvit-digits", "dpmpp-fast", 20),
)
RANDOM = ("dpmpp", 50)
EVERY = (2, 3, 4)
INTERVAL = (0.3, 3.0)
BOTH = 1.7, 3
"""The factor of a tuned plan, and `--guidance-every`, which the last table has together."""
HEAD = (
    "| model, solver, steps | plan | rows | blocks | speed | read as asked | Fréchet distance | error of latents |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """How much is drawn: `count` images for the error, `timed` images in each of `turns` timed runs, or no timing at 0."""

    count: int
    timed: int
    turns: int


def reuse_plans(backend: Backend, plan: Plan, *, tuned: bool, **options: object) -> Iterator[tuple[str, Plan]]:
    """The plans of the first table, with their names: evenly spaced full rows, and, if `tuned`, tuned ones of the same cost."""
    blocks, outer = backend.card.backbone.blocks, default_blocks(backend.card)
    yield "none", plan
    for every in EVERY:
        reuse = f"every={every},blocks={outer}"
        even = ditzoo.make_plan(backend.card, **options, reuse=reuse)  # type: ignore[arg-type]
        yield f"`--reuse {reuse}`", even
        if tuned:
            factor = math.floor(100 * block_runs(plan, blocks) / block_runs(even, blocks)) / 100
            reuse = tuned_reuse(backend, plan, factor)
            yield f"`plan tune --target {factor:g}x`", ditzoo.make_plan(backend.card, **options, reuse=reuse)  # type: ignore[arg-type]


def tuned_reuse(backend: Backend, plan: Plan, factor: float) -> str:
    """The option that `ditzoo plan tune` finds with four images of other noise than that of the tables."""
    condition, outer = class_condition(backend.card, range(4)), default_blocks(backend.card)
    return tune(backend, plan, outer=outer, target=factor, condition=condition, count=4, seed=1).reuse


def guidance_plans(backend: Backend, plan: Plan, *, tuned: bool, **options: object) -> Iterator[tuple[str, Plan]]:
    """The plans of the second table, with their names. If `tuned`, one has a tuned list of full rows too."""
    interval, reuse = "--guidance-interval {:g},{:g}".format(*INTERVAL), f"every=2,blocks={default_blocks(backend.card)}"
    variants: list[tuple[str, dict[str, object]]] = [
        *((f"`--guidance-every {every}`", {"guidance_every": every}) for every in EVERY),
        (f"`{interval}`", {"guidance_interval": INTERVAL}),
        (f"`{interval} --guidance-every 2`", {"guidance_interval": INTERVAL, "guidance_every": 2}),
        (f"`--guidance-every 2 --reuse {reuse}`", {"guidance_every": 2, "reuse": reuse}),
        ("`--guidance 1`", {"guidance": 1.0}),
    ]
    if tuned:
        factor, every = BOTH
        given = {"guidance_every": every, "reuse": tuned_reuse(backend, plan, factor)}
        variants.insert(-1, (f"`--guidance-every {every}`, `plan tune --target {factor:g}x`", given))
    yield "none", plan
    for label, given in variants:
        yield label, ditzoo.make_plan(backend.card, **{**options, **given})  # type: ignore[arg-type]


def speeds(backend: Backend, plans: list[Plan], work: Work) -> list[str]:
    """The speed of a sampling run of each plan relative to the first one: the ratio of the medians of runs in turns."""
    if work.turns == 0:
        return ["not measured"] * len(plans)
    seconds: list[list[float]] = [[] for _ in plans]
    warm = 0 if work.timed == work.count else 1  # if so many images were drawn just before, no turn is for warming up
    for turn in range(warm + work.turns):
        for times, plan in zip(seconds, plans, strict=True):
            started = time.perf_counter()
            ditzoo.sample(backend, plan, classes=CLASSES[: work.timed].tolist())
            if turn >= warm:
                times.append(time.perf_counter() - started)
    medians = [float(np.median(times)) for times in seconds]
    return [f"{medians[0] / median:.2f} ×" for median in medians]


def lines(
    backend: Backend, title: str, named: list[tuple[str, Plan]], work: Work, judges: tuple[MLPClassifier, Digits] | None
) -> Iterator[str]:
    """The rows of a table for the plans of one model. The first plan is the one without reuse."""
    plans, blocks = [plan for _, plan in named], backend.card.backbone.blocks
    classes, without = CLASSES[: work.count], plans[0]
    latents = [ditzoo.sample(backend, plan, classes=classes.tolist(), batch=100) for plan in plans]
    for (label, plan), speed, drawn in zip(named, speeds(backend, plans, work), latents, strict=True):
        judged = ("–", "–") if judges is None else read_and_distance(drawn, *judges)
        cells = (
            title,
            label,
            f"{plan.evaluations / without.evaluations:.0%}",
            f"{block_runs(plan, blocks) / block_runs(without, blocks):.0%}",
            speed,
            *judged,
            f"{relative_l2(drawn, latents[0]):.1%}",
        )
        yield f"| {' | '.join(cells)} |"


def read_and_distance(drawn: np.ndarray, classifier: MLPClassifier, held_out: Digits) -> tuple[str, str]:
    """The share of digits that are read as asked, and the Fréchet distance, as text."""
    judged = judge(Digits(images=np.clip(drawn, -1, 1), labels=CLASSES[: len(drawn)]), classifier, held_out)
    return f"{judged['read']:.1%}", f"{judged['frechet_features']:.2f}"


def about(load: float, work: Work) -> str:
    """The machine, and how busy it was."""
    facts = ", ".join(f"{key} {value}" for key, value in machine().items())
    if work.turns == 0:
        return f"\nThe speeds were not measured. Measured on: {facts}.\n"
    return f"\nMeasured with load average {load:.1f} at the start and {os.getloadavg()[0]:.1f} at the end; {facts}.\n"


def write_tables(backend: str, work: Work) -> None:
    """Measures every plan of the embedded models, and writes both tables into the documentation."""
    train, held_out = load()
    judges, load_before = (fit_classifier(train), held_out), os.getloadavg()[0]
    tables = {"reuse": HEAD, "guidance": HEAD}
    for name, solver, steps in PLANS:
        plan = ditzoo.make_plan(name, solver=solver, steps=steps)
        probed = msgspec.structs.replace(plan, outer_blocks=1)
        with open_model(name, parse_spec(backend), plan=probed) as opened:
            for table, make in (("reuse", reuse_plans), ("guidance", guidance_plans)):
                named = list(make(opened, plan, tuned=True, solver=solver, steps=steps))
                for line in lines(opened, f"{name}, `{solver}`, {steps}", named, work, judges):
                    tables[table] += f"\n{line}"
                    print(line, flush=True)
    text = DOCS.read_text(encoding="utf-8")
    for table, (begin, end) in MARKS.items():
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}{tables[table]}\n{about(load_before, work)}{end}{after}"
    DOCS.write_text(text, encoding="utf-8")


def print_random(model: str, backend: str, work: Work) -> None:
    """Measures every plan of a model with random weights, and prints both tables."""
    card, (solver, steps) = random_model(model), RANDOM
    plan, load_before = ditzoo.make_plan(card, solver=solver, steps=steps), os.getloadavg()[0]
    with open_model(card, parse_spec(backend), plan=msgspec.structs.replace(plan, outer_blocks=default_blocks(card))) as opened:
        for make in (reuse_plans, guidance_plans):
            print(f"\n{HEAD}")
            named = list(make(opened, plan, tuned=False, solver=solver, steps=steps))
            for line in lines(opened, f"{model}, `{solver}`, {steps}", named, work, None):
                print(line, flush=True)
    print(about(load_before, work))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="torch", help="torch, onnxruntime or openvino, with options")
    parser.add_argument("--random", choices=sorted(MODELS), help="a model with random weights, instead of the embedded ones")
    parser.add_argument(
        "--turns", type=int, help="the number of timed runs of each plan; 0 measures no speed. Default: 5, or 1"
    )
    options = parser.parse_args()
    if options.random is None:
        write_tables(options.backend, Work(count=1000, timed=10, turns=5 if options.turns is None else options.turns))
    else:
        print_random(
            options.random, options.backend, Work(count=1, timed=1, turns=1 if options.turns is None else options.turns)
        )


if __name__ == "__main__":
    main()

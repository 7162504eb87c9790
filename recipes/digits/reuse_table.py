"""Measures reuse of the middle blocks on the embedded models, and writes the table of docs/samplers.md between its two marks.

    python -m recipes.digits.reuse_table

Each plan draws 300 guided digits. The table has the work that is left (blocks that run, as a share of those without reuse),
the speed of one whole sampling run of ten digits relative to the plan without reuse (the medians of runs in turns, on torch),
the share of digits that the classifier reads as the one that was asked for, the Fréchet distance to the real held-out half on
the classifier's features, and the relative L2 error of the latents against the plan without reuse.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

import ditzoo
from ditzoo.backends.base import Backend
from ditzoo.evaluation.digits import Digits, fit_classifier, load
from ditzoo.measure.machine import machine
from ditzoo.measure.metrics import relative_l2
from ditzoo.plan.table import Plan
from recipes.digits.evaluate import CLASSES
from recipes.judging import judge

DOCS = Path(__file__).parents[2] / "docs" / "samplers.md"
BEGIN, END = "<!-- reuse_table.py writes from here -->\n", "<!-- to here, reuse -->\n"

PLANS = (
    ("dit-digits", "ddim", 50),
    ("dit-digits", "dpmpp", 20),
    ("uvit-digits", "dpmpp-fast", 20),
)
EVERY = (1, 2, 3, 4)
COUNT, TIMED_IMAGES, TURNS = 300, 10, 5


def work_left(plan: Plan, blocks: int) -> float:
    """The blocks that a plan runs for an image, as a share of all blocks in all its evaluations."""
    ran = [2 * int(plan.outer_blocks) if row.reuses else blocks for row in plan.rows]
    return sum(ran) / (blocks * len(plan.rows))


def speeds(backend: Backend, plans: list[Plan]) -> list[float]:
    """The speed of a sampling run of each plan relative to the first one: the ratio of the medians of runs in turns."""
    seconds: list[list[float]] = [[] for _ in plans]
    for turn in range(1 + TURNS):
        for times, plan in zip(seconds, plans, strict=True):
            started = time.perf_counter()
            ditzoo.sample(backend, plan, classes=CLASSES[:TIMED_IMAGES].tolist())
            if turn:  # the first turn is for warming up
                times.append(time.perf_counter() - started)
    medians = [float(np.median(times)) for times in seconds]
    return [medians[0] / median for median in medians]


def table() -> str:
    """Measures every plan, and returns the table as Markdown."""
    train, held_out = load()
    classifier = fit_classifier(train)
    lines = [
        "| model, solver, steps | reuse | blocks run | speed | read as asked | Fréchet distance | error of latents |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    load_before = os.getloadavg()[0]
    for name, solver, steps in PLANS:
        card = ditzoo.card(name)
        reuses = [f"every={every},blocks=1" for every in EVERY]
        plans = [ditzoo.make_plan(card, solver=solver, steps=steps, reuse=reuse) for reuse in reuses]
        with ditzoo.open_backend("torch", card) as backend:
            ratios = speeds(backend, plans)
            latents = [ditzoo.sample(backend, plan, classes=CLASSES[:COUNT].tolist(), batch=100) for plan in plans]
        for reuse, plan, ratio, drawn in zip(reuses, plans, ratios, latents, strict=True):
            judged = judge(Digits(images=np.clip(drawn, -1, 1), labels=CLASSES[:COUNT]), classifier, held_out)
            cells = (
                f"{name}, `{solver}`, {steps}",
                "none" if plan is plans[0] else f"`{reuse}`",
                f"{work_left(plan, card.backbone.blocks):.0%}",
                f"{ratio:.2f} ×",
                f"{judged['read']:.1%}",
                f"{judged['frechet_features']:.2f}",
                f"{relative_l2(drawn, latents[0]):.1%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    load_text = f"load average {load_before:.1f} at the start and {os.getloadavg()[0]:.1f} at the end"
    return "\n".join(lines) + f"\n\nMeasured with {torch.get_num_threads()} thread(s), {load_text}; {about}.\n"


def main() -> None:
    argparse.ArgumentParser(description="Write the table of reuse in docs/samplers.md.").parse_args()
    before, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    DOCS.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

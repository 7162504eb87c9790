"""Measures every solver on an embedded model, and writes the table of docs/samplers.md between its two marks.

    python -m recipes.digits.solvers_table

For each solver and number of steps, dit-digits draws 300 guided digits. The table has the share that the classifier reads as
the digit that was asked for, and the Fréchet distance to the real held-out half, on the classifier's features.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import ditzoo
from ditzoo.evaluation.digits import Digits, fit_classifier, load
from recipes.judging import judge

DOCS = Path(__file__).parents[2] / "docs" / "samplers.md"
BEGIN, END = "<!-- solvers_table.py writes from here -->\n", "<!-- to here -->\n"

MODEL, COUNT = "dit-digits", 300
STEPS = {
    "ddpm": (20, 50, 250),
    "ddim": (10, 20, 50),
    "dpmpp": (5, 10, 20),
    "dpmpp-fast": (10, 20, 50),
    "dpm-fast": (10, 20, 50),
    "euler-maruyama": (100, 1000),
    "ode-euler": (20, 50, 100),
    "ode-heun": (11, 21, 51),
    "diffusers:UniPCMultistepScheduler": (5, 10, 20),
}


def draw(solver: str, steps: int) -> Digits:
    """COUNT digits drawn with a solver, with the classes equally frequent."""
    card, labels = ditzoo.card(MODEL), np.arange(COUNT) % 10
    plan = ditzoo.make_plan(card, solver=solver, steps=steps)
    with ditzoo.open_backend("torch", card) as backend:
        latents = ditzoo.sample(backend, plan, classes=labels.tolist(), batch=100)
    return Digits(images=np.clip(latents, -1, 1), labels=labels)


def table() -> str:
    """Measures every solver, and returns the table as Markdown."""
    train, held_out = load()
    classifier = fit_classifier(train)
    lines = ["| solver | steps | read as asked | Fréchet distance |", "| --- | ---: | ---: | ---: |"]
    for solver, counts in STEPS.items():
        for steps in counts:
            judged = judge(draw(solver, steps), classifier, held_out)
            lines.append(f"| `{solver}` | {steps} | {judged['read']:.1%} | {judged['frechet_features']:.2f} |")
            print(lines[-1], flush=True)
    real = judge(train, classifier, held_out)
    lines.append(f"| real digits, training half | | {real['read']:.1%} | {real['frechet_features']:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description="Write the table of solvers in docs/samplers.md.").parse_args()
    before, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    DOCS.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

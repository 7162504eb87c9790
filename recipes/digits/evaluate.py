"""Measures whether the digits that the embedded models draw can be read, and how far they are from real digits.

    python -m recipes.digits.evaluate dit-digits uvit-digits

Each model draws 1,000 guided samples with the defaults of its card, 100 of each digit. A classifier that was fitted on the
real training half reads them. The Fréchet distance to the real held-out half is measured on pixels and on the classifier's
features. The real training half is measured in the same way, for comparison.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

import ditzoo
from ditzoo.evaluation.digits import Digits, fit_classifier, load
from recipes.judging import judge

CLASSES = np.arange(1000) % 10


def generate(name: str, *, solver: str | None = None, steps: int | None = None, guidance: float | None = None) -> Digits:
    """1,000 digits drawn by the model called `name`."""
    card = ditzoo.card(name)
    plan = ditzoo.make_plan(card, solver=solver, steps=steps, guidance=guidance)
    with ditzoo.open_backend("torch", card) as backend:
        latents = ditzoo.sample(backend, plan, classes=CLASSES.tolist(), batch=250)
    return Digits(images=np.clip(latents, -1, 1), labels=CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded digits models.")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--solver")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    options = parser.parse_args()
    train, held_out = load()
    classifier = fit_classifier(train)
    results = {
        "classifier on held-out digits": float(classifier.score(held_out.pixels, held_out.labels)),
        "real training digits": judge(train, classifier, held_out),
    }
    for name in options.models:
        drawn = generate(name, solver=options.solver, steps=options.steps, guidance=options.guidance)
        results[name] = judge(drawn, classifier, held_out)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

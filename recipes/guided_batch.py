"""Measures what batching both halves of a guided image costs: one evaluation of 2B rows against two evaluations of B rows.

    python recipes/guided_batch.py --backends torch,onnxruntime,openvino --batch 1,10
    python recipes/guided_batch.py --model dit-xl-2 --backends onnxruntime,openvino:int8 --batch 1

Prints a table in Markdown, with the medians of evaluations in turns. "B rows" is an evaluation of cond alone, which is what a
row of a plan takes that has no guidance or reuses the difference of the two conditions.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
from random_models import MODELS, random_model

import ditzoo
from ditzoo.backends.base import Backend
from ditzoo.backends.options import parse_spec
from ditzoo.measure.machine import machine
from ditzoo.model.opening import open_model, sampling_batch
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import evaluation_inputs, fitted
from ditzoo.sampling.noise import gaussian
from ditzoo.specs import Array


def evaluations(backend: Backend, batch: int) -> dict[str, Callable[[], None]]:
    """What is measured, by name: the evaluations of one guided step of `batch` images, and of one that evaluates cond alone."""
    card = backend.card
    row = ditzoo.make_plan(card, steps=3).rows[1]
    condition = class_condition(card, [image % card.number_of_classes for image in range(batch)])
    x = np.stack([gaussian(0, image, 0, card.backbone.latent_shape) for image in range(batch)])
    both = evaluation_inputs(x, row, condition)
    whole = fitted(backend, both)
    cond, null = (
        fitted(backend, {name: value[part] for name, value in both.items()}) for part in (np.s_[:batch], np.s_[batch:])
    )

    def run(*parts: dict[str, Array]) -> None:
        for part in parts:
            backend.numpy(backend(part))

    return {"2B rows": lambda: run(whole), "B rows, twice": lambda: run(cond, null), "B rows": lambda: run(cond)}


def medians(backend: Backend, batch: int, *, repeats: int, warmup: int) -> dict[str, float]:
    """The median milliseconds of each evaluation, in turns."""
    calls = evaluations(backend, batch)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - started)
    return {name: 1e3 * float(np.median(times)) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dit-digits", help=f"a model with its weights, or one of {', '.join(MODELS)}")
    parser.add_argument("--backends", default="torch,onnxruntime,openvino")
    parser.add_argument("--batch", default="1,10", help="numbers of images B")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    found = random_model(options.model) if options.model in MODELS else ditzoo.card(options.model)
    batches = [int(batch) for batch in options.batch.split(",")]
    print("| backend | B | 2B rows, ms | B rows twice, ms | B rows, ms | twice / 2B | 2B / B |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for text in options.backends.split(","):
        with open_model(found, parse_spec(text), threads=options.threads, batch=sampling_batch(max(batches))) as backend:
            for batch in batches:
                took = medians(backend, batch, repeats=options.repeats, warmup=options.warmup)
                whole, twice, half = took.values()
                cells = (backend.name, str(batch), *(f"{value:.2f}" for value in took.values()))
                print(f"| {' | '.join(cells)} | {twice / whole:.2f} | {whole / half:.2f} |", flush=True)
    print(
        f"\nLoad average {os.getloadavg()[0]:.1f} at the end; {', '.join(f'{key} {value}' for key, value in machine().items())}"
    )


if __name__ == "__main__":
    main()

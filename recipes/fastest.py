"""Times the whole sampling of one guided image with a large network: diffusers, and each step to ditzoo's fastest way.

    python recipes/fastest.py --json fastest.json

Every contestant draws the same image with the same plan, DPM-Solver++ in 50 steps, one after the other, in as many turns as
asked. Loading and a first run of two steps are not counted. "reuse" are the options of the plan that save work: `--reuse` and
`--guidance-every`. Prints a table in Markdown with the median seconds, the factors to diffusers in fp32 and in bf16, and two
relative L2 errors of the final latents: against ONNX Runtime in fp32, and against the same backend without reuse. The weights
are random, so the errors say nothing of quality. The lists of full rows were found on a trained model, dit-digits:

    ditzoo plan tune dit-digits --solver dpmpp --steps 50 --target 1.7x
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
from random_models import MODELS, random_model

import ditzoo
from ditzoo.backends.options import parse_spec
from ditzoo.measure.machine import machine
from ditzoo.measure.metrics import relative_l2
from ditzoo.model.opening import open_model
from ditzoo.zoo.card import Card


class Contestant(msgspec.Struct, frozen=True):
    """A backend, and the options of the plan that save work."""

    backend: str
    reuse: str | None = None
    guidance_every: int | None = None


EXACT = Contestant("onnxruntime")
HALF = "every=2,blocks=4"
REST_IN_BF16 = "openvino:int8:INFERENCE_PRECISION_HINT=bf16"
TUNED = "full=0,7,12,15,18,20,23,26,29,32,34,36,38,40,42,44,46,48-49,blocks=4"
CONTESTANTS = (
    Contestant("diffusers"),
    Contestant("diffusers:bf16"),
    EXACT,
    Contestant("onnxruntime:int8"),
    Contestant("openvino:int8"),
    Contestant(REST_IN_BF16),
    Contestant(REST_IN_BF16, HALF),
    Contestant(REST_IN_BF16, TUNED),
    Contestant(REST_IN_BF16, TUNED, 3),
)
"""They run in this order. The first two are the baselines."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The seconds of a contestant in each turn, and the errors of its latents."""

    contestant: Contestant
    seconds: list[float]
    error: float
    reuse_error: float


def draw(card: Card, contestant: Contestant, steps: int) -> tuple[float, np.ndarray]:
    """The seconds of one sampling run, and its latents. All contestants of a backend run the same export."""
    plan, first = (
        ditzoo.make_plan(card, solver="dpmpp", steps=count, reuse=reuse, guidance_every=contestant.guidance_every)
        for count, reuse in ((steps, contestant.reuse), (2, HALF if contestant.reuse else None))
    )
    reuse = HALF if any(other.backend == contestant.backend and other.reuse for other in CONTESTANTS) else None
    with open_model(card, parse_spec(contestant.backend), plan=ditzoo.make_plan(card, steps=2, reuse=reuse)) as opened:
        ditzoo.sample(opened, first, classes=[7], seed=0)
        started = time.perf_counter()
        latents = ditzoo.sample(opened, plan, classes=[7], seed=0)
        return time.perf_counter() - started, latents


def measure(card: Card, *, steps: int, turns: int) -> list[Result]:
    """Runs every contestant in each turn."""
    seconds: dict[Contestant, list[float]] = {contestant: [] for contestant in CONTESTANTS}
    drawn: dict[Contestant, np.ndarray] = {}
    for turn in range(turns):
        for contestant in CONTESTANTS:
            taken, drawn[contestant] = draw(card, contestant, steps)
            seconds[contestant].append(taken)
            print(f"turn {turn + 1}, {contestant}: {taken:.1f} s", flush=True)
    return [
        Result(
            contestant=contestant,
            seconds=seconds[contestant],
            error=float(relative_l2(latents, drawn[EXACT])),
            reuse_error=float(relative_l2(latents, drawn[Contestant(contestant.backend)])),
        )
        for contestant, latents in drawn.items()
    ]


def table(results: list[Result]) -> list[str]:
    """The lines of a Markdown table."""
    fp32, bf16 = (median(result.seconds) for result in results[:2])
    lines = [
        "| backend | reuse | s | times diffusers fp32 | times diffusers bf16 | error | error of reuse |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        taken = median(result.seconds)
        one = result.contestant
        options = [f"`--reuse {one.reuse}`"] if one.reuse else []
        options += [f"`--guidance-every {one.guidance_every}`"] if one.guidance_every else []
        numbers = f"{taken:.1f} | {fp32 / taken:.2f} | {bf16 / taken:.2f} | {result.error:.1e} | {result.reuse_error:.1e}"
        lines.append(f"| `{one.backend}` | {', '.join(options) or 'none'} | {numbers} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one guided image on ditzoo's fastest backend and on diffusers.")
    parser.add_argument("--model", choices=MODELS, default="dit-xl-2")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    card, before = random_model(options.model), os.getloadavg()[0]
    results = measure(card, steps=options.steps, turns=options.turns)
    print("\n".join(table(results)))
    about = ", ".join(f"{key} {value}" for key, value in machine().items())
    work = f"{card.name}, one guided image, {options.steps} steps, {options.turns} turn(s)"
    print(f"\n{work}; load average before {before:.1f}; {about}")
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))


if __name__ == "__main__":
    main()

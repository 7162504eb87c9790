"""Measures which share of the processor's rate each backend reaches in one evaluation for one guided image, on this machine.

    python recipes/rates.py --model dit-xl-2 --backends onnxruntime,openvino:bf16,openvino:int8,onnxruntime:int8

Prints a table in Markdown. The rate is that of a large matrix multiplication in the same precision: the fastest of several,
which processes of their own compute before and after the evaluations. Each backend has a process of its own too: what other
libraries leave behind in a process makes evaluations slower. The error is the relative L2 error against torch in fp32. Exports
are made before, so that they are not beside the measurements.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from random_models import MODELS, random_model

from ditzoo.backends.options import parse_spec
from ditzoo.measure.machine import machine, seconds
from ditzoo.measure.metrics import relative_l2
from ditzoo.model.opening import open_model, sampling_batch
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import evaluation_inputs, fitted
from ditzoo.sampling.noise import gaussian

REFERENCE = "torch"


def rates() -> dict[str, float]:
    """Multiply-adds per second of a large matrix multiplication, by precision."""
    from bench_peers import multiplication_rates

    from ditzoo.measure.machine import ceilings

    return {"fp32": ceilings().multiply_adds, **multiplication_rates()}


def evaluate(model: str, backend: str, output: Path, *, repeats: int) -> float:
    """The median seconds of an evaluation. The prediction goes to the file `output`. No repeats only make the export."""
    card = random_model(model)
    with open_model(card, parse_spec(backend), batch=sampling_batch(1)) as opened:
        x = gaussian(0, 0, 0, card.backbone.latent_shape)[None]
        inputs = fitted(opened, evaluation_inputs(x, make_plan(card, steps=3).rows[1], class_condition(card, [0])))
        taken = [seconds(lambda: opened.numpy(opened(inputs))) for _ in range(2 + repeats)][2:] if repeats else []
        np.save(output, opened.numpy(opened(inputs)))
    return float(np.median(taken or [0]))


def in_a_process(*typed: object) -> Any:
    """What this program prints as JSON in a new process, with other options."""
    done = subprocess.run([sys.executable, __file__, *map(str, typed)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measures all backends, one after the other, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="dit-xl-2")
    parser.add_argument("--backends", default="onnxruntime,openvino:bf16,openvino:int8,onnxruntime:int8")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rates", action="store_true", help="print the rates alone, as JSON")
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "FILE"), help="evaluate one backend alone, as JSON")
    options = parser.parse_args()
    if options.rates:
        print(json.dumps(rates()))
    elif options.one:
        print(json.dumps(evaluate(options.model, options.one[0], Path(options.one[1]), repeats=options.repeats)))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            table(options, Path(scratch))


def table(options: argparse.Namespace, scratch: Path) -> None:
    """Prints the table."""
    from ditzoo.measure.operations import multiply_adds

    backends = (REFERENCE, *options.backends.split(","))
    work, reference = 2 * multiply_adds(random_model(options.model).backbone), scratch / "reference.npy"
    for backend in backends:
        in_a_process("--model", options.model, "--repeats", 0, "--one", backend, scratch / "output.npy")
    print("| backend | ms | GMAC/s | rate of the processor | share | error |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for backend in backends:
        output = reference if backend == REFERENCE else scratch / "output.npy"
        before = in_a_process("--rates")
        took = in_a_process("--model", options.model, "--repeats", options.repeats, "--one", backend, output)
        precision = parse_spec(backend).precision or "fp32"
        limit, speed = max(before[precision], in_a_process("--rates")[precision]), work / took
        error = relative_l2(np.load(output), np.load(reference))
        figures = f"{1e3 * took:.0f} | {speed / 1e9:.0f} | {limit / 1e9:.0f} | {speed / limit:.0%} | {error:.1e}"
        print(f"| {backend} | {figures} |", flush=True)
    print(f"\n{options.model}, {work / 1e9:.1f} GMAC; {', '.join(f'{key} {value}' for key, value in machine().items())}")


if __name__ == "__main__":
    main()

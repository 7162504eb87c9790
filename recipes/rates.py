"""Measures which share of the processor's rate each backend reaches in one evaluation for one guided image, on this machine.

    python recipes/rates.py --model dit-xl-2 --backends onnxruntime,openvino:bf16,openvino:int8,onnxruntime:int8

Prints a table in Markdown. Each backend has a process of its own, because in a shared one the threads of the others still spin.
The rate is that of a large matrix multiplication in the same precision: the fastest of several before and after the
evaluations. The error is the relative L2 error against torch in fp32.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_peers import multiplication_rates, opener
from random_models import MODELS, random_model

from ditzoo.backends.options import parse_spec
from ditzoo.measure.machine import ceilings, machine, seconds
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.operations import multiply_adds
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import evaluation_inputs, fitted
from ditzoo.sampling.noise import gaussian

REFERENCE = "torch"


def rates() -> dict[str, float]:
    """Multiply-adds per second of a large matrix multiplication, by precision."""
    return {"fp32": ceilings().multiply_adds, **multiplication_rates()}


def measure(model: str, backend: str, output: Path, *, repeats: int) -> dict[str, float]:
    """The median seconds of an evaluation, and the rate of its precision. The prediction goes to the file `output`."""
    card, precision = random_model(model), parse_spec(backend).precision or "fp32"
    before = rates()[precision]
    with opener(card, backend)() as opened:
        x = gaussian(0, 0, 0, card.backbone.latent_shape)[None]
        inputs = fitted(opened, evaluation_inputs(x, make_plan(card, steps=3).rows[1], class_condition(card, [7])))
        taken = [seconds(lambda: opened.numpy(opened(inputs))) for _ in range(2 + repeats)][2:]
        np.save(output, opened.numpy(opened(inputs)))
    return {"seconds": float(np.median(taken)), "rate": max(before, rates()[precision])}


def alone(options: argparse.Namespace, backend: str, output: Path) -> dict[str, float]:
    """The result of `measure` in a new process."""
    typed = ["--model", options.model, "--repeats", str(options.repeats), "--one", backend, str(output)]
    done = subprocess.run([sys.executable, __file__, *typed], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measures all backends, one after the other, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="dit-xl-2")
    parser.add_argument("--backends", default="onnxruntime,openvino:bf16,openvino:int8,onnxruntime:int8")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "FILE"), help="one measurement, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.model, options.one[0], Path(options.one[1]), repeats=options.repeats)))
        return
    work = 2 * multiply_adds(random_model(options.model).backbone)
    print("| backend | ms | GMAC/s | rate of the processor | share | error |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        reference = Path(scratch, "reference.npy")
        for backend in (REFERENCE, *options.backends.split(",")):
            output = reference if backend == REFERENCE else Path(scratch, "output.npy")
            found = alone(options, backend, output)
            speed, error = work / found["seconds"], relative_l2(np.load(output), np.load(reference))
            figures = (
                f"{1e3 * found['seconds']:.0f} | {speed / 1e9:.0f} | {found['rate'] / 1e9:.0f} | {speed / found['rate']:.0%}"
            )
            print(f"| {backend} | {figures} | {error:.1e} |", flush=True)
    print(f"\n{options.model}, {work / 1e9:.1f} GMAC; {', '.join(f'{key} {value}' for key, value in machine().items())}")


if __name__ == "__main__":
    main()

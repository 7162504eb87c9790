"""Measures how the default number of threads compares with fixed ones, on the idle machine and beside CPU-bound processes.

    python recipes/threads.py --backends torch,onnxruntime,openvino --batch 1,10

Prints a table in Markdown. Each measurement is a process of its own, and the settings take turns. The default is what ditzoo
does by itself. The other settings are one thread, and one thread per core that spins or sleeps while it waits. "idle" means
that this program starts nothing beside the measurement; the column "load" says how many other threads ran on the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from random_models import MODELS, random_model

from ditzoo import Card, card, make_plan, sample
from ditzoo.backends import threads
from ditzoo.backends.options import parse_spec
from ditzoo.measure.machine import machine
from ditzoo.model.opening import open_model, sampling_batch

SETTINGS = ("default", "one", "spinning", "sleeping")

BUSY_LOOP = "while True: pass"


def main() -> None:
    """Measures all backends and batches in both situations, and prints the table."""
    arguments = _arguments()
    if arguments.one is not None:
        backend, batch, setting = arguments.one
        print(json.dumps(measure(arguments.model, backend, int(batch), setting, steps=arguments.steps)))
        return
    print(", ".join(f"{name} {version}" for name, version in machine().items()))
    print("\n| situation | backend | images | " + " | ".join(SETTINGS) + " | default / best | CPU of the default | load |")
    print("| --- | --- | ---: |" + " ---: |" * (len(SETTINGS) + 3))
    for situation, loops in (("idle", 0), (f"{arguments.busy} busy processes", arguments.busy)):
        for backend in arguments.backends.split(","):
            for batch in arguments.batch.split(","):
                with busy_processes(loops):
                    print(row(situation, backend, batch, in_turns(arguments, backend, batch)), flush=True)


def row(situation: str, backend: str, batch: str, rounds: dict[str, list[dict[str, float]]]) -> str:
    """A line of the table: the median milliseconds of one evaluation in each setting."""
    wall = {setting: median(run["wall"] for run in runs) for setting, runs in rounds.items()}
    cpu = median(run["cpu"] for run in rounds["default"])
    load = median(run["load"] for runs in rounds.values() for run in runs)
    cells = [f"{wall[setting]:.2f}" for setting in SETTINGS]
    ratio = wall["default"] / min(wall.values())
    return f"| {situation} | {backend} | {batch} | {' | '.join(cells)} | {ratio:.2f} | {cpu:.2f} | {load:.0f} |"


def in_turns(arguments: argparse.Namespace, backend: str, batch: str) -> dict[str, list[dict[str, float]]]:
    """The measurements of each setting, in turns."""
    rounds: dict[str, list[dict[str, float]]] = {setting: [] for setting in SETTINGS}
    for _ in range(arguments.rounds):
        for setting in SETTINGS:
            command = [sys.executable, __file__, "--model", arguments.model, "--steps", str(arguments.steps)]
            done = subprocess.run([*command, "--one", backend, batch, setting], capture_output=True, text=True, check=True)
            rounds[setting].append(json.loads(done.stdout))
    return rounds


def measure(model: str, backend: str, batch: int, setting: str, *, steps: int) -> dict[str, float]:
    """Milliseconds of wall time and of CPU time per evaluation of the network, with `batch` guided images, and the load.

    The first of three samplings counts too, because that is what a user waits for. Opening the network does not.
    """
    cores = threads.cores_here()
    if setting != "default":  # tells the choice that the machine is free, or full
        fixed = threads.Cores(online=cores.online, usable=cores.usable, running=0 if setting == "spinning" else cores.online)
        threads.cores_here = lambda: fixed
    found = known(model)
    number = {"default": None, "one": 1}.get(setting, cores.usable)
    with open_model(found, parse_spec(backend), threads=number, batch=sampling_batch(batch)) as opened:
        plan = make_plan(found, steps=steps)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(3):
            sample(opened, plan, classes=[image % 10 for image in range(batch)])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = 3 * len(plan.rows) / 1e3
    return {"wall": wall / count, "cpu": cpu / count, "load": cores.running}


def known(model: str) -> Card:
    """The card of a model, or of one with random weights."""
    return random_model(model) if model in MODELS else card(model)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Runs CPU-bound processes until the block ends."""
    loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dit-digits", help=f"a model with its weights, or one of {', '.join(MODELS)}")
    parser.add_argument("--backends", default="torch,onnxruntime,openvino")
    parser.add_argument("--batch", default="1,10", help="numbers of images, each with guidance")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=2, help="the number of CPU-bound processes")
    parser.add_argument("--one", nargs=3, metavar=("BACKEND", "BATCH", "SETTING"), help="one measurement, as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()

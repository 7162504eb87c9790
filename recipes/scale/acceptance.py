"""Draws the same large set of images in several ways, with workers and the driver killed, and compares the files by hash.

    python recipes/scale/acceptance.py --out scale-acceptance --num 20000

The ways are: one process; two workers on Ray; and two workers on Ray of which one is killed (SIGKILL) every ten seconds, while
the driver is killed once and started again. For each way it writes down the time, the images per second, the peak memory and
the file descriptors of the drawing process over time. It then measures one worker and two workers in turns. All workers have
one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

import ditzoo
from ditzoo.backends.options import BackendSpec
from ditzoo.measure.machine import machine
from ditzoo.scale.drawing import Work
from ditzoo.scale.job import Job, LabelRule, identity
from ditzoo.scale.on_ray import ShardActor

KILL_EVERY, DRIVER_AFTER = 10.0, 35.0
"""Seconds between two kills of a worker, and before the kill of the driver."""

WINDOW = 10.0
"""Seconds of a turn in the comparison of one worker with two."""


def command(options: argparse.Namespace, out: Path, num: int, *, workers: int) -> list[str]:
    """The command that draws `num` images into `out`. Without workers it draws in its own process."""
    ray = ["--ray", "local", "--workers", str(workers)] if workers else []
    drawn = ["--num", str(num), "--shard-size", str(options.shard_size), "--batch", "50", "--threads", "1"]
    plan = ["--solver", options.solver, "--steps", str(options.steps), "--labels", "random"]
    start = [sys.executable, "-m", "ditzoo.cli", "sample", options.model, "--backend", options.backend]
    return [*start, *drawn, *plan, *ray, "--out", str(out)]


def descendants(pid: int) -> list[int]:
    """The processes that a process started, directly or not."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, new = set[int](), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def actors(driver: int) -> list[int]:
    """The processes of the actors of a driver that runs Ray."""
    found = []
    for pid in descendants(driver):
        try:
            if b"ray::ShardActor" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def state(pid: int) -> dict[str, float]:
    """The resident memory of a process in MB, and its number of file descriptors."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    memory = next((int(line.split()[1]) for line in status if line.startswith("VmRSS")), 0)
    return {"MB": round(memory / 1024, 1), "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def run(words: list[str], log: Path, *, kill: bool = False) -> dict[str, object]:
    """Runs a command, and watches its memory. With `kill`, kills one actor every ten seconds, and the driver once."""
    started, killed, drivers, states = time.monotonic(), 0, 1, []
    with log.open("w") as file:
        process = subprocess.Popen(words, stderr=file, stdout=file)
        next_kill, next_state, driver_dies = started + KILL_EVERY, started, kill
        while process.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            if now >= next_state:
                next_state = now + 10
                watched = actors(process.pid)[:1] or [process.pid]
                try:
                    states.append({"seconds": round(now - started), **state(watched[0])})
                except OSError:
                    continue
            if kill and now >= next_kill:
                next_kill = now + KILL_EVERY
                for pid in actors(process.pid)[:1]:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            if driver_dies and now - started >= DRIVER_AFTER:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                driver_dies, drivers = False, 2
                process = subprocess.Popen(words, stderr=file, stdout=file)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(words)} ended with status {process.returncode}; see {log}")
    return {
        "seconds": round(time.monotonic() - started, 1),
        "workers killed": killed,
        "drivers": drivers,
        "states": [*states[:: max(1, len(states) // 8)], *states[-1:]],
    }


def rate(folder: Path) -> dict[str, float]:
    """The images per second from the first finished shard on: the start of Python, of Ray and of the model is left out."""
    ends = sorted(path.stat().st_mtime for path in folder.glob("*.tar"))
    count = json.loads((folder / "summary.json").read_text())["images"] / len(ends)
    return {"images per second": round((len(ends) - 1) * count / (ends[-1] - ends[0]), 1)}


def window(actors: list[Any], size: int) -> tuple[float, float]:
    """The images per second of actors that draw shard after shard for `WINDOW` seconds, and the processor time of an image."""
    import ray

    started, ends, spent = time.perf_counter(), [], []
    running = {actor.timed.remote(i): (i, actor) for i, actor in enumerate(actors)}
    while running:
        (done,), _ = ray.wait(list(running), num_returns=1)
        i, actor = running.pop(done)
        spent.append(ray.get(done))
        ends.append(time.perf_counter() - started)
        if ends[-1] < WINDOW:
            running[actor.timed.remote(i)] = i, actor
    inside = [end for end in ends if end <= WINDOW]
    return len(inside) * size / WINDOW, statistics.mean(spent)


def turns(options: argparse.Namespace) -> dict[str, object]:
    """The images per second of one actor and of two, in turns of `WINDOW` seconds.

    "cpu" is the processor time of an image in seconds, in an actor that works alone and beside another.
    """
    import ray

    class Timed(ShardActor):
        def session(self) -> str:
            """Gives the process a session of its own, as the scheduler shares the cores between sessions."""
            if os.getpid() == os.getpgid(0) != os.getsid(0):  # the leader of a group cannot begin a session
                os.setpgid(0, os.getpgid(os.getppid()))
            if os.getpid() != os.getpgid(0):
                os.setsid()
            return Path("/proc/self/autogroup").read_text().strip()

        def timed(self, shard: int) -> float:
            started = time.process_time()
            self.draw(shard)
            return (time.process_time() - started) / options.turn_size

    card = ditzoo.card(options.model)
    job = Job(
        model=card.name,
        weights=identity(card),
        backend=BackendSpec(name=options.backend),
        device="cpu",
        threads=1,
        plan=ditzoo.make_plan(card, solver=options.solver, steps=options.steps),
        size=(8, 8),
        seed=0,
        num=options.turn_size * 2,
        labels=LabelRule(rule="random", classes=card.number_of_classes),
        shard_size=options.turn_size,
    )
    work = Work(job=job, model=card, place=str((options.out / "turns").absolute()))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
    actors = [ray.remote(num_cpus=1)(Timed).remote(msgspec.json.encode(work)) for _ in range(2)]
    groups = ray.get([actor.session.remote() for actor in actors])
    ray.get([actor.timed.remote(i) for i, actor in enumerate(actors)])
    found = []
    for turn in range(options.turns):
        one, alone = window(actors[turn % 2 :][:1], options.turn_size)
        two, beside = window(actors, options.turn_size)
        found.append({"one": one, "two": two, "ratio": two / one, "cpu alone": alone, "cpu beside": beside})
    ray.shutdown()
    middle = {key: statistics.median(turn[key] for turn in found) for key in found[0]}
    return {"scheduled as": groups, "turns": found, "median": middle, "load": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a large set in several ways, and compare.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="dit-digits")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--solver", default="dpmpp")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--num", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, default=250)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--turn-size", type=int, default=50)
    parser.add_argument("--turns-only", action="store_true", help="leave out the large sets")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {
        "machine": machine(),
        "ditzoo": ditzoo.__version__,
        "settings": command(options, Path("DIR"), options.num, workers=0)[3:],
    }
    ways = {"one process": (0, False), "two workers": (2, False), "two workers, killed": (2, True)}
    sums = {}
    for name, (workers, kill) in () if options.turns_only else ways.items():
        folder = options.out / name.replace(", ", "-").replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        results[name] = {
            **run(command(options, folder, options.num, workers=workers), options.out / f"{folder.name}.log", kill=kill),
            **rate(folder),
        }
        summary = json.loads((folder / "summary.json").read_text())
        sums[name] = (summary["images"], summary["shards"], summary["sha256"], summary["latents"])
        results["the same files"] = len(set(sums.values())) == 1
        results["hashes"] = sums
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
    results["in turns"] = turns(options)
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

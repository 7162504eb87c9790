"""Draws the same large set of images in several ways, with workers and the driver killed, and compares the files by hash.

    python recipes/scale/acceptance.py --out scale-acceptance --num 20000

The ways are: one process; two workers on Ray; and two workers on Ray of which one is killed (SIGKILL) every ten seconds, while
the driver is killed once and started again. For each way it writes down the time, the images per second, the peak memory and
the file descriptors of the drawing process over time. It then measures one worker and two workers in turns, on a part of the
images. All workers have one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ditzoo
from ditzoo.measure.machine import machine

KILL_EVERY, DRIVER_AFTER = 10.0, 35.0
"""Seconds between two kills of a worker, and before the kill of the driver."""


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a large set in several ways, and compare.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="dit-digits")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--solver", default="dpmpp")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--num", type=int, default=20_000)
    parser.add_argument("--shard-size", type=int, default=250)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--turn-num", type=int, default=4000)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {
        "machine": machine(),
        "ditzoo": ditzoo.__version__,
        "settings": command(options, Path("DIR"), options.num, workers=0)[3:],
    }
    ways = {"one process": (0, False), "two workers": (2, False), "two workers, killed": (2, True)}
    sums = {}
    for name, (workers, kill) in ways.items():
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
    turns = []
    for turn in range(options.turns):
        rates = {}
        for workers in (1, 2):
            folder = options.out / f"turn{turn}-{workers}"
            shutil.rmtree(folder, ignore_errors=True)
            run(command(options, folder, options.turn_num, workers=workers), options.out / f"{folder.name}.log")
            rates[workers] = rate(folder)["images per second"]
        turns.append({"one": rates[1], "two": rates[2], "ratio": round(rates[2] / rates[1], 2), "load": os.getloadavg()[0]})
        results["in turns"] = turns
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

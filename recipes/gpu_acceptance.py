"""Tells what of ditzoo holds on this machine's GPU, and writes the measured numbers down.

    python recipes/gpu_acceptance.py --out acceptance
    python recipes/gpu_acceptance.py --device cpu --out acceptance      # a dry run: the stages that a CPU can run
    python recipes/gpu_acceptance.py --stages facts,parity --out acceptance

Every stage is a process of its own with a limit of its own, so a crash or a hang costs that stage alone. DIR gets one file of
checks for each stage, with what it printed, and all of them in acceptance.json. The last line counts the checks. The exit
status is 1 if one failed. The stages are in the folder acceptance.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from acceptance.checks import Check
from acceptance.stages import STAGES

HERE = Path(__file__).parent


def run_stage(name: str, *, device: str, folder: Path) -> list[Check]:
    """The checks of one stage, run in a process. A process that fails or exceeds its limit is a failed check more."""
    stage, checks, log = STAGES[name], folder / f"{name}.jsonl", folder / f"{name}.log"
    checks.unlink(missing_ok=True)
    command = [sys.executable, "-m", "acceptance.stages", name, "--device", device, "--checks", str(checks.resolve())]
    with log.open("wb") as said:
        try:
            status = subprocess.run(
                command, check=False, cwd=HERE, stdout=said, stderr=subprocess.STDOUT, timeout=stage.limit
            ).returncode
            fault = "" if status == 0 else f"the process ended with status {status}: {_last_line(log)}"
        except subprocess.TimeoutExpired:
            fault = f"the stage took longer than its limit of {stage.limit} s"
    found = msgspec.json.Decoder(Check).decode_lines(checks.read_bytes()) if checks.exists() else []
    return [*found, Check(name="the stage ends", status="failed", reason=fault)] if fault else found


def line(check: Check) -> str:
    """A check as a line of text: its status, its name, the measured numbers with their limits, and the reason."""
    numbers = ", ".join(f"{name} {value}" for name, value in check.measured.items())
    return "  ".join(part for part in (f"{check.status:7}", check.name, numbers, check.reason) if part)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks ditzoo on a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu is a dry run")
    parser.add_argument("--stages", default=",".join(STAGES), help="a list of stages; by default all of them")
    parser.add_argument("--out", type=Path, default=Path("acceptance"), help="the folder for the results")
    options = parser.parse_args()
    names = options.stages.split(",")
    if unknown := [name for name in names if name not in STAGES]:
        parser.error(f"no stage is called {', '.join(unknown)}; there are {', '.join(STAGES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    results = []
    for name in names:
        started = time.perf_counter()
        checks = run_stage(name, device=options.device, folder=options.out)
        seconds = round(time.perf_counter() - started, 1)
        print(f"{name}: {STAGES[name].summary} ({seconds} s)", flush=True)
        print("\n".join(f"  {line(check)}" for check in checks), flush=True)
        counts.update(check.status for check in checks)
        results.append({"stage": name, "seconds": seconds, "checks": checks})
    document = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device": options.device, "stages": results}
    (options.out / "acceptance.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)))
    print(f"ACCEPTANCE {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

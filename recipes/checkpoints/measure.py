"""Pulls a DiT-XL/2 with random weights in three layouts from a Hub on loopback, and measures time and peak memory.

    python recipes/checkpoints/measure.py --scratch DIR      # DIR needs 15 GB

Each pull is a process of its own: download, checksums, conversion. It fails unless the three canonical files are the same,
byte for byte, and no process took more than 1.5 times its file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import hub_server  # noqa: E402
from hub_models import Desk, diffusers, state  # noqa: E402

from ditzoo.files import sha256  # noqa: E402
from ditzoo.zoo import CARDS  # noqa: E402

LIMIT = 1.5
BACKBONE = CARDS["dit-xl-2-256"].backbone


FILES = {"original .pt": "weights.pt", "diffusers .bin": "weights.bin", "diffusers .safetensors": "weights.safetensors"}


def write(layout: str, path: Path) -> None:
    """Random weights, always the same ones, as one file in `layout`."""
    weights = state(BACKBONE)
    if layout.startswith("diffusers"):
        weights = diffusers(weights, BACKBONE)
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)


def measured_pull(desk: Desk, name: str) -> tuple[Path, float, int]:
    """The canonical file, the seconds and the peak of resident memory, in bytes, of one `ditzoo pull`."""
    started = time.perf_counter()
    process = subprocess.Popen(  # of its own, for its peak of memory
        [sys.executable, "-m", "ditzoo.cli", "pull", name, "--like", "dit-xl-2-256"], env=desk.env(), stdout=subprocess.PIPE
    )
    out = process.stdout.read().decode().strip()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"the pull failed with status {status}")
    return Path(out), time.perf_counter() - started, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the conversion of DiT-XL/2.")
    parser.add_argument("--scratch", type=Path, required=True)
    folder = parser.parse_args().scratch
    folder.mkdir(parents=True, exist_ok=True)
    digests, ratios, spawn = set(), [], multiprocessing.get_context("spawn")
    with hub_server.serving() as hub:
        for layout, name in FILES.items():
            desk = Desk(folder / "home", hub)
            desk.home.mkdir()
            desk.home.joinpath("zoo.toml").touch()
            file = folder / name
            writer = spawn.Process(target=write, args=(layout, file))  # a child's peak starts at its parent's
            writer.start()
            writer.join()
            repo = f"team/{file.suffix[1:]}"
            hub.commit(repo, {file.name: file})
            model, seconds, peak = measured_pull(desk, f"hf:{repo}")
            digests.add(sha256(model))
            ratios.append(peak / file.stat().st_size)
            print(
                f"{layout}: {file.stat().st_size:,} bytes, {seconds:.0f} s, peak {peak / 1e9:.2f} GB = {ratios[-1]:.2f} x file"
            )
            shutil.rmtree(desk.home)
            file.unlink()
    print("canonical files:", *digests)
    if len(digests) != 1 or max(ratios) > LIMIT:
        sys.exit("they differ, or the memory is beyond the limit")


if __name__ == "__main__":
    main()

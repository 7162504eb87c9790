"""Pulls a DiT-XL/2 with random weights, in three layouts, from a local Hub, and measures the time and the peak memory.

    python recipes/checkpoints/measure.py --scratch DIR      # DIR needs 15 GB

Each pull is a process of its own, which downloads the file, checks it and converts it. The script fails if the three canonical
files are not the same, byte for byte, or if a process takes more memory than 1.5 times the size of its file.
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

import hub_server
import torch
from safetensors.torch import save_file

from ditzoo.families import build
from ditzoo.families.dit import to_diffusers
from ditzoo.files import sha256
from ditzoo.zoo import CARDS

LIMIT = 1.5
BACKBONE = CARDS["dit-xl-2-256"].backbone
FILES = {"original .pt": "weights.pt", "diffusers .bin": "weights.bin", "diffusers .safetensors": "weights.safetensors"}


def write(layout: str, path: Path) -> None:
    """Writes random weights, always the same, as one file in a `layout`."""
    torch.manual_seed(0)
    weights = build(BACKBONE).state_dict()
    for key, value in weights.items():
        if key != "pos_embed":
            value.normal_(0, 0.05)
    if layout.startswith("diffusers"):
        weights = {key: value.clone() for key, value in to_diffusers(weights, BACKBONE)}
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)


def environment(home: Path, url: str) -> dict[str, str]:
    """The environment variables of a process whose caches are in `home` and whose Hub is at `url`."""
    drop = {"HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "DITZOO_ZOO"}
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    hub = {"HF_ENDPOINT": url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **hub, "DITZOO_CACHE": str(home / "ditzoo"), "OMP_NUM_THREADS": "1"}


def measured_pull(environment: dict[str, str], name: str) -> tuple[Path, float, int]:
    """Runs one `ditzoo pull`; returns the canonical file, the seconds, and the peak resident memory in bytes."""
    started = time.perf_counter()
    process = subprocess.Popen(  # a process of its own, so that its peak memory can be read
        [sys.executable, "-m", "ditzoo", "pull", name, "--like", "dit-xl-2-256"], env=environment, stdout=subprocess.PIPE
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
            home = folder / "home"
            home.mkdir()
            file = folder / name
            writer = spawn.Process(target=write, args=(layout, file))  # a child's peak memory starts at its parent's
            writer.start()
            writer.join()
            repo = f"team/{file.suffix[1:]}"
            hub.commit(repo, {file.name: file})
            model, seconds, peak = measured_pull(environment(home, hub.url), f"hf:{repo}")
            digests.add(sha256(model))
            ratios.append(peak / file.stat().st_size)
            print(
                f"{layout}: {file.stat().st_size:,} bytes, {seconds:.0f} s, peak {peak / 1e9:.2f} GB = {ratios[-1]:.2f} x file"
            )
            shutil.rmtree(home)
            file.unlink()
    print("canonical files:", *digests)
    if len(digests) != 1 or max(ratios) > LIMIT:
        sys.exit("the canonical files differ, or a process took too much memory")


if __name__ == "__main__":
    main()

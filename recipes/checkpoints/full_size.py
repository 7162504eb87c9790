"""Pulls full-size models from a local Hub and draws an image with each, and measures the time and the peak memory of each step.

    python recipes/checkpoints/full_size.py --scratch DIR                          # DIR needs 15 GB
    python recipes/checkpoints/full_size.py --scratch DIR lightningdit-xl-1-256

The weights are random. Their files have the layouts in which the models are published, with the tensor names of the authors'
code. The Hub is a server on this machine. Two processes are measured: `ditzoo pull`, then `ditzoo sample`, which draws one
image in a few steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import hub_server
import torch
from published_decoders import dcae_decoder, sd_vae, vavae
from safetensors.torch import save_file
from torch import Tensor

from ditzoo.families import build
from ditzoo.families.dit import to_diffusers
from ditzoo.zoo import CARDS

STEPS = 4


class Published(NamedTuple):
    """How a model is published: its file, and the files of its decoder if that is published separately.

    `write` and `write_decoder` write these files. The first of the `decoder_files` is the checkpoint.
    """

    file: str
    write: Callable[[dict[str, Tensor], Path], None]
    write_decoder: Callable[[Path], None] | None = None
    decoder_files: tuple[str, ...] = ()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pull full-size models from a local Hub, and draw an image with each.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    print("| model | file | pull, time | pull, peak | sample, time | sample, peak |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in arguments.models:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            print(row(name, Path(folder)), flush=True)


def row(name: str, folder: Path) -> str:
    """Writes the files of a model into `folder`, pulls them, draws an image, and returns the figures as a row of a table."""
    writer = multiprocessing.get_context("spawn").Process(target=write, args=(name, folder))
    writer.start()  # in its own process, because the peak memory of a child starts at that of its parent
    writer.join()
    with hub_server.serving() as hub:
        sources = {"weights": [MODELS[name].file], "decoder.source": MODELS[name].decoder_files}
        tables = (source(hub, folder, table, files) for table, files in sources.items() if files)
        (folder / "zoo.toml").write_text("\n".join([f'[full]\nbase = "{name}"', *tables]), encoding="utf-8")
        size = (folder / MODELS[name].file).stat().st_size
        pull = measured(["pull", "full"], folder, hub.url)
        picture = folder / "image.png"
        sample = measured(["sample", "full", "--steps", str(STEPS), "--classes", "207", "--out", str(picture)], folder, hub.url)
    if not picture.stat().st_size:
        sys.exit(f"{name} drew no image")
    shutil.rmtree(folder / "home")
    return f"| `{name}` | {size / 1e9:.2f} GB | {pull} | {sample} |"


def write(name: str, folder: Path) -> None:
    """Writes the files of a model with random weights."""
    torch.manual_seed(0)
    weights = build(CARDS[name].backbone).state_dict()
    for key, value in weights.items():
        if key != "pos_embed" and "feat_rope" not in key:
            value.normal_(0, 0.02)
    model = MODELS[name]
    model.write(weights, folder / model.file)
    if model.write_decoder:
        model.write_decoder(folder)


def source(hub: hub_server.Hub, folder: Path, table: str, files: Sequence[str]) -> str:
    """Puts files on the Hub, and returns the TOML table of the card that says where they are."""
    repo = f"local/{table.partition('.')[0]}"
    commit = hub.commit(repo, {file: folder / file for file in files})
    named = ", ".join(f'{{path = "{file}"}}' for file in files)
    return f'[full.{table}]\nkind = "hub"\nrepo = "{repo}"\nrevision = "{commit}"\nfiles = [{named}]'


def measured(arguments: list[str], folder: Path, url: str) -> str:
    """Runs a command of ditzoo, and returns its time and its peak resident memory as cells of a table.

    The caches of the command are in `folder`, and its Hub is at `url`.
    """
    drop = {"HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE"}
    environment = {key: value for key, value in os.environ.items() if key not in drop} | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(folder / "home" / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "DITZOO_CACHE": str(folder / "home" / "ditzoo"),
        "DITZOO_ZOO": str(folder / "zoo.toml"),
    }
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "ditzoo", *arguments], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"`ditzoo {' '.join(arguments)}` failed")
    return f"{time.perf_counter() - started:.0f} s | {usage.ru_maxrss * 1024 / 1e9:.2f} GB"


def write_diffusers(weights: dict[str, Tensor], path: Path) -> None:
    """Writes a DiT as its authors published it on the Hub: a pickle in diffusers' layout."""
    path.parent.mkdir()
    torch.save({key: value.clone() for key, value in to_diffusers(weights, CARDS["dit-xl-2-256"].backbone)}, path)


def write_average(weights: dict[str, Tensor], path: Path) -> None:
    """Writes a training checkpoint that has only the averaged weights, under "ema"."""
    torch.save({"ema": weights}, path)


def write_dcae(weights: dict[str, Tensor], path: Path) -> None:
    """Writes a U-ViT and its autoencoder into one file."""
    named = {
        f"diffusion_model.{key.replace('label_emb.', 'label_emb.embedding_table.')}": value for key, value in weights.items()
    }
    save_file(named | {f"autoencoder.{key}": value for key, value in dcae_decoder().items()}, path)


SD_VAE = ("config.json", "diffusion_pytorch_model.safetensors")
VAVAE = ("vavae-imagenet256-f16d32-dinov2.pt", "latents_stats.pt")

MODELS = {
    "dit-xl-2-256": Published("transformer/diffusion_pytorch_model.bin", write_diffusers, sd_vae, SD_VAE),
    "sit-xl-2-256": Published("SiT-XL-2-256.pt", torch.save, sd_vae, SD_VAE),
    "uvit-h-dcae-f32-512": Published("model.safetensors", write_dcae),
    "lightningdit-xl-1-256": Published("lightningdit-xl-imagenet256-800ep.pt", write_average, vavae, VAVAE),
}

if __name__ == "__main__":
    main()

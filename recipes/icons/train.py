"""Trains the diffusion model of the icons on the latents of its autoencoder.

    torchrun --standalone --nproc-per-node 2 -m recipes.icons.train   # -> icons-training/backbone.safetensors
    python -m recipes.icons.train                                     # the same in one process

The saved weights are the exponential moving average. The network, the schedule and the scale of the latents are those of the
card `dit-icons`. `recipes/training.py` has the losses and the loop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import ditzoo
from ditzoo.families import build
from recipes.icons.autoencoder import AUTOENCODER_FILE, encode, load_autoencoder, scaled
from recipes.icons.data import TRAINING, draw_icons
from recipes.training import Diffusion, fit, initialise, start_workers

PICTURES, BATCH, LEARNING_RATE, EMA_DECAY = 60_000, 128, 1.5e-3, 0.999
BACKBONE_FILE = "backbone.safetensors"
_CHUNK = 1_000


def latents_of(folder: Path, numbers: range) -> tuple[Tensor, Tensor]:
    """The latents [N, 8, 8, 8] of training pictures, and their labels [N].

    They are encoded by the autoencoder in `folder`, or found there in a file that an earlier run left. Delete that file after
    another training of the autoencoder.
    """
    kept = folder / f"latents-{numbers.start}-{numbers.stop}.safetensors"
    if not kept.exists():
        save_file(_encoded(folder, numbers), kept)
    found = load_file(kept)
    return found["latents"], found["labels"]


def _encoded(folder: Path, numbers: range) -> dict[str, Tensor]:
    net, latents, labels = load_autoencoder(folder / AUTOENCODER_FILE), [], []
    for start in range(numbers.start, numbers.stop, _CHUNK):
        icons = draw_icons(TRAINING, range(start, min(start + _CHUNK, numbers.stop)))
        latents.append(encode(net, torch.from_numpy(icons.images)))
        labels.append(torch.from_numpy(icons.labels))
    return {"latents": torch.cat(latents).contiguous(), "labels": torch.cat(labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the diffusion model of the icons.")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--weights", type=Path, help="the weights of an earlier training to start from")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=Path("icons-training"), help="where the autoencoder is, and the result goes"
    )
    options = parser.parse_args()
    worker, workers = start_workers()
    share = options.pictures // workers
    card = ditzoo.card("dit-icons")
    latents, labels = latents_of(options.folder, range(worker * share, (worker + 1) * share))
    latents = scaled(latents, card)
    torch.manual_seed(options.seed)
    net, diffusion = build(card.backbone), Diffusion(card)
    initialise(net)
    if options.weights:
        net.load_state_dict(load_file(options.weights))
    torch.manual_seed(options.seed + worker)

    def loss(net: nn.Module) -> Tensor:
        batch = torch.randint(len(latents), (BATCH // workers,))
        return diffusion.loss(net, latents[batch], labels[batch])

    def keep(net: nn.Module) -> None:
        if worker == 0:
            save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, options.folder / BACKBONE_FILE)

    keep(fit(net, loss, name=card.name, steps=options.steps, rate=options.rate, decay=EMA_DECAY, keep=keep))


if __name__ == "__main__":
    main()

"""Trains the autoencoder of the icons, on pictures that are drawn during the training.

    torchrun --standalone --nproc-per-node 2 -m recipes.icons.train_autoencoder   # -> icons-training/autoencoder.safetensors
    python -m recipes.icons.train_autoencoder                                     # the same in one process

The loss is the absolute error of the pixels and of the differences between neighbours, which keeps edges sharp. Noise of a
fixed strength is added to the latents, and their squares are kept small: a variational autoencoder whose variance is fixed. So
latents that are near to each other give similar pictures.
"""

from __future__ import annotations

import argparse
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recipes.icons.autoencoder import AUTOENCODER_FILE, initialise, make_autoencoder
from recipes.icons.data import AUTOENCODER, draw_icons
from recipes.training import fit, start_workers

BATCH, LEARNING_RATE, EMA_DECAY = 32, 2e-3, 0.995
_PICTURES = 1_200_000
"""The number of pictures between the first ones of two seeds."""

NOISE, SIZE_WEIGHT, EDGE_WEIGHT = 0.1, 1e-3, 1.0


def absolute_error(decoded: Tensor, images: Tensor) -> Tensor:
    """The mean absolute error of pixels, plus that of the differences between neighbours. Both are [B, 3, H, W]."""
    error = decoded - images
    edges = sum(error.diff(dim=axis).abs().mean() for axis in (2, 3))
    return error.abs().mean() + EDGE_WEIGHT * edges


def loss_of(net: nn.Module, images: Tensor) -> Tensor:
    """The training loss of a batch of images [B, 3, H, W]."""
    with torch.autocast("cpu", torch.bfloat16):
        latents = net.encode(images, return_dict=False)[0]
        noisy = latents + NOISE * torch.randn_like(latents)
        decoded = net.decode(noisy, return_dict=False)[0]
    return absolute_error(decoded.float(), images) + SIZE_WEIGHT * latents.float().square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the autoencoder of the icons.")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", type=Path, help="the weights of an earlier training to start from; take another seed, too")
    parser.add_argument("--out", type=Path, default=Path("icons-training"), help="the folder to write to")
    options = parser.parse_args()
    worker, workers = start_workers()
    torch.manual_seed(options.seed)
    net = make_autoencoder()
    initialise(net)
    if options.weights:
        net.load_state_dict(load_file(options.weights))
    torch.manual_seed(options.seed + worker)
    seeds = count(options.seed * _PICTURES + worker, workers)

    def loss(net: nn.Module) -> Tensor:
        icons = draw_icons(AUTOENCODER, [next(seeds) for _ in range(BATCH // workers)])
        return loss_of(net, torch.from_numpy(icons.images))

    def keep(net: nn.Module) -> None:
        if worker == 0:
            options.out.mkdir(exist_ok=True)
            save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, options.out / AUTOENCODER_FILE)

    keep(fit(net, loss, name="autoencoder", steps=options.steps, rate=LEARNING_RATE, decay=EMA_DECAY, keep=keep))


if __name__ == "__main__":
    main()

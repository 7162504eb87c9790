"""Prints the mean and the standard deviation of each latent channel, for the card.

python -m recipes.icons.latents
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from recipes.icons.autoencoder import AUTOENCODER_FILE, encode, load_autoencoder
from recipes.icons.data import TRAINING, draw_icons


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the statistics of the latents of the icons.")
    parser.add_argument("--pictures", type=int, default=3_000)
    parser.add_argument("--folder", type=Path, default=Path("icons-training"), help="the folder of the training")
    options = parser.parse_args()
    net = load_autoencoder(options.folder / AUTOENCODER_FILE)
    latents = encode(net, torch.from_numpy(draw_icons(TRAINING, range(options.pictures)).images))
    for name, values in (("mean", latents.mean(dim=(0, 2, 3))), ("std", latents.std(dim=(0, 2, 3)))):
        print(name, tuple(float(f"{value:.3g}") for value in values.tolist()))


if __name__ == "__main__":
    main()

"""Trains the two embedded models on handwritten digits.

    python -m recipes.digits.train dit      # -> ditzoo/assets/dit-digits.safetensors
    python -m recipes.digits.train uvit     # -> ditzoo/assets/uvit-digits.safetensors

The saved weights are the exponential moving average. The network, the schedule and the conventions are those of the model's
card. `recipes/training.py` has the losses and the loop.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import ditzoo
from ditzoo.evaluation.digits import load
from ditzoo.families import build
from ditzoo.zoo.card import Card
from recipes.training import Diffusion, fit, initialise

BATCH, LEARNING_RATE, EMA_DECAY = 128, 2e-3, 0.9995


def train(card: Card, steps: int, seed: int) -> nn.Module:
    """Trains the card's network for `steps` batches; returns the network with the averaged weights."""
    torch.manual_seed(seed)
    digits, _ = load()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    net, diffusion = build(card.backbone), Diffusion(card)
    initialise(net)

    def loss(net: nn.Module) -> Tensor:
        batch = torch.randint(len(images), (BATCH,))
        return diffusion.loss(net, images[batch], labels[batch])

    return fit(net, loss, name=card.name, steps=steps, rate=LEARNING_RATE, decay=EMA_DECAY)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train an embedded digits model.")
    parser.add_argument("model", choices=["dit", "uvit"])
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the safetensors file to write (default: the file in the package)")
    options = parser.parse_args()
    card = ditzoo.card(f"{options.model}-digits")
    out = options.out or Path(ditzoo.__file__).parent / "assets" / card.weights.file
    net = train(card, options.steps, options.seed)
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, out)
    print(out)


if __name__ == "__main__":
    main()

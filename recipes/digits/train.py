"""Trains the two embedded models on handwritten digits.

    python recipes/digits/train.py dit      # -> ditzoo/assets/dit-digits.safetensors
    python recipes/digits/train.py uvit     # -> ditzoo/assets/uvit-digits.safetensors

Both models learn to predict the noise (mean squared error). The DiT also learns the variance of the reverse step, with the
hybrid objective of arXiv 2102.09672, eq. 16. One label in ten is replaced by the null label, for guidance. The saved weights
are the exponential moving average. The network, the schedule and the conventions are those of the model's card.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from data import load
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import ditzoo
from ditzoo.families import build
from ditzoo.nets.dit import DiT
from ditzoo.nets.network import Network
from ditzoo.solvers.schedules import alpha_bars
from ditzoo.zoo.card import Card

BATCH, LEARNING_RATE, WARMUP, EMA_DECAY, LABEL_DROPOUT = 128, 2e-3, 200, 0.9995, 0.1


class Diffusion:
    """The forward process of a card's schedule, and the training losses. The steps n run from 1 to N."""

    def __init__(self, card: Card) -> None:
        bars = alpha_bars(card.schedule)
        beta = 1 - bars[1:] / bars[:-1]
        posterior = beta * (1 - bars[:-1]) / (1 - bars[1:])
        posterior[0] = posterior[1]  # the first is 0, and the logarithm needs a positive number
        self.card = card
        self.steps = card.schedule.steps
        self.alpha = _table(np.sqrt(bars))
        self.sigma = _table(np.sqrt(1 - bars))
        self.beta = _table(np.concatenate([[0.0], beta]))
        self.log_largest = _table(np.log(np.concatenate([[1.0], beta])))
        self.log_smallest = _table(np.log(np.concatenate([[1.0], posterior])))

    def loss(self, net: nn.Module, clean: Tensor, labels: Tensor) -> Tensor:
        """The training loss of a batch of images [B, C, H, W] and labels [B]."""
        n = torch.randint(1, self.steps + 1, (len(clean),))
        noise = torch.randn_like(clean)
        noisy = self.alpha[n] * clean + self.sigma[n] * noise
        time = n * (self.card.time.scale / self.steps) + self.card.time.offset
        labels = torch.where(torch.rand(len(clean)) < LABEL_DROPOUT, self.card.null_label, labels)
        prediction = net(noisy, time.float(), labels)
        loss = F.mse_loss(prediction[:, : clean.shape[1]], noise)
        if self.card.learns_variance:
            loss = loss + self.variational_bound(prediction, noise, n)
        return loss

    def variational_bound(self, prediction: Tensor, noise: Tensor, n: Tensor) -> Tensor:
        """The divergence in bits of the predicted reverse step from the true one (L_vlb), without a gradient for the mean.

        The last step of sampling, n = 1, is left out, because it adds no noise.
        """
        predicted_noise, v = prediction.chunk(2, dim=1)
        error = (noise - predicted_noise.detach()) * self.beta[n] / (self.sigma[n] * (1 - self.beta[n]).sqrt())
        fraction = (v + 1) / 2
        log_variance = fraction * self.log_largest[n] + (1 - fraction) * self.log_smallest[n]
        true_log_variance = self.log_smallest[n]
        ratio = torch.exp(true_log_variance - log_variance)
        divergence = 0.5 * (log_variance - true_log_variance - 1 + ratio + error**2 * torch.exp(-log_variance))
        return (divergence * (n > 1).view(-1, 1, 1, 1)).mean() / math.log(2)


def _table(values: np.ndarray) -> Tensor:
    """Values [N + 1] as a tensor [N + 1, 1, 1, 1], which broadcasts over images."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def initialise(net: Network) -> None:
    """Sets the initial weights: Xavier for linear layers, small normals for embeddings.

    In a DiT, the modulations and the last layer are zero.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    if isinstance(net, DiT):
        zeroed = [block.adaLN_modulation[1] for block in net.blocks]
        for layer in [*zeroed, net.final_layer.adaLN_modulation[1], net.final_layer.linear]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    else:
        nn.init.trunc_normal_(net.pos_embed, std=0.02)


def learning_rate(step: int, steps: int) -> float:
    """The factor of the learning rate at a step: a linear warm-up times a cosine that ends at zero."""
    return min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(card: Card, steps: int, seed: int) -> Network:
    """Trains the card's network for `steps` batches; returns the network with the averaged weights."""
    torch.manual_seed(seed)
    digits, _ = load()
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    net, diffusion = build(card.backbone), Diffusion(card)
    initialise(net)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    with Progress() as progress:
        task = progress.add_task(card.name, total=steps)
        for _ in range(steps):
            batch = torch.randint(len(images), (BATCH,))
            loss = diffusion.loss(net, images[batch], labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            average.update_parameters(net)
            progress.update(task, advance=1, description=f"{card.name} loss {loss.item():.3f}")
    return average.module


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

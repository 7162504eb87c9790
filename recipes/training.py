"""What the trainings of the embedded models share: the diffusion losses of a card, the first weights, and the loop.

The models learn to predict the noise (mean squared error). If the card says so, they also learn the variance of the reverse
step, with the hybrid objective of arXiv 2102.09672, eq. 16. One label in ten is replaced by the null label, for guidance.

The loop runs in one process, or in several that `torchrun` starts. These average their gradients; each has a part of the batch.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ditzoo.nets.dit import DiT
from ditzoo.nets.network import Network
from ditzoo.solvers.schedules import alpha_bars
from ditzoo.zoo.card import Card

WARMUP, LABEL_DROPOUT, REPORT_EVERY = 200, 0.1, 250


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
        prediction = net(noisy, time.float(), labels).float()
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


def start_workers() -> tuple[int, int]:
    """The number of this process and the number of processes: (0, 1), or what `torchrun` says, which connects them."""
    if "RANK" not in os.environ:
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def _average_gradients(net: nn.Module) -> None:
    """Replaces each gradient by its mean over all processes."""
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, mean in zip(gradients, together.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def fit(
    net: nn.Module,
    loss: Callable[[nn.Module], Tensor],
    *,
    name: str,
    steps: int,
    rate: float,
    decay: float,
    keep: Callable[[nn.Module], object] = lambda net: None,
) -> nn.Module:
    """Trains `net` for `steps` steps of AdamW on `loss`, which draws a batch of its own.

    Returns the network with the exponential moving average of the weights. `keep` gets it now and then, to save it.
    """
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(decay))
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    start, recent = time.monotonic(), 0.0
    with Progress() as progress:
        task = progress.add_task(name, total=steps)
        for step in range(1, steps + 1):
            value = loss(net)
            optimizer.zero_grad()
            value.backward()
            if dist.is_initialized():
                _average_gradients(net)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            average.update_parameters(net)
            recent += value.item() / REPORT_EVERY
            progress.update(task, advance=1)
            if step % REPORT_EVERY == 0:
                progress.console.print(f"{name}: step {step}, loss {recent:.4f}, {time.monotonic() - start:.0f} s")
                recent = 0.0
                keep(average.module)
    return average.module

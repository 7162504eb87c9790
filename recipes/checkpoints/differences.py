"""Prints the relative L2 error of diffusers' DiT against the DiT of the paper, by timestep, with the same random weights.

    python recipes/checkpoints/differences.py

Then it corrects what diffusers computes differently, and prints the errors again.
"""

from __future__ import annotations

import torch
from diffusers_dit import SIZES, SMALL, correct_eps, correct_sinusoids, random_dit
from torch import nn

from ditzoo.checkpoint.fixed import with_fixed
from ditzoo.checkpoint.layouts import detect, to_canonical
from ditzoo.families import build
from ditzoo.families.tensors import Entry
from ditzoo.nets.network import Network
from ditzoo.zoo.configs import DiTConfig

TIMES = (0, 10, 100, 250, 500, 750, 999)


def ours(reference: nn.Module, config: DiTConfig) -> Network:
    """The network of the paper, with the weights of `reference`, a network of diffusers."""
    entries = {key: Entry(shape=tuple(value.shape), load=value.clone) for key, value in reference.state_dict().items()}
    net = build(config).eval()
    canonical = with_fixed(to_canonical(entries, detect(entries), config), config).entries
    net.load_state_dict({key: entry.load() for key, entry in canonical.items()})
    return net


def errors(reference: nn.Module, net: Network, config: DiTConfig) -> str:
    """The relative L2 error of `reference` against `net` at each of TIMES, as cells of a table."""
    torch.manual_seed(1)
    x, t = torch.randn(len(TIMES), *config.latent_shape), torch.tensor(TIMES)
    y = torch.arange(len(TIMES))
    with torch.inference_mode():
        expected, found = net(x, t.float(), y), reference(x, timestep=t, class_labels=y).sample
    relative = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return " | ".join(f"{value:.1e}" for value in relative.tolist())


def main() -> None:
    print("| network | corrected | " + " | ".join(f"t = {t}" for t in TIMES) + " |")
    for config in (*SIZES, SMALL):
        name = f"{config.hidden_size} wide, {config.depth} deep"
        reference = random_dit(config)
        net = ours(reference, config)
        print(f"| {name} | nothing | {errors(reference, net, config)} |")
        correct_sinusoids(reference)
        print(f"| {name} | sinusoids | {errors(reference, net, config)} |")
        correct_eps(reference)
        print(f"| {name} | sinusoids and eps | {errors(reference, net, config)} |")


if __name__ == "__main__":
    main()

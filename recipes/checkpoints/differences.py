"""How far diffusers' DiT is from the paper's, with the same random weights: relative L2 error of the output, by timestep.

python recipes/checkpoints/differences.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_checkpoint_diffusers import SIZES, SMALL, theirs  # noqa: E402

from ditzoo.checkpoint.fixed import with_fixed  # noqa: E402
from ditzoo.checkpoint.layouts import detect, to_canonical  # noqa: E402
from ditzoo.families import build  # noqa: E402
from ditzoo.families.tensors import Entry  # noqa: E402
from ditzoo.nets.network import Network  # noqa: E402
from ditzoo.zoo.configs import DiTConfig  # noqa: E402

TIMES = (0, 10, 100, 250, 500, 750, 999)


def ours(reference: nn.Module, config: DiTConfig) -> Network:
    """The paper's network with the weights of diffusers'."""
    entries = {key: Entry(shape=tuple(value.shape), load=value.clone) for key, value in reference.state_dict().items()}
    net = build(config).eval()
    canonical = with_fixed(to_canonical(entries, detect(entries), config), config).entries
    net.load_state_dict({key: entry.load() for key, entry in canonical.items()})
    return net


def errors(reference: nn.Module, net: Network, config: DiTConfig) -> str:
    """The relative L2 error at each of TIMES."""
    torch.manual_seed(1)
    x, t = torch.randn(len(TIMES), *config.latent_shape), torch.tensor(TIMES)
    y = torch.arange(len(TIMES))
    with torch.inference_mode():
        expected, found = net(x, t.float(), y), reference(x, timestep=t, class_labels=y).sample
    relative = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return " | ".join(f"{value:.1e}" for value in relative.tolist())


def main() -> None:
    print("| network | mended | " + " | ".join(f"t = {t}" for t in TIMES) + " |")
    for config in (*SIZES, SMALL):
        name = f"{config.hidden_size} wide, {config.depth} deep"
        reference = theirs(config)
        net = ours(reference, config)
        print(f"| {name} | nothing | {errors(reference, net, config)} |")
        for block in reference.transformer_blocks:
            block.norm1.emb.time_proj.downscale_freq_shift = 0
        print(f"| {name} | sinusoids | {errors(reference, net, config)} |")
        for block in reference.transformer_blocks:
            block.norm3.eps = 1e-6
        print(f"| {name} | sinusoids and eps | {errors(reference, net, config)} |")


if __name__ == "__main__":
    main()

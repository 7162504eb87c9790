"""Reuse of the middle blocks, compared with the blocks themselves."""

from __future__ import annotations

import re

import pytest
import torch
from random_models import random_net
from torch import Tensor

from ditzoo.nets.network import BlockNetwork
from ditzoo.nets.reuse import Outer
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, LightningDiTConfig, UViTConfig

CONFIGS = [
    DiTConfig(input_size=8, patch_size=2, hidden_size=32, depth=5, num_heads=2, num_classes=10),
    LightningDiTConfig(input_size=4, hidden_size=32, depth=5, num_heads=2, num_classes=10),
    UViTConfig(img_size=8, patch_size=2, embed_dim=32, depth=6, num_heads=2, num_classes=11),
    UViTConfig(img_size=8, patch_size=2, embed_dim=32, depth=6, num_heads=2, num_classes=11, skip=False),
    UViTConfig(img_size=8, patch_size=2, embed_dim=32, depth=6, num_heads=2, clip_dim=16, num_clip_token=3),
]


def network(config: BackboneConfig) -> BlockNetwork:
    net = random_net(config).eval().requires_grad_(False)
    assert isinstance(net, BlockNetwork)
    return net


def inputs_of(net: BlockNetwork, seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shapes = {spec.name: spec.concrete(batch=2) for spec in net.inputs}
    return [
        torch.tensor([3, 7]) if name == "y" else torch.randn(shape, generator=rng).abs() * (100 if name == "t" else 1)
        for name, shape in shapes.items()
    ]


def places_of_blocks(net: BlockNetwork) -> list[str]:
    """The names of the blocks, in the order in which they run."""
    return [name for name, _ in net.named_modules() if re.fullmatch(r"mid_block|(in_|out_)?blocks\.\d+", name)]


def outputs_of_blocks(net: BlockNetwork, inputs: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The prediction, and the tokens after each block, as hooks see them."""
    seen: list[Tensor] = []
    blocks = map(net.get_submodule, places_of_blocks(net))
    hooks = [block.register_forward_hook(lambda module, given, tokens: seen.append(tokens)) for block in blocks]
    prediction = net(*inputs)
    for hook in hooks:
        hook.remove()
    return prediction, seen


class Adding(torch.nn.Module):
    """A block that adds the same to any tokens. It ignores modulations, positions and the long skip."""

    def __init__(self, added: Tensor) -> None:
        super().__init__()
        self.added = added

    def forward(self, tokens: Tensor, *others: Tensor) -> Tensor:
        return tokens + self.added


@pytest.mark.parametrize("outer", [1, 2])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_the_residual_is_what_the_middle_blocks_add(config: BackboneConfig, outer: int) -> None:
    net = network(config)
    inputs = inputs_of(net, 0)
    prediction, tokens = outputs_of_blocks(net, inputs)
    assert len(tokens) == config.blocks
    assert tokens[0].shape == net.residual(*inputs[0].shape[2:]).concrete(batch=2)
    full, residual = named(net, outer, inputs)
    assert torch.equal(full, prediction)
    assert torch.equal(residual, tokens[-1 - outer] - tokens[outer - 1])


@pytest.mark.parametrize("outer", [1, 2])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_reuse_is_the_network_with_a_sum_in_place_of_the_middle_blocks(config: BackboneConfig, outer: int) -> None:
    net, inputs = network(config), inputs_of(network(config), 1)
    earlier, own = (named(net, outer, given)[1] for given in (inputs_of(net, 2), inputs))
    assert not torch.equal(earlier, own)
    reused, nearly_full = (named(net, outer, inputs, residual) for residual in (earlier, own))
    torch.testing.assert_close(nearly_full, net(*inputs), rtol=1e-4, atol=1e-5)
    assert not torch.equal(reused, nearly_full)
    first, *others = places_of_blocks(net)[outer:-outer]
    replace_block(net, first, earlier)
    for name in others:
        replace_block(net, name, torch.zeros(()))
    assert torch.equal(reused, net(*inputs))


def replace_block(net: BlockNetwork, name: str, added: Tensor) -> None:
    """Puts `Adding` in place of the block called `name`. Its modulation is still computed, as no block takes it."""
    block = Adding(added)
    old = net.get_submodule(name)
    if hasattr(old, "adaLN_modulation"):
        block.adaLN_modulation = old.adaLN_modulation
    net.set_submodule(name, block)


def named(net: BlockNetwork, outer: int, inputs: list[Tensor], residual: Tensor | None = None) -> Tensor:
    given = dict(zip((spec.name for spec in net.inputs), inputs, strict=True))
    output: Tensor = Outer(net, outer)(**given, residual=residual)
    return output

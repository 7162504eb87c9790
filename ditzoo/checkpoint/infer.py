"""What the shapes of a checkpoint say about its network, and which network they fit."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch

from ditzoo.card import BackboneConfig, Card, DiTConfig
from ditzoo.nets import build

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]
Facts: TypeAlias = dict[str, float | str]

SHOWN = 5
"""How many names of a kind an error lists."""


def network_shapes(config: BackboneConfig) -> dict[str, Shape]:
    """The shape of every tensor of the network of a configuration."""
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in build(config).state_dict().items()}


def facts(shapes: Shapes) -> Facts:
    """The hyperparameters behind canonical `shapes`, as far as they can be seen there (not the number of heads)."""
    found = {}
    for name, read in (_DIT if "x_embedder.proj.weight" in shapes else _UVIT).items():
        try:
            found[name] = read(shapes)
        except (KeyError, IndexError, ZeroDivisionError):
            continue
    return found


def differences(shapes: Shapes, config: BackboneConfig) -> list[str]:
    """The hyperparameters in which a checkpoint is not the network of `config`, each as "depth 12 instead of 28"."""
    here, there = facts(shapes), facts(network_shapes(config))
    return [f"{name} {here[name]} instead of {there[name]}" for name in here if name in there and here[name] != there[name]]


def fitting(shapes: Shapes, cards: Iterable[Card]) -> list[Card]:
    """The cards whose network has exactly these shapes; the fixed positions of a DiT may be missing."""
    chosen = list(cards)
    configs = {card.backbone for card in chosen}
    fits = {config: _may_fit(shapes, config) and _fits(shapes, network_shapes(config)) for config in configs}
    return [card for card in chosen if fits[card.backbone]]


def mismatches(shapes: Shapes, config: BackboneConfig) -> list[str]:
    """Every key that is missing, unexpected or misshapen for the network of `config`, by kind."""
    expected = network_shapes(config)
    misshapen = [
        f"{key} {list(shapes[key])} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    kinds = {
        "missing": [key for key in expected if key not in shapes],
        "unexpected": [key for key in shapes if key not in expected],
        "misshapen": misshapen,
    }
    return [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _may_fit(shapes: Shapes, config: BackboneConfig) -> bool:
    """Whether the number of parameters is the right one, which is quick to tell."""
    fixed = (config.input_size // config.patch_size) ** 2 * config.hidden_size if isinstance(config, DiTConfig) else 0
    count = sum(math.prod(shape) for shape in shapes.values())
    return count in (config.parameters, config.parameters - fixed)


def _fits(shapes: Shapes, network: Shapes) -> bool:
    optional = {"pos_embed"} if "x_embedder.proj.weight" in shapes and "pos_embed" not in shapes else set()
    return {key: shape for key, shape in network.items() if key not in optional} == dict(shapes)


def _count(shapes: Shapes, pattern: str) -> int:
    return len({match[1] for match in (re.match(pattern, key) for key in shapes) if match})


def _dit_out_channels(shapes: Shapes) -> int:
    return shapes["final_layer.linear.weight"][0] // shapes["x_embedder.proj.weight"][2] ** 2


def _uvit_extras(shapes: Shapes) -> int:
    """How many tokens stand before the patches: such that a square grid of them remains."""
    tokens = shapes["pos_embed"][1]
    return 2 if "label_emb.weight" in shapes and math.isqrt(tokens - 2) ** 2 == tokens - 2 else 1


def _uvit_size(shapes: Shapes) -> str | int:
    tokens = shapes["pos_embed"][1]
    if "context_embed.weight" in shapes:
        return f"of {tokens} tokens"
    return math.isqrt(tokens - _uvit_extras(shapes)) * shapes["patch_embed.proj.weight"][2]


_DIT: dict[str, Callable[[Shapes], float | str]] = {
    "kind": lambda shapes: "DiT",
    "hidden_size": lambda shapes: shapes["x_embedder.proj.weight"][0],
    "depth": lambda shapes: _count(shapes, r"blocks\.(\d+)\."),
    "patch_size": lambda shapes: shapes["x_embedder.proj.weight"][2],
    "in_channels": lambda shapes: shapes["x_embedder.proj.weight"][1],
    "input_size": lambda shapes: math.isqrt(shapes["pos_embed"][1]) * shapes["x_embedder.proj.weight"][2],
    "output channels": _dit_out_channels,
    "rows of the label table": lambda shapes: shapes["y_embedder.embedding_table.weight"][0],
    "mlp_ratio": lambda shapes: shapes["blocks.0.mlp.fc1.weight"][0] / shapes["blocks.0.mlp.fc1.weight"][1],
}

_UVIT: dict[str, Callable[[Shapes], float | str]] = {
    "kind": lambda shapes: "U-ViT",
    "embed_dim": lambda shapes: shapes["patch_embed.proj.weight"][0],
    "depth": lambda shapes: 2 * _count(shapes, r"in_blocks\.(\d+)\."),
    "patch_size": lambda shapes: shapes["patch_embed.proj.weight"][2],
    "in_chans": lambda shapes: shapes["patch_embed.proj.weight"][1],
    "img_size": _uvit_size,
    "num_classes": lambda shapes: shapes.get("label_emb.weight", (-1,))[0],
    "clip_dim": lambda shapes: shapes.get("context_embed.weight", (0, 0))[1],
    "mlp_ratio": lambda shapes: shapes["mid_block.mlp.fc1.weight"][0] / shapes["mid_block.mlp.fc1.weight"][1],
    "qkv_bias": lambda shapes: str("mid_block.attn.qkv.bias" in shapes),
    "mlp_time_embed": lambda shapes: str("time_embed.0.weight" in shapes),
    "skip": lambda shapes: str("out_blocks.0.skip_linear.weight" in shapes),
    "conv": lambda shapes: str("final_layer.weight" in shapes),
}

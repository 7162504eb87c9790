"""The networks, in PyTorch."""

from __future__ import annotations

from typing import TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ditzoo import hub
from ditzoo.card import BackboneConfig, Card, DiTConfig, UViTConfig
from ditzoo.errors import CheckpointError
from ditzoo.nets.dit import DiT
from ditzoo.nets.precision import copied, in_dtype
from ditzoo.nets.uvit import UViT

Net: TypeAlias = DiT | UViT


def build(config: BackboneConfig) -> Net:
    """The network of a configuration, with fresh weights, on torch's current default device."""
    return DiT(config) if isinstance(config, DiTConfig) else UViT(config)


def load(card: Card) -> Net:
    """The network of a card with its weights, in evaluation mode, on the CPU in float32.

    Raises CheckpointError where the weights are missing, damaged, or do not fit the network.
    """
    path = hub.weights(card)
    with torch.device("meta"):
        net = build(card.backbone)
    try:
        net.load_state_dict(load_file(path), strict=True, assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights in {path} do not fit {card.name}: {error}") from error
    return net.eval()


__all__ = ["DiT", "DiTConfig", "Net", "UViT", "UViTConfig", "build", "copied", "in_dtype", "load"]

"""Loading the network of a card in PyTorch, with the stored weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ditzoo.errors import CheckpointError
from ditzoo.families import build
from ditzoo.nets.network import Network
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card


def load_network(card: Card) -> Network:
    """The network of a card with its weights, in evaluation mode, on the CPU in float32.

    Raises CheckpointError if the weights are missing, damaged, or do not fit the network.
    """
    return network_from(weights_file(card), card)


def network_from(path: Path, card: Card) -> Network:
    """The network of a card with the canonical weights in the safetensors file at `path`, which may be in half precision.

    See `load_network`.
    """
    with torch.device("meta"):
        net = build(card.backbone)
    try:
        net.load_state_dict(load_file(path), strict=True, assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"the weights in {path} do not fit {card.name}: {error}") from error
    return net.float().eval()

"""The big networks with random weights, to measure with: what a network costs does not depend on what it has learned."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ditzoo import Card
from ditzoo.weights.local import weights_state
from ditzoo.zoo import card
from ditzoo.zoo.card import Autoencoder, Unreleased
from ditzoo.zoo.configs import BackboneConfig

if TYPE_CHECKING:
    from ditzoo.nets.network import Network

MODELS = {"dit-xl-2": "dit-xl-2-256", "dit-xl-2-512": "dit-xl-2-512", "uvit-h-2": "uvit-h-2-256"}


def random_model(name: str) -> Card:
    """The card of a network of MODELS with random weights, which are made, by a process of its own, on first use.

    They stay in ditzoo's cache as an imported checkpoint. There is no decoder: what is measured is the network.
    """
    base = card(MODELS[name])
    decoder = base.decoder
    if isinstance(decoder, Autoencoder):
        decoder = msgspec.structs.replace(decoder, source=None, statistics=None)
    model = msgspec.structs.replace(base, name=f"{name}-random", weights=Unreleased(), decoder=decoder)
    if weights_state(model) != "cached":
        making = multiprocessing.get_context("spawn").Process(target=_keep_weights, args=(model,))
        making.start()
        making.join()
    return model


def random_net(config: BackboneConfig) -> Network:
    """A network whose every weight is random, the same each time: a fresh one gives zeros, which verify nothing."""
    import torch

    from ditzoo.families import build

    torch.manual_seed(0)
    net = build(config).eval().requires_grad_(False)
    for name, weight in net.named_parameters():
        if "adaLN" in name or "final_layer" in name or not weight.any():
            weight.normal_(0, 0.02)
    return net


def _keep_weights(model: Card) -> None:
    """Takes a random network into the cache."""
    from safetensors.torch import save_file

    from ditzoo.weights.importing import import_file

    net = random_net(model.backbone)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_file(net.state_dict(), file)
        import_file(model, file)

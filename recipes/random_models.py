"""Large networks with random weights, for measurements: time and memory of a network do not depend on its weights."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ditzoo import Card, card
from ditzoo.weights.local import weights_state
from ditzoo.zoo.card import Autoencoder, Unreleased
from ditzoo.zoo.configs import BackboneConfig

if TYPE_CHECKING:
    from ditzoo.nets.network import Network

MODELS = {"dit-b-2": "dit-b-2", "dit-xl-2": "dit-xl-2-256", "dit-xl-2-512": "dit-xl-2-512", "uvit-h-2": "uvit-h-2-256"}


def random_model(name: str) -> Card:
    """The card of a model of MODELS with random weights and without a decoder.

    On first use, a process of its own makes the weights. They stay in ditzoo's cache like an imported checkpoint.
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
    """A network in which every weight is random. The weights are the same each time.

    A newly built network has layers of zeros, so its output is zero, and nothing can be verified with it.
    """
    import torch

    from ditzoo.families import build

    torch.manual_seed(0)
    net = build(config).eval().requires_grad_(False)
    for name, weight in net.named_parameters():
        if "adaLN" in name or "final_layer" in name or not weight.any():
            weight.normal_(0, 0.02)
    return net


def _keep_weights(model: Card) -> None:
    """Makes the random weights of a card, and imports them into ditzoo's cache."""
    from safetensors.torch import save_file

    from ditzoo.weights.importing import import_file

    net = random_net(model.backbone)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "random.safetensors"
        save_file(net.state_dict(), file)
        import_file(model, file)

"""Small models with random weights, for the tests of the exporter. The output of each network depends on all of its weights."""

from __future__ import annotations

import msgspec
from random_models import random_net

from ditzoo.nets.network import Network
from ditzoo.weights.catalogue import card
from ditzoo.zoo.card import Card, Unreleased
from ditzoo.zoo.configs import BackboneConfig, DiTConfig, LightningDiTConfig, UViTConfig

TINY_DIT = DiTConfig(input_size=8, patch_size=2, in_channels=4, hidden_size=32, depth=1, num_heads=2, num_classes=10)
TINY_UVIT = UViTConfig(img_size=8, patch_size=2, in_chans=4, embed_dim=32, depth=2, num_heads=2, num_classes=11)

TINY_LIGHTNINGDIT = LightningDiTConfig(input_size=8, in_channels=4, hidden_size=48, depth=1, num_heads=2, num_classes=10)


def random_model(config: BackboneConfig) -> tuple[Card, Network]:
    """A card for a network of `config`, and the network with random weights. No layer of it is zero."""
    digits = card("uvit-digits" if isinstance(config, UViTConfig) else "dit-digits")
    classes = config.num_classes - 1 if isinstance(config, UViTConfig) else config.num_classes
    model = msgspec.structs.replace(
        digits,
        name=f"random-{type(config).__name__.removesuffix('Config').lower()}",
        backbone=config,
        weights=Unreleased(),
        null_label=classes,
        sampling=msgspec.structs.replace(digits.sampling, guided_channels=3),
    )
    return model, random_net(config)

"""What the shapes of a checkpoint say about its network, and which network they fit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import torch

from ditzoo.families import build, family_of, recognise
from ditzoo.families.family import Fact
from ditzoo.families.tensors import Shape, Shapes, compare
from ditzoo.zoo.card import Card
from ditzoo.zoo.configs import BackboneConfig

Facts: TypeAlias = dict[str, Fact]


def network_shapes(config: BackboneConfig) -> dict[str, Shape]:
    """The shape of every tensor of the network of a configuration."""
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in build(config).state_dict().items()}


def facts(shapes: Shapes) -> Facts:
    """The hyperparameters behind canonical `shapes`, as far as they can be seen there (not the number of heads)."""
    found: Facts = {}
    for name, read in recognise(shapes).facts.items():
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
    """The cards whose network has exactly these shapes; tensors that the network computes may be missing."""
    chosen = list(cards)
    configs = {card.backbone for card in chosen}
    fits = {config: _may_fit(shapes, config) and _fits(shapes, config) for config in configs}
    return [card for card in chosen if fits[card.backbone]]


def mismatches(shapes: Shapes, config: BackboneConfig) -> list[str]:
    """Every key that is missing, unexpected or misshapen for the network of `config`, by kind."""
    return compare(shapes, network_shapes(config))


def _may_fit(shapes: Shapes, config: BackboneConfig) -> bool:
    """Whether the number of parameters that are learned is the right one, which is quick to tell."""
    computed = family_of(config).computed
    count = sum(math.prod(shape) for key, shape in shapes.items() if key not in computed)
    return count == config.parameters - config.fixed_parameters


def _fits(shapes: Shapes, config: BackboneConfig) -> bool:
    missing_allowed = family_of(config).computed.keys() - shapes.keys()
    return {key: shape for key, shape in network_shapes(config).items() if key not in missing_allowed} == dict(shapes)

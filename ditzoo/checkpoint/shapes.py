"""Reads hyperparameters off the shapes of a checkpoint, and compares the shapes with those of known networks."""

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

_MUCH_LARGER, _SMALL = 10, 1_000_000
"""A network is not built to compare it with a file if it has ten times the parameters of the file, and ten million."""


def network_shapes(config: BackboneConfig) -> dict[str, Shape]:
    """The shape of every tensor in the network of a configuration, by canonical name."""
    with torch.device("meta"):
        return {key: tuple(tensor.shape) for key, tensor in build(config).state_dict().items()}


def facts(shapes: Shapes) -> Facts:
    """The hyperparameters that `shapes` of canonical tensors show, by name.

    A value is left out if its tensor is missing or has another number of axes.
    """
    found: Facts = {}
    for name, read in recognise(shapes).facts.items():
        try:
            found[name] = read(shapes)
        except (LookupError, ValueError, ArithmeticError):
            continue
    return found


def differences(shapes: Shapes, config: BackboneConfig) -> list[str]:
    """The hyperparameters of a checkpoint that differ from `config`, each in the form "depth 12 instead of 28"."""
    if too_small := _too_small(shapes, config):
        return too_small
    here, there = facts(shapes), facts(network_shapes(config))
    return [f"{name} {here[name]} instead of {there[name]}" for name in here if name in there and here[name] != there[name]]


def _too_small(shapes: Shapes, config: BackboneConfig) -> list[str]:
    """The differences of a checkpoint with far fewer parameters than the network of `config`, which is not built for it."""
    held, kinds = sum(map(math.prod, shapes.values())), (recognise(shapes).name, family_of(config).name)
    if config.parameters <= _MUCH_LARGER * max(held, _SMALL):
        return []
    other = [] if kinds[0] == kinds[1] else ["kind {} instead of {}".format(*kinds)]
    return [*other, f"{held:,} parameters instead of {config.parameters:,}"]


def fitting(shapes: Shapes, cards: Iterable[Card]) -> list[Card]:
    """The cards whose network has exactly these shapes. Tensors that the network computes may be missing."""
    chosen = list(cards)
    configs = {card.backbone for card in chosen}
    fits = {config: _may_fit(shapes, config) and _fits(shapes, config) for config in configs}
    return [card for card in chosen if fits[card.backbone]]


def mismatches(shapes: Shapes, config: BackboneConfig) -> list[str]:
    """The keys that are missing, unexpected or misshapen for the network of `config`, one message a kind.

    Tensors that the network computes may be missing.
    """
    return compare(shapes, _expected(shapes, config))


def _may_fit(shapes: Shapes, config: BackboneConfig) -> bool:
    """Whether the number of learned parameters is that of `config`. This check is faster than `_fits`."""
    computed = family_of(config).computed
    count = sum(math.prod(shape) for key, shape in shapes.items() if key not in computed)
    return count == config.parameters - config.fixed_parameters


def _fits(shapes: Shapes, config: BackboneConfig) -> bool:
    return _expected(shapes, config) == dict(shapes)


def _expected(shapes: Shapes, config: BackboneConfig) -> dict[str, Shape]:
    """The shapes of the network of `config`, without the tensors that it computes and that are not in `shapes`."""
    missing_allowed = family_of(config).computed.keys() - shapes.keys()
    return {key: shape for key, shape in network_shapes(config).items() if key not in missing_allowed}

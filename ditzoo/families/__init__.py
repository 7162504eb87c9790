"""The families of networks, one object each. Only code in `families`, `nets` and `zoo` depends on the family of a network."""

from __future__ import annotations

import torch

from ditzoo.families.dit import DIT
from ditzoo.families.family import DiffusersForm, Family, KeyLayout, Known
from ditzoo.families.lightningdit import LIGHTNINGDIT
from ditzoo.families.tensors import Shapes
from ditzoo.families.uvit import UVIT
from ditzoo.nets.network import Network
from ditzoo.nets.precision import in_dtype
from ditzoo.zoo.configs import BackboneConfig

FAMILIES: tuple[Family, ...] = (LIGHTNINGDIT, DIT, UVIT)
"""The families in the order in which `recognise` tries them. A family that is a special case of another comes before it."""


def recognise(shapes: Shapes) -> Family:
    """The family of a network, from the shapes of its canonical tensors. DiT if no family recognises them."""
    return next((family for family in FAMILIES if family.recognises(shapes)), DIT)


def family_of(config: BackboneConfig) -> Family:
    """The family of a configuration."""
    return next(family for family in FAMILIES if isinstance(config, family.config))


def build(config: BackboneConfig) -> Network:
    """The network of a configuration, with fresh weights, on torch's current default device."""
    return family_of(config).build(config)


def in_precision(net: Network, config: BackboneConfig, dtype: torch.dtype) -> Network:
    """`net`, the network of `config`, in the precision `dtype`: see `ditzoo.nets.precision.in_dtype`."""
    return in_dtype(net, dtype, modules=family_of(config).half_precision)


__all__ = ["FAMILIES", "DiffusersForm", "Family", "KeyLayout", "Known", "build", "family_of", "in_precision", "recognise"]

"""What a family of networks is: all that is particular to one architecture, in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from torch import Tensor, nn

from ditzoo.families.tensors import Entries, Shapes
from ditzoo.nets.network import ConditionedNetwork, Network
from ditzoo.zoo.card import Layout

Fact: TypeAlias = float | str

ALL, NO_MODULE = "all products", r"$^"
"""The first extent of every family, and its pattern, which leaves out no module."""


class KeyLayout(msgspec.Struct, frozen=True, kw_only=True):
    """A published way to name the tensors of a network.

    `matches` tells it from all other layouts by the keys. `to_canonical` gives the tensors their canonical names, those of the
    authors' code; its second argument is the configuration, or None where none is known yet. Tensors without a canonical name
    keep theirs, so that they can be reported. `problems` says what else is wrong with such a checkpoint. Tensors whose names
    start with one of `training_only` are needed by the training alone, and left out.
    """

    name: Layout
    matches: Callable[[Entries], bool]
    to_canonical: Callable[[Entries, Any], Entries]
    problems: Callable[[Entries], list[str]] = lambda entries: []
    training_only: tuple[str, ...] = ()


class DiffusersForm(msgspec.Struct, frozen=True, kw_only=True):
    """The transformer of diffusers that computes almost what a network of the family does.

    `config` gives its configuration, and `state` its weights, from the canonical ones. `refusal` says why there is none for a
    configuration, in the words that follow "diffusers"; it is empty where there is one.
    """

    model: str
    config: Callable[[Any], dict[str, Any]]
    state: Callable[[dict[str, Tensor], Any], Iterator[tuple[str, Tensor]]]
    refusal: Callable[[Any], str]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """All that is particular to one architecture.

    `build` makes the network of a configuration, with fresh weights. `recognises` tells from the shapes of canonical tensors
    whether they belong to the family, and `facts` reads the hyperparameters off them, each by its name. `computed` are the
    tensors that may be missing in a checkpoint, because the network can compute them.

    `half_precision` are the names of the modules that compute in half precision, see `ditzoo.nets.precision`. `conditioning`
    makes a module of the part that depends on time and label alone, and `any_size` makes a network for latents of any size up
    to a multiple of those of training; both are None where the family has no such thing. `extents` says which layers are
    quantized: a pattern of the modules to leave out, by the name of the extent. The exporter tries them in this order.
    """

    name: str
    config: type
    build: Callable[[Any], Network]
    layouts: tuple[KeyLayout, ...]
    recognises: Callable[[Shapes], bool]
    facts: Mapping[str, Callable[[Shapes], Fact]]
    computed: frozenset[str] = frozenset()
    half_precision: tuple[str, ...]
    conditioning: Callable[[Any], nn.Module] | None = None
    any_size: Callable[[Any, int], ConditionedNetwork] | None = None
    extents: Mapping[str, str]
    diffusers: DiffusersForm | None = None

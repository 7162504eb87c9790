"""What a family of networks is: all that is particular to one architecture, in one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from torch import Tensor, nn

from ditzoo.errors import UsageError
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


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the shapes of a network do not say about it.

    `null_row`: whether the last row of its table of labels is the null label's; False where there is no table. `heads`: the
    number of heads, None: as in a network that is equally wide. `side`: the height and width of the latents, which only counts
    where no tensor shows it; None: as in a network like it.
    """

    null_row: bool
    heads: int | None = None
    side: int | None = None

    def heads_like(self, *, width: int, like: tuple[int, int]) -> int:
        """The number of heads of a network of that `width`, given the width and the heads of one `like` it.

        Raises UsageError where neither says it.
        """
        if self.heads is not None:
            return self.heads
        if width != like[0]:
            raise UsageError(
                f"shapes do not show how many heads a network {width} wide has, and the one that it is like is {like[0]} wide;"
                " say --heads N"
            )
        return like[1]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """All that is particular to one architecture.

    `build` makes the network of a configuration, with fresh weights. `recognises` tells from the shapes of canonical tensors
    whether they belong to the family, and `facts` reads the hyperparameters off them, each by its name. `computed` are the
    tensors that are no weights, because the network computes them from its configuration: a checkpoint may lack them, and what
    it has instead must be the same up to rounding. None: a network of that configuration has no such tensor.

    `config_from(shapes, like, known)` is the configuration of the network whose canonical tensors have these `shapes`. What
    they do not say is in `known`, else as in `like`, a configuration of the family: see `Known`. Raises UsageError where the
    number of heads is nowhere said, and KeyError, IndexError or ValueError for shapes that are no network of the family.
    `label_table` is the canonical name of the table of labels.

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
    config_from: Callable[[Shapes, Any, Known], Any]
    label_table: str
    computed: Mapping[str, Callable[[Any], Tensor | None]] = msgspec.field(default_factory=dict)
    half_precision: tuple[str, ...]
    conditioning: Callable[[Any], nn.Module] | None = None
    any_size: Callable[[Any, int], ConditionedNetwork] | None = None
    extents: Mapping[str, str]
    diffusers: DiffusersForm | None = None

"""The definition of a family of networks: one object with everything that is specific to an architecture."""

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
"""The first extent of every family, and its pattern. The pattern matches no module, so every matrix multiplication is
quantized."""


class KeyLayout(msgspec.Struct, frozen=True, kw_only=True):
    """A published layout: the names that a kind of checkpoint uses for the tensors of a network.

    `matches` says whether a checkpoint has this layout, and no other. `to_canonical` renames the tensors to their canonical
    names, those of the authors' code. Its second argument is the configuration, or None if it is not known yet. Tensors without
    a canonical name keep theirs, so that they can be reported. `problems` lists other defects of a checkpoint. Tensors whose
    names start with one of `training_only` are left out, because only the training needs them.
    """

    name: Layout
    matches: Callable[[Entries], bool]
    to_canonical: Callable[[Entries, Any], Entries]
    problems: Callable[[Entries], list[str]] = lambda entries: []
    training_only: tuple[str, ...] = ()


class DiffusersForm(msgspec.Struct, frozen=True, kw_only=True):
    """The transformer of diffusers with the same architecture as a network of the family.

    `model` is the name of its class. `config` gives its configuration, and `state` its weights, from the canonical ones.
    `refusal` is the reason why diffusers has no such transformer for a configuration, as the rest of a sentence that begins
    with "diffusers"; it is empty if there is one.
    """

    model: str
    config: Callable[[Any], dict[str, Any]]
    state: Callable[[dict[str, Tensor], Any], Iterator[tuple[str, Tensor]]]
    refusal: Callable[[Any], str]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The hyperparameters of a network that its shapes do not show.

    `null_row` says whether the last row of the label table is the null label; it is False if there is no table. `heads` is the
    number of heads. `side` is the height and width of the latents; it is used only if no tensor shows them. If `heads` or
    `side` is None, the value of a similar network is used.
    """

    null_row: bool
    heads: int | None = None
    side: int | None = None

    def heads_like(self, *, width: int, like: tuple[int, int]) -> int:
        """The number of heads of a network of width `width`. `like` is the width and the number of heads of a similar network.

        Raises UsageError if the number is not known and the similar network has another width.
        """
        if self.heads is not None:
            return self.heads
        if width != like[0]:
            raise UsageError(
                f"the number of heads is unknown: shapes do not show it, the width is {width}, and the card given with --like"
                f" has a network of width {like[0]}; add --heads N"
            )
        return like[1]


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is specific to one architecture.

    `build` makes the network of a configuration, with new weights. `recognises` says whether the shapes of canonical tensors
    belong to the family. `facts` reads the hyperparameters off such shapes, each by its name. `computed` has the tensors that
    the network computes from its configuration, by name; the value is None if a network of that configuration has no such
    tensor. A checkpoint may lack these tensors. If it has them, they must be equal up to rounding.

    `config_from(shapes, like, known)` is the configuration of the network whose canonical tensors have these `shapes`.
    Hyperparameters that shapes do not show come from `known`, else from `like`, a configuration of the family: see `Known`. It
    raises UsageError if the number of heads is unknown, and KeyError, IndexError or ValueError if the shapes are not those of
    a network of the family. `label_table` is the canonical name of the label table.

    `half_precision` are the names of the modules that compute in half precision: see `ditzoo.nets.precision`. `conditioning`
    makes a module of the part that depends on time and label only. `any_size` makes a network for latents of any size up to a
    multiple of the size in training. Both are None if the family does not support this. `extents` are the choices of quantized
    layers: each has a name, and a pattern of the modules that are not quantized. The exporter tries them in this order.
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

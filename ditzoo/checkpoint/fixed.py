"""The tensors of a checkpoint that are no weights, because the network computes them: the fixed positions of a DiT."""

from __future__ import annotations

from functools import partial

import msgspec
import torch
from torch import Tensor

from ditzoo.families import family_of
from ditzoo.families.tensors import Entries, Entry
from ditzoo.zoo.configs import BackboneConfig

_COARSEST = torch.finfo(torch.bfloat16).eps
_SLACK = 2.0**-12
"""What a table may be off beside that: angles up to 63 in float32, rounded to 2^-24 of themselves, and one float16 rounding."""


class Fixed(msgspec.Struct, frozen=True, kw_only=True):
    """The entries with all computed tensors exact, what there is to say about them, and what is wrong."""

    entries: Entries
    remarks: tuple[str, ...]
    problems: tuple[str, ...]


def with_fixed(entries: Entries, config: BackboneConfig) -> Fixed:
    """Replaces the tensors that the network of `config` computes by their exact values, and adds those that are missing.

    A table that differs from the exact one by no more than rounding is replaced with a remark. One that differs by more was
    learned, or follows another rule: that is a problem, and it is kept. One of another shape is kept too.
    """
    exact, remarks, problems = dict(entries), [], []
    for key, compute in family_of(config).computed.items():
        table = compute(config)
        if table is None:
            continue
        if key in entries and entries[key].shape == tuple(table.shape):
            found = entries[key].load()
            off = (found.to(torch.float64) - table.to(torch.float64)).abs().max().item()
            if not (found.is_floating_point() and off <= tolerance(found.dtype)):
                problems.append(
                    f"{key} is not the fixed table of this network (it differs by up to {off:.2g}): positions that were learned"
                    " or follow another rule cannot be used"
                )
                continue
            if off > _SLACK:
                remarks.append(f"{key} was rounded (by up to {off:.2g}); it is computed anew")
        if key not in entries or entries[key].shape == tuple(table.shape):
            exact[key] = Entry(shape=tuple(table.shape), load=partial(_same, table))
    return Fixed(entries=exact, remarks=tuple(remarks), problems=tuple(problems))


def tolerance(dtype: torch.dtype) -> float:
    """How far rounding can move a sine or cosine that was kept in `dtype`, or in bfloat16 on its way there.

    eps is the distance from 1 to the next number, so below 1 numbers are eps / 2 apart, and rounding moves one by eps / 4 at
    most: 2^-9 in bfloat16.
    """
    eps = max(torch.finfo(dtype).eps, _COARSEST)
    return eps / 4 + _SLACK


def _same(table: Tensor) -> Tensor:
    return table

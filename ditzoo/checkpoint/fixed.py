"""The fixed tables of a checkpoint, such as the positions of a DiT. The network computes them, so they are not weights."""

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
"""The error that a table may have beyond the rounding of its format. It covers two roundings: of angles up to 63 in float32,
each by 2^-24 of its value, and one rounding to float16."""


class Fixed(msgspec.Struct, frozen=True, kw_only=True):
    """The entries of a checkpoint with exact fixed tables, remarks for the user, and problems."""

    entries: Entries
    remarks: tuple[str, ...]
    problems: tuple[str, ...]


def with_fixed(entries: Entries, config: BackboneConfig, *, fits: bool) -> Fixed:
    """Replaces the tensors that the network of `config` computes with their exact values, and adds missing ones.

    A table that differs from the exact one only by rounding is replaced, with a remark if the difference is large. A table that
    differs by more was learned or follows another rule; it is kept and reported as a problem. A table of another shape is kept.
    If the entries do not fit the network (`fits` is False), no table is computed, because its size may be wrong.
    """
    if not fits:
        return Fixed(entries=entries, remarks=(), problems=())
    exact, remarks, problems = dict(entries), [], []
    tables = {key: table for key, compute in family_of(config).computed.items() if (table := compute(config)) is not None}
    for key, table in tables.items():
        found = entries.get(key)
        if found is not None and (found.flaw or found.shape != tuple(table.shape)):
            continue
        off, limit = (0.0, 0.0) if found is None else _difference(found.load(), table)
        if not off <= limit:
            problems.append(
                f"{key} is not the fixed table of this network (it differs by up to {off:.2g}): positions that were learned"
                " or follow another rule cannot be used"
            )
            continue
        if off > _SLACK:
            remarks.append(f"{key} was rounded (by up to {off:.2g}); it was replaced with the exact table")
        exact[key] = Entry(shape=tuple(table.shape), load=partial(_same, table))
    return Fixed(entries=exact, remarks=tuple(remarks), problems=tuple(problems))


def _difference(found: Tensor, table: Tensor) -> tuple[float, float]:
    """The largest difference of a table in a file from the exact one, and the largest difference that rounding can cause."""
    return (found.to(torch.float64) - table.to(torch.float64)).abs().max().item(), tolerance(found.dtype)


def tolerance(dtype: torch.dtype) -> float:
    """The largest rounding error of a sine or cosine in a table of type `dtype`, which may have been bfloat16 before.

    eps is the distance from 1 to the next larger number. Below 1, numbers are at most eps / 2 apart, so rounding changes a
    number by at most eps / 4. In bfloat16 that is 2^-9.
    """
    eps = max(torch.finfo(dtype).eps, _COARSEST)
    return eps / 4 + _SLACK


def _same(table: Tensor) -> Tensor:
    return table

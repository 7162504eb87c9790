"""The tensors of a checkpoint: their shapes are known, their values are read when they are asked for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import msgspec
from torch import Tensor


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of a checkpoint, not read yet."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]


Entries: TypeAlias = dict[str, Entry]

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]
"""The shape of every tensor, by its canonical name."""

SHOWN = 5
"""How many names of a kind an error lists."""


def count_numbered(shapes: Shapes, name: str) -> int:
    """How many numbered modules `name`.0, `name`.1, ... there are."""
    return len({match[1] for match in (re.match(rf"{name}\.(\d+)\.", key) for key in shapes) if match})


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def compare(shapes: Shapes, expected: Shapes) -> list[str]:
    """Every name that is missing, unexpected or misshapen in `shapes`, which should be the `expected` ones, by kind."""
    misshapen = [
        f"{key} {list(shapes[key])} instead of {list(shape)}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] != shape
    ]
    kinds = {
        "missing": [key for key in expected if key not in shapes],
        "unexpected": [key for key in shapes if key not in expected],
        "misshapen": misshapen,
    }
    return [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def without_kernel(entry: Entry) -> Entry:
    """The matrix of a linear map in place of the 1x1 convolution that computes the same; what is neither stays as it is."""
    if entry.shape[2:] != (1, 1):
        return entry
    return Entry(shape=entry.shape[:2], load=partial(_without_kernel, entry))


def _without_kernel(entry: Entry) -> Tensor:
    return entry.load()[:, :, 0, 0]


def side(places: int) -> int:
    """The side of a square grid of `places`; raises ValueError where no square has so many."""
    root = math.isqrt(places)
    if root * root != places:
        raise ValueError(f"{places} positions are no square grid")
    return root


def mlp_ratio(width: int, hidden: int, like: float) -> float:
    """The ratio for which int(width · ratio) is `hidden`; `like` where that is one."""
    if int(width * like) == hidden:
        return like
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)

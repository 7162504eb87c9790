"""The tensors of a checkpoint. Their shapes are known, and their values are read only when they are loaded."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import msgspec
from torch import Tensor


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of a checkpoint: its shape, and a function that reads its values.

    `flaw` says why its values cannot be used, such as "sparse tensors" or "not floating point (int64)". It is "" if they can.
    """

    shape: tuple[int, ...]
    load: Callable[[], Tensor]
    flaw: str = ""


Entries: TypeAlias = dict[str, Entry]

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = Mapping[str, Shape]
"""The shape of every tensor, by its canonical name."""

SHOWN = 5
"""The largest number of names that `listed` shows."""

_LONGEST = 200


def count_numbered(shapes: Shapes, name: str) -> int:
    """The number of modules with a number after `name`, such as `name`.0 and `name`.1. `name` is a regular expression."""
    return len({match[1] for match in (re.match(rf"{name}\.(\d+)\.", key) for key in shapes) if match})


def listed(names: list[str]) -> str:
    """The first few of `names`, joined with commas, and the number of the others. Names from files may be long or odd."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(_printable, names[:SHOWN])) + more


def _printable(name: str) -> str:
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return short if short.isprintable() else repr(short)


def compare(shapes: Shapes, expected: Shapes) -> list[str]:
    """The differences of `shapes` from `expected`: one message each for missing, unexpected and misshapen tensors."""
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
    """The kernel of a 1x1 convolution as the matrix of a linear layer. Any other tensor is returned as it is."""
    if entry.shape[2:] != (1, 1):
        return entry
    return Entry(shape=entry.shape[:2], load=partial(_without_kernel, entry), flaw=entry.flaw)


def _without_kernel(entry: Entry) -> Tensor:
    return entry.load()[:, :, 0, 0]


def side(places: int) -> int:
    """The side of a square grid with `places` positions. Raises ValueError if `places` is not a square number."""
    root = math.isqrt(places)
    if root * root != places:
        raise ValueError(f"{places} positions do not form a square grid")
    return root


def mlp_ratio(width: int, hidden: int, like: float) -> float:
    """A ratio with int(width · ratio) = `hidden`. It is `like` if that fulfils the equation."""
    if int(width * like) == hidden:
        return like
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)

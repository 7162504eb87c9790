"""What the shell offers for a half-typed argument. Nothing large is imported, so that it answers at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

from ditzoo.errors import DitzooError


def models(incomplete: str) -> list[str]:
    """The names of models, those of your own cards too."""
    from ditzoo.weights.catalogue import cards
    from ditzoo.zoo import CARDS

    try:
        return _starting(incomplete, cards())
    except DitzooError:
        return _starting(incomplete, CARDS)


def backends(incomplete: str) -> list[str]:
    """The names of backends; of a list, its last entry."""
    from ditzoo.backends.table import BACKENDS
    from ditzoo.model.opening import AUTO

    *before, last = incomplete.split(",")
    return [",".join([*before, name]) for name in _starting(last, [AUTO, *BACKENDS])]


def solvers(incomplete: str) -> list[str]:
    """The names of solvers."""
    from ditzoo.solvers import SOLVERS

    return _starting(incomplete, SOLVERS)


def devices(incomplete: str) -> list[str]:
    """The kinds of devices."""
    from ditzoo.specs import DEVICES

    return _starting(incomplete, DEVICES)


def precisions(incomplete: str) -> list[str]:
    """The precisions of exports."""
    from ditzoo.specs import GRAPH_PRECISIONS

    return _starting(incomplete, GRAPH_PRECISIONS)


def targets(incomplete: str) -> list[str]:
    """The runtimes that graphs are written for."""
    from ditzoo.specs import TARGETS

    return _starting(incomplete, TARGETS)


def flavours(incomplete: str) -> list[str]:
    """The variants of TensorRT."""
    from ditzoo.specs import FLAVOURS

    return _starting(incomplete, FLAVOURS)


def families(incomplete: str) -> list[str]:
    """The families of models."""
    from ditzoo.zoo import CARDS

    return _starting(incomplete, dict.fromkeys(card.family for card in CARDS.values()))


def states(incomplete: str) -> list[str]:
    """The states of a model's weights."""
    from ditzoo.weights.local import State

    return _starting(incomplete, get_args(State))


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]

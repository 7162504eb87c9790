"""`ditzoo list` and `ditzoo info`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ditzoo.cli import output
from ditzoo.cli.options import Json, Name


def list_models(json: Json = False) -> None:
    """List the models."""
    from ditzoo.zoo import CARDS

    if json:
        output.json(list(CARDS.values()))
        return
    rows = [
        (
            card.name,
            "×".join(map(str, card.backbone.latent_shape)),
            str(card.number_of_classes),
            card.sampling.solver,
            card.summary,
        )
        for card in CARDS.values()
    ]
    output.table(["model", "input", ">classes", "solver", "what it is"], rows)


def info(name: Name, json: Json = False) -> None:
    """Show all that a model's card says."""
    import msgspec

    from ditzoo.zoo import card

    chosen = card(name)
    if json:
        output.json(chosen)
        return
    output.table(["field", "value"], list(_flat(msgspec.to_builtins(chosen))))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested records, each with its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    else:
        yield path, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

"""The commands `ditzoo list`, `ditzoo info` and `ditzoo where`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ditzoo.cli import complete, output
from ditzoo.cli.options import Json, Name

if TYPE_CHECKING:
    from ditzoo.zoo.card import Card

_NAMES = 12
"""The largest number of names of classes that `info` shows."""

_UNVERIFIED = "no: third parties state it; a pull or an import checks it"


def list_models(
    family: Annotated[
        str | None, typer.Option(help="Only models of this family, such as dit or sit.", autocompletion=complete.families)
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Only models whose images have this width in pixels.")] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Only models in this state: embedded, cached, damaged, hub, by-hand or architecture.",
            autocompletion=complete.states,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List the models, and where their weights are."""
    from ditzoo.model.pulling import matching_cards
    from ditzoo.weights.store import unreadable

    chosen = matching_cards(family=family, resolution=resolution, state=state)
    if json:
        output.json(chosen)
        return
    rows = [_row(card) for card in chosen]
    if family is None and resolution is None and state in (None, "damaged"):
        rows += [(folder.name, "", "", "damaged", "", folder.problem) for folder in unreadable() if folder.card is None]
    output.table(["model", ">pixels", ">size", "state", "?licence", "~?what it is"], rows)


def info(name: Name, json: Json = False) -> None:
    """Show all fields of a model's card."""
    import msgspec

    from ditzoo.weights.catalogue import card
    from ditzoo.weights.local import weights_state
    from ditzoo.zoo.class_names import captions

    chosen = card(name)
    if json:
        output.json(chosen)
        return
    rows = list(_flat(msgspec.to_builtins(chosen)))
    if names := captions(chosen, range(min(chosen.number_of_classes, _NAMES))):
        more = chosen.number_of_classes - len(names)
        rows.append(("class names", ", ".join(names) + (f" and {more} more" if more else "")))
    rows += [
        ("parameters", f"{chosen.backbone.parameters:,}"),
        ("resolution", str(chosen.resolution)),
        ("state", weights_state(chosen)),
    ]
    output.table(["field", "~value"], rows)


def where(name: Name) -> None:
    """Print the path of a model's verified canonical weights."""
    from ditzoo.weights.catalogue import card
    from ditzoo.weights.local import weights_file

    output.data(str(weights_file(card(name))))


def _row(card: Card) -> tuple[str, ...]:
    from ditzoo.weights.local import weights_state

    size = output.size(4 * card.backbone.parameters)
    return card.name, str(card.resolution), size, weights_state(card), card.licence, card.summary


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaf values of nested records, each with its dotted path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        for i, inner in enumerate(value):
            yield from _flat(inner, f"{path}[{i}]")
    elif value is False and path.endswith("verified"):
        yield path, _UNVERIFIED
    else:
        yield path, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

"""The pages on the fields of a card and on the files that ditzoo writes: every record with its fields, types and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from ditzoo.bundle import Manifest
from ditzoo.plan.table import Plan
from ditzoo.recipes import Outcome, Recipe
from ditzoo.records import LARGEST_FILE, Data
from ditzoo.zoo.card import Card
from docs.generator.markdown import code, docstring, page, table

_CARD = """
A card is a record. `ditzoo info NAME` prints one, `card.json` in a bundle holds one, and a TOML file defines your own: see
[Your own cards](../models.md#your-own-cards). A record is read strictly: a field that is not in its table here is an error.
A field without a default must be there, or come from the card that `base` names.
"""

_FORMATS = f"""
Every record is JSON in UTF-8. Equal records have equal bytes. A file of a record has at most {LARGEST_FILE // 2**20} MB, and a
field that is not in its table here is an error. `format` names the format and its version: see
[Versions and deprecations](../versions.md#file-formats).

| file | record | more |
| --- | --- | --- |
| `plan.json` | [Plan](#plan) | [plans](../plans.md) |
| `manifest.json` of a bundle | [Manifest](#manifest) | [bundles](../bundles.md) |
| `card.json` of a bundle or a repository | [Card](card.md#card) | [models](../models.md#your-own-cards) |
| a recipe for `ditzoo run`, in TOML | [Recipe](#recipe) | [reproduce a published figure](../howto/reproduce.md) |
| `run.json` of a recipe | a dictionary from the name of a step to its [Outcome](#outcome) | the same |
| latents, `.npz` | arrays of numpy, no records | [parity against any other system](../parity.md#against-any-other-system) |
"""


def card_page() -> str:
    """The page on the fields of a card."""
    return page("Card fields", _CARD, *map(_record, _reachable([Card])))


def formats_page() -> str:
    """The page on the files that ditzoo writes."""
    known = set(_reachable([Card]))
    records = [record for record in _reachable([Plan, Manifest, Recipe, Outcome]) if record not in known]
    return page("File formats", _FORMATS, *map(_record, records))


def _reachable(first: Sequence[type[Data]]) -> list[type[Data]]:
    """These records, and all records in their fields, each once."""
    found: list[type[Data]] = []
    waiting = list(first)
    while waiting:
        record = waiting.pop(0)
        if record not in found:
            found.append(record)
            waiting += [inner for hint in get_type_hints(record).values() for inner in _records_in(hint)]
    return found


def _records_in(hint: Any) -> list[type[Data]]:
    if isinstance(hint, type) and issubclass(hint, Data):
        return [hint]
    return [record for argument in get_args(hint) for record in _records_in(argument)]


def _record(record: type[Data]) -> str:
    config = record.__struct_config__
    kind = f'\n\nIts field `{config.tag_field}` is `"{config.tag}"`.' if config.tag_field else ""
    hints = get_type_hints(record)
    rows = [(code(field.name), _type(hints[field.name]), _default(field)) for field in msgspec.structs.fields(record)]
    fields = table(["field", "type", "default"], rows) if rows else "It has no other fields."
    return f"## {record.__name__}\n\n{docstring(record)}{kind}\n\n{fields}"


def _type(hint: Any) -> str:
    """A type in words."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not msgspec.UnsetType)
    if hint is NoneType:
        return "null"
    if get_origin(hint) is tuple:
        inner = arguments[:1] if Ellipsis in arguments else arguments
        words = ", ".join(map(_type, inner))
        return f"list of {words}" if Ellipsis in arguments else f"[{words}]"
    if get_origin(hint) is dict:
        return f"object with values of {_type(arguments[1])}"
    if arguments:  # a Literal
        return " or ".join(code(repr(argument).replace("'", '"')) for argument in arguments)
    return hint.__name__ if issubclass(hint, Data) else _JSON_NAMES[hint]


_JSON_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is msgspec.UNSET:
        return "absent"
    return "" if value is msgspec.NODEFAULT else code(msgspec.json.encode(value).decode())

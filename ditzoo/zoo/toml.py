"""The user's own cards: a TOML file with one table a card, its fields those of `ditzoo.zoo.card.Card`.

["my-dit"]                   # the model's name
base = "dit-b-2"             # optional: a card whose fields hold where nothing else is said
summary = "trained on moths"
sampling.guidance = 2.0

What belongs to the base's own weights is not inherited where a card has others: their revision, sizes, checksums and layout,
and the published figure. The null label follows from the table of labels, unless the card states it; `null_label = "none"`
means none. Without a null label the guidance is 1, unless the card states it.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ditzoo.errors import UsageError
from ditzoo.zoo.card import Card, is_name
from ditzoo.zoo.configs import BackboneConfig

VARIABLE = "DITZOO_ZOO"


def cards_of_environment(known: Mapping[str, Card]) -> dict[str, Card]:
    """The cards of the file that `DITZOO_ZOO` names, none where it names none."""
    path = os.environ.get(VARIABLE)
    return load_cards(Path(path), known) if path else {}


def load_cards(path: Path, known: Mapping[str, Card]) -> dict[str, Card]:
    """The cards in a TOML file; `base` names one of those `known`, or one further up in the file.

    Raises UsageError, with the line, for whatever is no card.
    """
    try:
        text = path.read_bytes().decode()
        tables = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"cannot read the cards in {path}: {error.strerror}; check --zoo or {VARIABLE}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no TOML file: {error}") from error
    found: dict[str, Card] = {}
    for name, table in tables.items():
        try:
            found[name] = _card(name, table, {**known, **found})
        except (msgspec.ValidationError, _BadCardError) as error:
            raise UsageError(f"{path}, line {_line(text, name, str(error))}: {name}: {error}") from error
    return found


class _BadCardError(Exception):
    """What a table lacks to be a card."""


def _card(name: str, table: Any, known: Mapping[str, Card]) -> Card:
    if not isinstance(table, dict):
        raise _BadCardError("a card is a table: write [NAME] and its fields below")
    if not is_name(name):
        raise _BadCardError("a name is made of letters, digits, '.', '_' and '-'")
    fields = {key: value for key, value in table.items() if key != "base"}
    if "base" in table:
        base = known.get(table["base"]) if isinstance(table["base"], str) else None
        if base is None:
            raise _BadCardError(f"there is no card {table['base']!r} to start from - at `$.base`")
        return _upon(base, name, _without_word_for_none(fields))
    return msgspec.convert({**_without_word_for_none(fields), "name": name}, Card)


def _upon(base: Card, name: str, fields: dict[str, Any]) -> Card:
    """The card of that name whose `fields` hold upon those of `base`."""
    inherited = msgspec.to_builtins(base)
    weights = fields.get("weights")
    if isinstance(weights, dict) and "repo" in weights and weights["repo"] != inherited["weights"].get("repo"):
        inherited["weights"] = _of_another_repository(inherited["weights"])
    merged = _merged(inherited, fields)
    if "published" not in fields and any(merged[key] != inherited[key] for key in ("weights", "backbone")):
        merged["published"] = None
    sampling = _table(fields, "sampling")
    if "backbone" in fields:
        with suppress(msgspec.ValidationError):  # the conversion of the whole card below says where it is wrong
            backbone = msgspec.convert(merged["backbone"], BackboneConfig)
            merged["null_label"] = merged["null_label"] if "null_label" in fields else _null_label(base, backbone)
            sampling = {"guided_channels": _guided_channels(base, backbone), **sampling}
    if merged["null_label"] is None and base.null_label is not None:
        sampling = {"guidance": 1.0, **sampling}
    if sampling and isinstance(merged["sampling"], dict):
        merged["sampling"] = _merged(inherited["sampling"], sampling)
    return msgspec.convert({**merged, "name": name}, Card)


def _of_another_repository(weights: dict[str, Any]) -> dict[str, Any]:
    """What a source in another repository has in common with this one: its kind, and the paths of its files."""
    return {"kind": weights["kind"], "files": [{"path": file["path"]} for file in weights.get("files", [])]}


def _null_label(base: Card, backbone: BackboneConfig) -> int | None:
    """The null label of a network like that of `base`: the last row of its table of labels, behind those of the classes."""
    last = backbone.label_rows - 1
    if base.null_label is None or last < 0 or backbone.classes(null_label=last) != last:
        return None
    return last


def _guided_channels(base: Card, backbone: BackboneConfig) -> int:
    """How many channels of a network like that of `base` are guided: all where it guides all, else as many."""
    guided, channels = base.sampling.guided_channels, backbone.latent_shape[0]
    return channels if guided == base.backbone.latent_shape[0] else min(guided, channels)


def _table(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _without_word_for_none(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with None for the null label "none", for which TOML has no word."""
    return {**fields, "null_label": None} if fields.get("null_label") == "none" else fields


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` upon `base`, table by table; a table of another kind replaces the old one."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        same = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        merged[key] = _merged(old, value) if same and isinstance(old, dict) else value
    return merged


def _line(text: str, name: str, message: str) -> int:
    """The line that an error is about: that of the longest part of its path which the file has."""
    match = re.search(r"at `\$((?:\.\w+|\[[^]]*\])+)`", message)
    missing = re.search(r"unknown field `(\w+)`", message)
    path = [
        name,
        *re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", match[1]) if match else ""),
        *(missing.groups() if missing else ()),
    ]
    lines = _lines(text)
    culprit = re.match(r"(\w+) is ", message)  # a number that does not go with another one
    for place, line in lines.items():
        if culprit and place[0] == name and place[-1] == culprit[1]:
            return line
    for end in range(len(path), 0, -1):
        if tuple(path[:end]) in lines:
            return lines[tuple(path[:end])]
    return 1


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """The line on which each table and each key of a TOML file first stands."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?([^\]]+)\]", line)
        key = re.match(r"\s*((?:[\w.-]+|\"[^\"]*\"|'[^']*'|\s*\.\s*)+?)\s*=", line)
        if header:
            table = _parts(header[1])
        path = table if header else (*table, *_parts(key[1])) if key else ()
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key."""
    return tuple(double or single or bare for double, single, bare in re.findall(r'"([^"]*)"|\'([^\']*)\'|([\w-]+)', dotted))

"""The user's own cards: a TOML file with one table a card, its fields those of `ditzoo.zoo.card.Card`.

["my-dit"]                   # the model's name
base = "dit-b-2"             # optional: a card whose fields hold where nothing else is said
summary = "trained on moths"
sampling.guidance = 2.0
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ditzoo.errors import UsageError
from ditzoo.zoo.card import Card

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
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise _BadCardError("a name is made of letters, digits, '.', '_' and '-'")
    fields = {key: value for key, value in table.items() if key != "base"}
    if "base" in table:
        base = known.get(table["base"]) if isinstance(table["base"], str) else None
        if base is None:
            raise _BadCardError(f"there is no card {table['base']!r} to start from - at `$.base`")
        fields = _merged(msgspec.to_builtins(base), fields)
    return msgspec.convert({**fields, "name": name}, Card)


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

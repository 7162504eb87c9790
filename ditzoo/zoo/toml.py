"""The user's own cards: a TOML file with one table for each card. The fields are those of `ditzoo.zoo.card.Card`.

["my-dit"]                   # the model's name
base = "dit-b-2"             # optional: the card to inherit all other fields from
summary = "trained on moths"
sampling.guidance = 2.0

If a card names another repository than its base, it does not inherit revision, sizes, checksums and layout. If it changes the
weights or the network, it does not inherit the published figure. If it changes the network, the null label is the last row of
its label table, unless the card states it; `null_label = "none"` means that there is no null label. Without a null label the
guidance is 1, unless the card states it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from ditzoo.errors import UsageError, shortened, shown_path
from ditzoo.records import convert, from_toml, read_limited
from ditzoo.zoo.card import NAMES, Card, is_name
from ditzoo.zoo.configs import BackboneConfig

VARIABLE = "DITZOO_ZOO"

_PART = r"""(?:[\w-]++|"[^"]*+"|'[^']*+')"""
_KEY = re.compile(rf"\s*+({_PART}(?:\s*+\.\s*+{_PART})*+)\s*+=")
"""A dotted key at the start of a line of TOML. No part of it can match in two ways, so a long line takes no long time."""


def cards_of_environment(known: Mapping[str, Card]) -> dict[str, Card]:
    """The cards in the file that `DITZOO_ZOO` names; empty if the variable is not set."""
    path = os.environ.get(VARIABLE)
    return load_cards(Path(path), known) if path else {}


def load_cards(path: Path, known: Mapping[str, Card]) -> dict[str, Card]:
    """The cards in a TOML file. A `base` is one of the cards in `known`, or an earlier card of the file.

    Raises UsageError, with the line, if the file cannot be read or a table is not a valid card.
    """
    try:
        text = read_limited(path).decode()
        tables = from_toml(text)
    except OSError as error:
        raise UsageError(f"cannot read the cards in {shown_path(path)}: {error.strerror}; check --zoo or {VARIABLE}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not a valid TOML file: {error}") from error
    found: dict[str, Card] = {}
    for name, table in tables.items():
        try:
            found[name] = _card(name, table, {**known, **found})
        except (ValueError, _BadCardError) as error:
            shown = shortened(name) if name.isprintable() else repr(shortened(name))
            raise UsageError(f"{path}, line {_line(text, name, str(error))}: {shown}: {error}") from error
    return found


class _BadCardError(Exception):
    """A table is not a card; the message says why."""


def _card(name: str, table: Any, known: Mapping[str, Card]) -> Card:
    if not isinstance(table, dict):
        raise _BadCardError("a card must be a table: write [NAME] and its fields below")
    if not is_name(name):
        raise _BadCardError(f"a name must consist of {NAMES}")
    fields = {key: value for key, value in table.items() if key != "base"}
    if "base" in table:
        base = known.get(table["base"]) if isinstance(table["base"], str) else None
        if base is None:
            raise _BadCardError(f"there is no card {shortened(repr(table['base']))} to inherit from - at `$.base`")
        return _upon(base, name, _without_word_for_none(fields))
    return convert({**_without_word_for_none(fields), "name": name}, Card)


def _upon(base: Card, name: str, fields: dict[str, Any]) -> Card:
    """The card called `name` with the given `fields`, and with the fields of `base` for all others."""
    inherited = msgspec.to_builtins(base)
    weights = fields.get("weights")
    if isinstance(weights, dict) and "repo" in weights and weights["repo"] != inherited["weights"].get("repo"):
        inherited["weights"] = _of_another_repository(inherited["weights"])
    merged = _merged(inherited, fields)
    if "published" not in fields and any(merged[key] != inherited[key] for key in ("weights", "backbone")):
        merged["published"] = None
    sampling = _table(fields, "sampling")
    if "backbone" in fields:
        with suppress(msgspec.ValidationError):  # the conversion of the whole card below raises the error with its place
            backbone = msgspec.convert(merged["backbone"], BackboneConfig)
            merged["null_label"] = merged["null_label"] if "null_label" in fields else _null_label(base, backbone)
            sampling = {"guided_channels": _guided_channels(base, backbone), **sampling}
    if merged["null_label"] is None and base.null_label is not None:
        sampling = {"guidance": 1.0, **sampling}
    if sampling and isinstance(merged["sampling"], dict):
        merged["sampling"] = _merged(inherited["sampling"], sampling)
    return convert({**merged, "name": name}, Card)


def _of_another_repository(weights: dict[str, Any]) -> dict[str, Any]:
    """The fields of `weights` that also hold for another repository: the kind, and the paths of the files."""
    return {"kind": weights["kind"], "files": [{"path": file["path"]} for file in weights.get("files", [])]}


def _null_label(base: Card, backbone: BackboneConfig) -> int | None:
    """The null label of `backbone`, the last row of its label table.

    None if `base` has no null label, or if the table has no row for one.
    """
    last = backbone.label_rows - 1
    if base.null_label is None or last < 0 or backbone.classes(null_label=last) != last:
        return None
    return last


def _guided_channels(base: Card, backbone: BackboneConfig) -> int:
    """The number of guided channels of `backbone`: all if `base` guides all of its channels, else as many as `base`."""
    guided, channels = base.sampling.guided_channels, backbone.latent_shape[0]
    return channels if guided == base.backbone.latent_shape[0] else min(guided, channels)


def _table(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _without_word_for_none(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, with the null label "none" replaced by None. TOML has no value for None."""
    return {**fields, "null_label": None} if fields.get("null_label") == "none" else fields


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The fields of `base` updated with those of `over`, table by table. A table of another kind replaces the old table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        same = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        merged[key] = _merged(old, value) if same and isinstance(old, dict) else value
    return merged


def _line(text: str, name: str, message: str) -> int:
    """The line of the key or table that an error refers to. If the file does not have it, the line of the nearest table."""
    match = re.search(r"at `\$((?:\.\w+|\[[^]]*\])+)`", message)
    missing = re.search(r"unknown field `(\w+)`", message)
    path = [
        name,
        *re.findall(r"\w+", re.sub(r"\[[^]]*\]", "", match[1]) if match else ""),
        *(missing.groups() if missing else ()),
    ]
    lines = _lines(text)
    culprit = re.match(r"(\w+) is ", message)  # a field whose value contradicts another field
    for place, line in lines.items():
        if culprit and place[0] == name and place[-1] == culprit[1]:
            return line
    for end in range(len(path), 0, -1):
        if tuple(path[:end]) in lines:
            return lines[tuple(path[:end])]
    return 1


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """The number of the first line with each table and each key of a TOML file."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\[?([^\]]+)\]", line)
        key = _KEY.match(line)
        if header:
            table = _parts(header[1])
        path = table if header else (*table, *_parts(key[1])) if key else ()
        for end in range(1, len(path) + 1):
            lines.setdefault(path[:end], number)
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    """The parts of a dotted TOML key."""
    return tuple(double or single or bare for double, single, bare in re.findall(r'"([^"]*)"|\'([^\']*)\'|([\w-]+)', dotted))

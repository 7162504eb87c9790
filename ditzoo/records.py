"""The base class of all data: immutable records that are read and written as JSON. Reading checks every field."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base class of all records. They are immutable. Reading one from JSON or TOML checks every field."""


def to_json(record: object) -> bytes:
    """A record as indented JSON. Equal records give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def from_json(text: bytes | str, kind: type[T]) -> T:
    """The record of type `kind` in the JSON `text`. Raises ValueError, with the place, if `text` is not such a record."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error

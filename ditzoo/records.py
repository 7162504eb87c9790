"""The base of all data: immutable records that are read and written as JSON, with every field checked."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base of every record: immutable, and read back from JSON or TOML with every field checked."""


def to_json(record: object) -> bytes:
    """A record as readable JSON, the same bytes every time."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def from_json(text: bytes | str, kind: type[T]) -> T:
    """The record of that `kind` in JSON `text`; raises ValueError, naming the place, if it is none."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error

"""The base class of all data: immutable records that are read and written as JSON. Reading checks every field."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ditzoo.errors import DitzooError

T = TypeVar("T")

LARGEST_FILE = 64 * 2**20
"""The size, in bytes, of the largest file that is read as a record. Large plans and indexes of shards have some megabytes."""

_DEEPEST = 50
"""The most levels of nesting in a record."""

_LARGEST_TOML = 2**20
"""The most characters of a TOML text. People write such texts by hand."""

_LONG_KEY = re.compile(
    rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{_DEEPEST}}}""",
)
"""A dotted key of TOML with more parts than `_DEEPEST`. Python's parser needs memory for the square of their number."""

_LONGEST = 500

_LEAST, _MOST = -(2**63), 2**64 - 1
"""The range of whole numbers in a record: those of 64 bits, with or without a sign."""


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The base class of all records. They are immutable. Reading one from JSON or TOML checks every field."""


def to_json(record: object) -> bytes:
    """A record as indented JSON. Equal records give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def from_json(text: bytes | str, kind: type[T]) -> T:
    """The record of type `kind` in the JSON `text`.

    Raises ValueError, with the place, if `text` is not such a record, if it is nested too deep, if a whole number has more than
    64 bits, or if a text has a NUL character.
    """
    try:
        return convert(msgspec.json.decode(text), kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(one_line(error)) from error


def from_toml(text: bytes | str) -> dict[str, Any]:
    """The tables in the TOML `text`. Raises ValueError, with the place, for the same reasons as `from_json`."""
    try:
        decoded = text if isinstance(text, str) else text.decode()
        if len(decoded) > _LARGEST_TOML:
            raise ValueError(f"it has more than {_LARGEST_TOML:,} characters")
        if _LONG_KEY.search(decoded):
            raise ValueError(f"a key has more than {_DEEPEST} parts")
        return checked(tomllib.loads(decoded))
    except (RecursionError, ValueError) as error:
        raise ValueError(one_line(error)) from error


def convert(value: Any, kind: type[T]) -> T:
    """The record of type `kind` in decoded JSON or TOML. Raises ValueError for the same reasons as `from_json`."""
    try:
        return msgspec.convert(checked(value), kind)
    except (RecursionError, DitzooError, ValueError) as error:
        raise ValueError(one_line(error)) from error


def checked(value: T) -> T:
    """Returns decoded JSON or TOML. Raises ValueError for too deep nesting, numbers of more than 64 bits and NUL characters."""
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                inner += [*part, *part.values()]
            elif isinstance(part, list | tuple):
                inner += part
            else:
                _check_leaf(part)
        if not inner:
            return value
        level = inner
    raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def read_limited(path: Path) -> bytes:
    """The bytes of a file that holds a record. Raises OSError, and ValueError if the file is too large for one."""
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"the file has more than {LARGEST_FILE:,} bytes")
    return content


def one_line(error: Exception) -> str:
    """The message of an error, on one line. Its middle is left out if it is very long, because it may quote the file."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


def _check_leaf(value: object) -> None:
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        raise ValueError("a whole number has more than 64 bits")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text has a NUL character")

"""Reading JSON and TOML: what no record needs is refused by both readers, before any field is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from ditzoo import records
from ditzoo.records import Data, convert, from_json, from_toml, read_limited


class Example(Data, frozen=True, kw_only=True):
    number: int = 0
    name: str = ""
    inner: list[object] = []  # noqa: RUF012  # a default of msgspec, which copies it


JSON = {
    b'{"number": ' + b"9" * 5000 + b"}": "out of range",
    b'{"number": ' + b"9" * 30 + b"}": "more than 64 bits",
    b'{"name": "\\u0000"}': "a NUL character",
    b'{"inner": ' + b"[" * 60 + b"]" * 60 + b"}": "nested more than 50 levels",
    b'{"inner": ' + b"[" * 100_000: "recursion",
    b'{"name": "\xff"}': "can't decode",
    b'{"name": "\\ud800"}': "truncated",
    b'{"other' + b"x" * 5000 + b'": 1}': r"unknown field `otherx+ \.\.\. x+`",
    b'{"number": NaN}': "malformed",
}

TOML = {
    b"number = " + b"9" * 5000: "4300 digits",
    b"number = 0x" + b"f" * 5000: "more than 64 bits",
    b'name = "\\u0000"': "a NUL character",
    b'name = "\0"': "Illegal character",
    b'"a\\u0000" = 1': "a NUL character",
    b"inner = " + b"[" * 60 + b"]" * 60: "nested more than 50 levels",
    b"inner = " + b"[" * 100_000: "recursion",
    b".".join([b"a"] * 51) + b" = 1": "more than 50 parts",
    b"['a' . " + b'"b c" .\t' * 1000 + b"d]": "more than 50 parts",
    b"x = 1\n" * 200_000: "more than 1,048,576 characters",
    b'name = "\xff"': "can't decode",
}


@pytest.mark.parametrize("text", JSON)
def test_json_that_is_no_record(text: bytes) -> None:
    with pytest.raises(ValueError, match=JSON[text]) as error:
        from_json(text, Example)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("text", TOML)
def test_toml_that_is_no_record(text: bytes) -> None:
    with pytest.raises(ValueError, match=TOML[text]):
        from_toml(text)


def test_what_is_unusual_and_valid() -> None:
    assert from_json(b'{"number": 18446744073709551615, "name": "\\u00e9"}', Example) == Example(number=2**64 - 1, name="é")
    assert convert(from_toml(b"number = -1"), Example) == Example(number=-1)
    name = "a.b c" * 50 + "." * 100
    assert convert(from_toml(f'name = "{name}"'), Example) == Example(name=name)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST_FILE", 10)
    (tmp_path / "a.json").write_bytes(b" " * 10)
    assert len(read_limited(tmp_path / "a.json")) == 10
    (tmp_path / "a.json").write_bytes(b" " * 11)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_limited(tmp_path / "a.json")

"""Inputs for the parsers: files and texts that begin as valid ones and are changed in one or more places."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

_TOKENS = (
    *("null", "true", "false", "0", "-1", "1", "2", "1e308", "-1e308", "1e-320", "0.5", "4294967296", "18446744073709551616"),
    *("9" * 40, "9" * 5000, "-" + "9" * 5000, '""', '"."', '".."', '"../x"', '"/etc/passwd"', '"a/b"', '"x\\u0000y"', '"\\n"'),
    *('"\\u001b[31m"', '"[red]"', '"\\ud800"', '"' + "x" * 5000 + '"', "[]", "{}", "[[]]", "[" * 3000, '{"a":' * 3000, "NaN"),
    *('"fp32"', '"none"', '"backbone"', '"x"', '"é"', '"hf:a/b"', "[1]", '[""]', "[0,0,0,0]", "[1e999]", "[-1]", "Infinity"),
)
"""Values in JSON: numbers, texts and containers that parsers may not expect."""

_LEAVE_OUT, _TWICE = "leave out", "twice"


@st.composite
def changed_json(draw: DrawFn, bases: Sequence[Any]) -> bytes:
    """The JSON of one of `bases`, in which some values are replaced, left out or repeated."""
    root: Any = json.loads(json.dumps(draw(st.sampled_from(bases))))
    replaced: list[str] = []
    for _ in range(draw(st.integers(1, 3))):
        holder, key = _place(draw, root)
        if holder is None:
            continue
        change = draw(st.sampled_from((*_TOKENS, _LEAVE_OUT, _TWICE)))
        if change == _LEAVE_OUT:
            del holder[key]
        elif change == _TWICE and isinstance(holder, list):
            holder.append(holder[key])
        elif change == _TWICE:
            holder[f"{key}2"] = holder[key]
        else:
            replaced.append(change)
            holder[key] = f"@{len(replaced) - 1}@"
    text = json.dumps(root)
    for i, token in enumerate(replaced):
        text = text.replace(f'"@{i}@"', token)
    return text.encode("utf-8", "surrogatepass")


def _place(draw: DrawFn, root: Any) -> tuple[Any, Any]:
    """A container and a key in it, at any depth. (None, None) if there is none."""
    holder, key = None, None
    here = root
    while isinstance(here, dict | list) and here:
        holder, key = here, draw(st.sampled_from(sorted(here)) if isinstance(here, dict) else st.integers(0, len(here) - 1))
        here = here[key]
        if draw(st.integers(0, 4)) == 0:
            break
    return holder, key


@st.composite
def changed_bytes(draw: DrawFn, bases: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """One of `bases`, in which some parts are replaced by other bytes or by one of `tokens`, moved, or cut off."""
    data = draw(st.sampled_from(bases))
    pieces = st.binary(max_size=8) | st.sampled_from((b"\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"9" * 5000, *tokens))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), start + draw(st.sampled_from((0, 1, 2, 4, 8, 40, len(data)))))
        piece = data[end : end + 40] if draw(st.integers(0, 5)) == 0 else draw(pieces)
        data = data[:start] + piece + data[end:]
    return data


@st.composite
def changed_archive(draw: DrawFn, bases: Sequence[bytes]) -> bytes:
    """One of the ZIP files `bases`, in which the bytes of one member are changed and its checksum is right again."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(bases)))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = draw(st.sampled_from(sorted(members)))
    members[chosen] = draw(changed_bytes([members[chosen]]))
    if draw(st.integers(0, 9)) == 0:
        members[draw(st.sampled_from(("../x", "latents.npy", "a/", "a\n", "x" * 300)))] = members[chosen]
    kind = draw(st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@st.composite
def safetensors(draw: DrawFn, shapes: dict[str, list[int]]) -> bytes:
    """A safetensors file with tensors called as in `shapes`, of any type and shape. Its offsets are mostly right."""
    types = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "BOOL": 8, "U8": 8, "F8_E4M3": 8, "F8_E8M0": 8, "C64": 64}
    types |= {"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "XX": 8}
    axes = st.lists(st.sampled_from((0, 1, 2, 4, 8, 2**31, 2**62)), max_size=5)
    header: dict[str, Any] = {"__metadata__": draw(st.sampled_from(({}, {"format": "pt"})))}
    end = 0
    for name in draw(st.lists(st.sampled_from(sorted(shapes)) | st.text(max_size=20), max_size=8, unique=True)):
        shape = draw(st.just(shapes.get(name, [2])) | axes)
        kind = draw(st.sampled_from(("F32", *types)))
        size = types[kind]
        for axis in shape:
            size *= axis
        size = min(size // 8, 20_000)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode("utf-8", "replace")
    text = draw(st.just(text) | changed_bytes([text]))
    length = draw(st.sampled_from((len(text), len(text), len(text), 0, 2**40, 2**63)))
    return struct.pack("<Q", length) + text + bytes(end)


def lines(*examples: str) -> SearchStrategy[bytes]:
    """Texts: changed examples, or any characters."""
    nasty = ("9" * 5000, "1e999", "nan", "-", ",", ":", "²", "٣", "\n", "\x1b[31m", "../", "0x10", "1_000", " ")
    changed = changed_bytes([example.encode() for example in examples], [token.encode() for token in nasty])
    return changed | st.text(max_size=40).map(str.encode)


def with_long_texts(base: Any) -> Iterator[bytes]:
    """The JSON of `base`, each time with one value or one key replaced by a very long text, or made very long."""
    for path in _paths(base):
        *outer, last = path
        for change in (lambda old: _LONG, lambda old: [_LONG], lambda old: {_LONG: _LONG}, lambda old: f"{old}{_LONG}"):
            root = json.loads(json.dumps(base))
            holder = _at(root, outer)
            holder[last] = change(holder[last])
            yield json.dumps(root).encode()
        if isinstance(last, str):
            root = json.loads(json.dumps(base))
            holder = _at(root, outer)
            holder[f"{last}{_LONG}"] = holder.pop(last)
            yield json.dumps(root).encode()


_LONG = "x" * 5000


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside of `value`. Of a list, only the first two entries are looked at."""
    entries = value.items() if isinstance(value, dict) else list(enumerate(value))[:2] if isinstance(value, list) else ()
    for key, inner in entries:
        yield (key,)
        yield from ((key, *path) for path in _paths(inner))


def _at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value

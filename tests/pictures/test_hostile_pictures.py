"""Hostile files for `sample --like`: only PNG files are read, no pixel is decoded, and every field is checked."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ditzoo
from ditzoo.cli import run
from ditzoo.errors import UsageError
from ditzoo.pictures.png_metadata import png_info, read_request
from ditzoo.sampling.request import make_request

UVIT = ditzoo.card("uvit-digits")
REQUEST = make_request(UVIT, ditzoo.make_plan(UVIT, steps=2), classes=[3, 1], seed=5)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    value = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", value)


HEAD, END = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)), chunk(b"IEND", b"")


def picture(path: Path, text: bytes) -> Path:
    path.write_bytes(SIGNATURE + HEAD + chunk(b"zTXt", b"ditzoo\0\0" + zlib.compress(text)) + END)
    return path


def changed(**fields: Any) -> bytes:
    """The JSON of a request with other values of some fields."""
    import msgspec

    return json.dumps({**msgspec.to_builtins(REQUEST), **fields}).encode()


BROKEN = {
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "it is not a PNG file"),
    "empty": (b"", "it is not a PNG file"),
    "cut off": (SIGNATURE + HEAD, "it is cut off"),
    "long chunk": (SIGNATURE + HEAD + struct.pack(">I4s", 2**32 - 1, b"IDAT"), "it is cut off"),
    "long text": (SIGNATURE + struct.pack(">I4s", 2**32 - 1, b"tEXt"), "it has a text of 4,294,967,295 bytes"),
    "checksum": (SIGNATURE + chunk(b"zTXt", b"ditzoo\0\0abc", checksum=1) + END, "the checksum of a text in it is wrong"),
    "no zlib": (SIGNATURE + chunk(b"zTXt", b"ditzoo\0\0abc") + END, "Error -3 while decompressing"),
    "half": (SIGNATURE + chunk(b"zTXt", b"ditzoo\0\0" + zlib.compress(b"{}" * 99)[:-9]) + END, "a text in it is cut off"),
    "no UTF-8": (SIGNATURE + chunk(b"iTXt", b"ditzoo\0\0\0\0\0\xff") + END, "can't decode byte 0xff"),
    "other": (SIGNATURE + HEAD + chunk(b"tEXt", b"other\0{}") + END, "does not say how it was made"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_picture_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    content, message = BROKEN[kind]
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_request(tmp_path / "bad.png")
    assert "\n" not in str(caught.value)


def test_a_bomb_of_text_or_of_pixels_fills_no_memory(tmp_path: Path) -> None:
    squeezed = zlib.compressobj()
    text = b"".join(squeezed.compress(bytes(2**20)) for _ in range(65)) + squeezed.flush()
    path = tmp_path / "bomb.png"
    path.write_bytes(SIGNATURE + chunk(b"zTXt", b"ditzoo\0\0" + text) + END)
    with pytest.raises(UsageError, match="it has a text of more than 67,108,864 bytes"):
        read_request(path)
    huge = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0))
    path.write_bytes(SIGNATURE + huge + chunk(b"zTXt", b"ditzoo\0\0" + zlib.compress(changed())) + END)
    tracemalloc.start()
    assert read_request(path) == REQUEST
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_what_pillow_writes_is_read(tmp_path: Path) -> None:
    import msgspec

    asked = msgspec.structs.replace(REQUEST, classes=None, prompts=("a dog", "naïve 🎨"))
    for request in (REQUEST, asked):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png", pnginfo=png_info(request))
        assert read_request(tmp_path / "a.png") == request


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"count": 0, "classes": []}, "0 images; a request is for 1 to 1,000,000"),
    ({"count": 10**18, "classes": None}, "a request is for 1 to 1,000,000"),
    ({"seed": -1}, "both must be 0 to"),
    ({"first": 2**64 - 1}, "both must be 0 to"),
    ({"classes": [3]}, "2 images, but 1 classes"),
    ({"classes": [3, 10]}, "class 10 is out of range"),
    ({"classes": [3, -1]}, "class -1 is out of range"),
    ({"classes": None}, "uvit-digits needs one for each image"),
    ({"prompts": ["a", "b"]}, "uvit-digits takes no prompts"),
    ({"size": [8]}, "holds a request that cannot be read"),
    ({"size": [-8, 8]}, "is no multiple of"),
    ({"plan": {}}, "holds a request that cannot be read"),
    ({"plan": json.loads(ditzoo.make_plan(ditzoo.card("dit-s-2"), steps=2).to_json())}, "this plan is for 4 channels"),
    ({"model": "./elsewhere"}, "unknown model './elsewhere'"),
    ({"extra": 1}, "holds a request that cannot be read"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=[f"{next(iter(fields))}-{i}" for i, (fields, _) in enumerate(WRONG)])
def test_a_wrong_field_is_one_clear_line(
    fields: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "bad.png", changed(**fields))
    assert run(["sample", "--like", "bad.png", "--out", "again.png"]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "again.png").exists()

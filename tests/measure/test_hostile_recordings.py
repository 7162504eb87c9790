"""Hostile .npz files: sizes, names and types are checked before the data of any array is read."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ditzoo
from ditzoo.errors import UsageError
from ditzoo.measure.recording import read_recording

UVIT = ditzoo.card("uvit-digits")


def header(shape: str, descr: str = "'<f4'") -> bytes:
    """The header of an .npy file that states a shape and a type."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def written(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def array(value: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, value)
    return file.getvalue()


ONE = array(np.zeros((1, 1, 8, 8), np.float32))

BAD: dict[str, tuple[list[tuple[str, bytes]], str]] = {
    "not an array": ([("latents", b"hello, this is text")], "is not an .npz file of plain arrays: the magic string is not"),
    "empty": ([("latents.npy", b"")], "is not an .npz file of plain arrays"),
    "path": ([("../latents.npy", ONE)], "unknown entry '../latents'"),
    "twice": ([("latents.npy", ONE), ("latents", ONE)], "it has the entry latents twice"),
    "short": ([("latents.npy", header("(100000000, 1, 8, 8)"))], "do not fit float32 of"),
    "long": ([("latents.npy", header("(1, 1, 8, 8)") + bytes(1000))], "do not fit float32 of"),
    "negative": ([("latents.npy", header("(-1, -1)") + bytes(4))], "do not fit float32 of"),
    "version": ([("latents.npy", b"\x93NUMPY\x03\x00")], "it has the format 3.0 of .npy files"),
    "object": ([("latents.npy", header("(1,)", "'|O'") + bytes(8))], "Object arrays cannot be loaded"),
    "code": ([("latents.npy", header("(__import__('os'),)"))], "is not an .npz file of plain arrays"),
    "deep": ([("latents.npy", header("(" * 3000 + ")" * 3000))], "is not an .npz file of plain arrays"),
    "structured": ([("latents.npy", header("(1,)", "[('a', '<f4')]") + bytes(4)), ("plan.npy", ONE)], "plan must be a text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_hostile_member_is_one_clear_line(kind: str, tmp_path: Path) -> None:
    members, message = BAD[kind]
    with pytest.raises(UsageError, match=message) as caught:
        read_recording(written(tmp_path / "bad.npz", members), UVIT)
    assert "\n" not in str(caught.value)


def test_an_encrypted_member_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.npz", [("latents.npy", ONE)], zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flags of the local header
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and those of the directory
    path.write_bytes(content)
    with pytest.raises(UsageError, match="its entry latents is encrypted"):
        read_recording(path, UVIT)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.npz", [("latents.npy", ONE)], zipfile.ZIP_LZMA)
    with pytest.raises(UsageError, match="compressed in a way that numpy does not write"):
        read_recording(path, UVIT)


def test_a_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    bomb = header("(400000, 1, 8, 8)") + bytes(400_000 * 64 * 4)
    path = written(tmp_path / "bomb.npz", [("latents.npy", bomb)])
    del bomb
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(UsageError, match=r"its arrays take 102,400,128 bytes, far more than the .* bytes of the file"):
        read_recording(path, UVIT)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()

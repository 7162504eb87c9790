"""The request that a picture was drawn for, as text inside its PNG file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from PIL.PngImagePlugin import PngInfo

from ditzoo.errors import DitzooError, UsageError, shown_path
from ditzoo.records import from_json
from ditzoo.sampling.request import SampleRequest

_KEY = "ditzoo"

_SIGNATURE, _END = b"\x89PNG\r\n\x1a\n", b"IEND"
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_MOST = 64 * 2**20
"""The largest size of a text chunk in bytes, before and after decompression."""


def png_info(request: SampleRequest) -> PngInfo:
    """The request as a compressed text chunk, which Pillow writes into a PNG file."""
    info = PngInfo()
    info.add_text(_KEY, msgspec.json.encode(request).decode(), zip=True)
    return info


def read_request(path: Path) -> SampleRequest:
    """The request inside the PNG file at `path`. The picture itself is not decoded.

    Raises UsageError if the file is not a PNG file, if it is damaged, or if it holds no request.
    """
    try:
        with path.open("rb") as file:
            text = next((text for key, text in _texts(file) if key == _KEY), None)
    except OSError as error:
        raise UsageError(f"cannot read the picture {shown_path(path)}: {error.strerror}") from error
    except (ValueError, zlib.error) as error:
        raise UsageError(f"cannot read the picture {shown_path(path)}: {error}") from error
    if text is None:
        raise UsageError(f"{path} does not say how it was made; only PNG files that `ditzoo sample` wrote do")
    try:
        return from_json(text, SampleRequest)
    except (ValueError, DitzooError) as error:
        raise UsageError(f"{path} holds a request that cannot be read: {error}") from error


def _texts(file: BinaryIO) -> Iterator[tuple[str, str]]:
    """The keys and texts of a PNG file (PNG specification, 3rd edition, sections 5.3 and 11.3.3).

    Raises ValueError if the file is not a PNG file, if it ends too early, or if a text chunk is damaged or too large.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise ValueError("it is not a PNG file")
    while True:
        length, kind = struct.unpack(">I4s", _exactly(file, 8))
        if kind == _END:
            return
        if kind not in _TEXT:
            file.seek(length + 4, 1)
            continue
        if length > _MOST:
            raise ValueError(f"it has a text of {length:,} bytes; at most {_MOST:,} are read")
        content, (checksum,) = _exactly(file, length), struct.unpack(">I", _exactly(file, 4))
        if zlib.crc32(kind + content) != checksum:
            raise ValueError("the checksum of a text in it is wrong")
        yield _text(kind, content)


def _text(kind: bytes, content: bytes) -> tuple[str, str]:
    """The key and the text of a chunk."""
    key, _, rest = content.partition(b"\0")
    compressed, encoding = kind == b"zTXt", "latin-1"
    if compressed:
        rest = rest[1:]
    elif kind == b"iTXt":
        compressed, encoding = rest[:1] == b"\x01", "utf-8"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # without the language and the translated key
    return key.decode("latin-1"), (_decompressed(rest) if compressed else rest).decode(encoding)


def _decompressed(data: bytes) -> bytes:
    reader = zlib.decompressobj()
    text = reader.decompress(data, _MOST)
    if reader.unconsumed_tail:
        raise ValueError(f"it has a text of more than {_MOST:,} bytes")
    if not reader.eof:
        raise ValueError("a text in it is cut off")
    return text


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ValueError("it is cut off")
    return data

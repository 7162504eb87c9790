"""How torch decodes latents: in which precision, and whole or in tiles."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from ditzoo.errors import UsageError, check_type, shortened, unknown
from ditzoo.records import Data

DecoderPrecision: TypeAlias = Literal["fp32", "bf16"]
"""A precision in which torch decodes."""

PRECISIONS: tuple[DecoderPrecision, ...] = get_args(DecoderPrecision)
TILES = "tiles"


class Decoding(Data, frozen=True, kw_only=True):
    """The precision of a decoder's weights and layers, and whether it decodes large pictures in overlapping tiles."""

    precision: DecoderPrecision = "fp32"
    tiles: bool = False

    def __str__(self) -> str:
        """The text that `parse_decoding` takes."""
        return f"{self.precision},{TILES}" if self.tiles else self.precision


WHOLE = Decoding()
"""Whole pictures in float32."""


def parse_decoding(text: str | None) -> Decoding:
    """Parses a precision, "tiles", or both, such as "bf16,tiles"; None is `WHOLE`.

    "bf16" decodes in bfloat16. It is faster on processors and GPUs that compute in it, and pictures are a few of 255 levels
    off. "tiles" decodes pictures of more than 256 pixels a side in tiles, which takes less memory. The norms of the decoder see
    one tile at a time, so a picture differs from one that is decoded whole. Raises UsageError if `text` has another word.
    """
    if text is None:
        return WHOLE
    check_type("decoding", text, str, 'a text such as "bf16,tiles"')
    words = text.split(",")
    for word in words:
        if word not in (*PRECISIONS, TILES):
            raise unknown("decoding", word, (*PRECISIONS, TILES), hint="--decoding")
    asked = [precision for precision in PRECISIONS if precision in words]
    if len(words) != len(set(words)) or len(asked) > 1:
        raise UsageError(f"--decoding takes one of {', '.join(PRECISIONS)}, and {TILES}, each once; not {shortened(text)!r}")
    return Decoding(precision=asked[0] if asked else "fp32", tiles=TILES in words)

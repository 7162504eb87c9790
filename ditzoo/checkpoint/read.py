"""Opens checkpoint files. No code in them runs, and the values of a tensor are read only when it is loaded."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ditzoo.checkpoint.choose import Chosen, Pick, Tree, choose
from ditzoo.checkpoint.flaws import flaw_in_header
from ditzoo.checkpoint.pickles import ZIP, read_torch_file
from ditzoo.errors import CheckpointError, shown_path
from ditzoo.families.tensors import Entry
from ditzoo.records import Data, from_json, read_limited
from ditzoo.zoo.bounds import check_path, shown

_PICKLE = b"\x80"
_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")
_LONGEST_HEADER = 100_000_000
"""The longest header, in bytes, that the safetensors library reads."""
_CUT_OFF = ("invalid header length", "incomplete metadata, file not fully covered")
"""The ends of that library's messages for a file that is shorter than its header announces."""


def open_checkpoint(path: Path, pick: Pick | None = None) -> Chosen:
    """The network in a checkpoint: safetensors, a torch file (.pt, .pth, .bin), or the JSON index of shards of either.

    The first bytes of a file determine its type. No code in it runs. If it is a training checkpoint, the averaged weights are
    chosen, unless `pick` names others: see `ditzoo.checkpoint.choose`. Raises CheckpointError, with the reason, if the file is
    of another type or cannot be read, or if it is not clear which tensors are the network.
    """
    return choose(_read(path), pick or Pick(), file=path.name)


def shard_names(index: Path) -> list[str]:
    """The file names of the shards in the index of a checkpoint.

    Raises CheckpointError if the file is not an index, or if a name refers to a file outside the folder of the index.
    """
    try:
        names = sorted(set(from_json(read_limited(index), _Index).weight_map.values()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{index} is neither a checkpoint nor an index of shards: {error}") from error
    for name in names:
        if Path(name).name != name or name in (".", ".."):
            raise CheckpointError(f"{index} names a file outside its folder: {shown(name)}; do not use this checkpoint")
        try:
            check_path(name)
        except ValueError as error:
            raise CheckpointError(f"{index} names a file that cannot be a shard: {error}") from error
    if not names:
        raise CheckpointError(f"{index} is an index of shards that names none; download the checkpoint again")
    return names


class _Index(Data, frozen=True, forbid_unknown_fields=False):
    weight_map: dict[str, str]


def _read(path: Path, *, is_shard: bool = False) -> Tree:
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:
        raise CheckpointError(f"cannot read {shown_path(path)}: {error.strerror}") from error
    if _is_safetensors(start):
        return _safetensors(path)
    if start.startswith((ZIP, _PICKLE)):
        return read_torch_file(path)
    if start.startswith(_POINTER):
        raise CheckpointError(_pointer(path, start))
    if start.lstrip().lower().startswith(_PAGES):
        raise CheckpointError(f"{path} is a web page, not a checkpoint; download the file itself")
    if start.lstrip().startswith(b"{"):
        if is_shard:
            raise CheckpointError(f"{path} is an index of shards, but another index names it as a shard")
        return _shards(path)
    return _safetensors(path)


def _is_safetensors(start: bytes) -> bool:
    """Whether a file begins like a safetensors file: eight bytes with the length of the header, then the header's brace.

    The first byte can have any value, even 0x80, the first byte of a pickle. But a pickle cannot be mistaken for safetensors:
    its bytes after the first two are opcodes, which would mean a header of gigabytes.
    """
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER


def _pointer(path: Path, start: bytes) -> str:
    size = re.search(rb"^size (\d+)", start, re.MULTILINE)
    whole = f" of {int(size[1]):,} bytes" if size else ""
    return (
        f"{path} is a Git LFS pointer, not the checkpoint{whole}; run `git lfs pull` in its folder to download the checkpoint"
    )


def _shards(index: Path) -> Tree:
    tree: Tree = {}
    for name in shard_names(index):
        tree.update(_read(index.parent / name, is_shard=True))
    return tree


def _safetensors(path: Path) -> Tree:
    try:
        file: Any = safe_open(path, framework="pt")
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        return {key: _entry(file, key, part) for key, part in slices.items()}
    except SafetensorError as error:
        with path.open("rb") as content:
            cut = _is_safetensors(content.read(9)) and str(error).endswith(_CUT_OFF)
        if cut:
            raise CheckpointError(f"{path} is a safetensors file whose end is missing; download it again ({error})") from error
        raise CheckpointError(f"{path} is not a safetensors file, a torch file or an index of shards: {error}") from error


def _entry(file: Any, key: str, part: Any) -> Entry:
    """The tensor called `key` of a safetensors file. `part` is the library's slice of it."""
    shape = tuple(part.get_shape())
    return Entry(shape=shape, load=partial(file.get_tensor, key), flaw=flaw_in_header(part.get_dtype(), shape))

"""Checkpoint files, opened without running what is in them and without reading more than is asked for."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ditzoo.errors import CheckpointError
from ditzoo.families.tensors import Entries, Entry

_WRAPPERS = ("ema", "model", "state_dict")  # the entry of a training checkpoint that is taken, the first one that there is
_PREFIXES = ("module.", "_orig_mod.")  # what torch's wrappers put before every key

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"


def open_checkpoint(path: Path) -> Entries:
    """The tensors of a checkpoint by name: safetensors, a torch file (.pt, .pth, .bin), or the JSON index of shards of either.

    What a file is, its first bytes say. A torch file is read with `weights_only`: no code of it runs. Of a training checkpoint
    the averaged weights are taken. Raises CheckpointError, with the reason, for a file that is none of these.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    if start.startswith((_ZIP, _PICKLE)):
        return _torch_file(path)
    if start.lstrip().startswith(b"{"):
        return _shards(path)
    return _safetensors(path)


def shard_names(index: Path) -> list[str]:
    """The files that the index of a sharded checkpoint names; raises CheckpointError for one that leads out of its folder."""
    try:
        names = sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
    except msgspec.DecodeError as error:
        raise CheckpointError(f"{index} is no checkpoint and no index of one: {error}") from error
    for name in names:
        if Path(name).name != name or name in (".", ".."):
            raise CheckpointError(f"{index} names a file outside of its folder: {name!r}; do not use this checkpoint")
    return names


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _shards(index: Path) -> Entries:
    entries: Entries = {}
    for name in shard_names(index):
        entries.update(open_checkpoint(index.parent / name))
    return entries


def _safetensors(path: Path) -> Entries:
    try:
        file: Any = safe_open(path, framework="pt")
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no safetensors file, no torch file and no index of shards: {error}") from error
    entries = {key: Entry(shape=shape, load=partial(file.get_tensor, key)) for key, shape in shapes.items()}
    return _without_prefix(entries)


def _torch_file(path: Path) -> Entries:
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on unusual pickles
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refusal(path, error)) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise CheckpointError(f"{path} is no torch checkpoint, or a damaged one: {_first_line(error)}") from error
    state = _state_dict(path, content)
    strangers = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strangers:
        raise CheckpointError(f"{path} holds values that are no tensors: {', '.join(map(str, strangers[:5]))}")
    return _without_prefix({key: Entry(shape=tuple(value.shape), load=partial(_same, value)) for key, value in state.items()})


def _state_dict(path: Path, content: Any) -> Mapping[str, Any]:
    """The weights inside whatever a training script saved."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return _state_dict(path, content[name])
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the weights of a network")
    return content


def _without_prefix(entries: Entries) -> Entries:
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in entries):
            return _without_prefix({key.removeprefix(prefix): entry for key, entry in entries.items()}) if entries else {}
    return entries


def _is_zip(path: Path) -> bool:
    """Whether the file is of torch's newer format; the older one cannot be mapped into memory."""
    with path.open("rb") as file:
        return file.read(4) == _ZIP


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _refusal(path: Path, error: Exception) -> str:
    culprit = re.search(r"(?:GLOBAL|global:?|type) ([\w.]+\.[\w.]+)", str(error))
    reason = f"it asks for {culprit[1]}" if culprit else _first_line(error)
    return (
        f"{path} is a pickle that holds more than weights ({reason}), so it may run code, and was not loaded;"
        " ask its author for a safetensors file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

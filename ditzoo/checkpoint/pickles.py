"""Reads torch's files (.pt, .pth, .bin) without running any code in them."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ditzoo.checkpoint.choose import Tree
from ditzoo.checkpoint.flaws import flaw_of, shape_of
from ditzoo.errors import CheckpointError
from ditzoo.families.tensors import Entry

ZIP = b"PK\x03\x04"

_DEEPEST, _MOST = 50, 20_000
"""The most levels of nesting, and the most tensors, dictionaries and lists in a file. An optimizer has some thousands."""

_LONGEST = 500

_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_HARMLESS = (
    "argparse.Namespace",  # the arguments of a training script
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),  # paths in these arguments
    "numpy.dtype",  # numbers and arrays, such as the best score so far; numpy 1 and 2 have different names for the module
    "numpy.ndarray",
    *(f"numpy.{module}.multiarray.{name}" for module in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("generator", "bit_generator", "randomstate")),  # random states
    *(f"numpy.random.{name}" for name in ("_pcg64.PCG64", "_mt19937.MT19937", "_philox.Philox", "_sfc64.SFC64")),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "numpy.random.bit_generator.SeedSequence",
)
"""The classes and functions of other objects that training scripts save with the weights. Each is replaced with `_LeftOut`.

The list is harmless: none of these is imported or called, so a file cannot create a path, an array or a generator.
"""


class _LeftOut:
    """Replaces an object of a checkpoint that is not read. It ignores its arguments and keeps nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_torch_file(path: Path) -> Tree:
    """The tensors of a torch file, with their names and nesting.

    The file is read with `weights_only`, so no code in it runs. Raises CheckpointError, with the reason, if the file is damaged
    or holds anything other than tensors, plain values and objects of the classes in `_HARMLESS`.
    """
    zipped = _is_zip(path)
    if zipped:
        _check_archive(path)
    with torch.serialization.safe_globals([(_LeftOut, name) for name in _HARMLESS]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on unusual pickles
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refusal(path, error)) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise CheckpointError(f"{path} is not a torch checkpoint, or it is damaged: {_first_line(error)}") from error
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the weights of a network")
    tree = _Walk(path).tree(content)
    if not tree:
        raise CheckpointError(f"{path} holds no tensors that have names, so it is not the weights of a network")
    return tree


class _Walk:
    """Goes once through the content of a file. Shared and cyclic dictionaries could make it endless, so it is bounded."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, 0

    def tree(self, content: Any, depth: int = 0) -> Tree:
        """The tensors in nested dictionaries and lists.

        Other values, values whose key is not a text or a number, and the states of random generators are left out.
        """
        if depth > _DEEPEST:
            raise CheckpointError(f"{self._path} holds dictionaries that contain themselves, or more than {_DEEPEST} levels")
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        tree: Tree = {}
        for key, value in items:
            name = _name(key)
            if name is None or not isinstance(value, Tensor | Mapping | list | tuple):
                continue
            self._count()
            if name in tree and not isinstance(key, str):
                continue
            if isinstance(value, Tensor) and not _is_bytes(value):
                tree[name] = Entry(shape=shape_of(value), load=partial(_values, value), flaw=flaw_of(value))
            elif not isinstance(value, Tensor):
                tree[name] = self.tree(value, depth + 1)
        return tree

    def _count(self) -> None:
        self._seen += 1
        if self._seen > _MOST:
            raise CheckpointError(f"{self._path} holds more than {_MOST:,} tensors and dictionaries; save the weights alone")


def _name(key: object) -> str | None:
    """A key of a dictionary, or the place in a list, as part of a name. None if it is neither a text nor a small number."""
    if isinstance(key, int):
        return str(key) if 0 <= key <= _MOST else None
    return key if isinstance(key, str) else None


def _is_bytes(tensor: Tensor) -> bool:
    """Whether a tensor is a vector of bytes. torch saves the states of random generators in this form."""
    return tensor.dtype == torch.uint8 and not tensor.is_nested and tensor.dim() == 1


def _check_archive(path: Path) -> None:
    """Raises CheckpointError if an archive is cut off or holds more bytes than its file has. torch compresses nothing."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is a damaged torch file: its end is missing; download it again")
    try:
        with zipfile.ZipFile(path) as archive:
            inside = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is a damaged torch file: {_first_line(error)}; download it again") from error
    if inside > path.stat().st_size:
        raise CheckpointError(f"{path} is compressed, which torch's files are not; save it with torch.save")


def _is_zip(path: Path) -> bool:
    """Whether the file has torch's newer format, a ZIP archive. The older format cannot be mapped into memory."""
    with path.open("rb") as file:
        return file.read(4) == ZIP


def _values(tensor: Tensor) -> Tensor:
    """The tensor itself. A view with all signs changed is computed, because numpy cannot read it."""
    return tensor.resolve_neg()


def _refusal(path: Path, error: Exception) -> str:
    culprit = re.search(r"(?:GLOBAL|global:?|type) ([\w.]+\.[\w.]+)", str(error))
    own_words = str(error).rpartition("WeightsUnpickler error:")[2]  # before them torch gives advice that is dangerous
    reason = f"it asks for {culprit[1]}" if culprit else _first_line(own_words)
    return (
        f"{path} is a pickle that holds more than weights ({reason}); it was not loaded, because it may run code;"
        " ask its author for a safetensors file"
    )


def _first_line(error: Exception | str) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST]

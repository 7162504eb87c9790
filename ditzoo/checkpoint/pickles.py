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
from ditzoo.errors import CheckpointError
from ditzoo.families.tensors import Entry

ZIP = b"PK\x03\x04"

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
    if zipped and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is a damaged torch file: its end is missing; download it again")
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
    return _tree(content)


def _tree(content: Any) -> Tree:
    """The tensors in nested dictionaries and lists. Other values and the states of random generators are left out."""
    items = content.items() if isinstance(content, Mapping) else enumerate(content)
    tree: Tree = {}
    for key, value in items:
        if isinstance(value, Tensor) and not _is_bytes(value):
            tree[str(key)] = Entry(shape=tuple(value.shape), load=partial(_same, value))
        elif isinstance(value, Mapping | list | tuple):
            tree[str(key)] = _tree(value)
    return tree


def _is_bytes(tensor: Tensor) -> bool:
    """Whether a tensor is a vector of bytes. torch saves the states of random generators in this form."""
    return tensor.dtype == torch.uint8 and tensor.dim() == 1


def _is_zip(path: Path) -> bool:
    """Whether the file has torch's newer format, a ZIP archive. The older format cannot be mapped into memory."""
    with path.open("rb") as file:
        return file.read(4) == ZIP


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _refusal(path: Path, error: Exception) -> str:
    culprit = re.search(r"(?:GLOBAL|global:?|type) ([\w.]+\.[\w.]+)", str(error))
    reason = f"it asks for {culprit[1]}" if culprit else _first_line(error)
    return (
        f"{path} is a pickle that holds more than weights ({reason}); it was not loaded, because it may run code;"
        " ask its author for a safetensors file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""torch's files (.pt, .pth, .bin): read without running anything that is in them."""

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
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),  # paths among them
    "numpy.dtype",  # numbers and arrays, such as the best score so far; numpy 1 and 2 call the module differently
    "numpy.ndarray",
    *(f"numpy.{module}.multiarray.{name}" for module in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *(f"numpy.random._pickle.__{name}_ctor" for name in ("generator", "bit_generator", "randomstate")),  # random states
    *(f"numpy.random.{name}" for name in ("_pcg64.PCG64", "_mt19937.MT19937", "_philox.Philox", "_sfc64.SFC64")),
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "numpy.random.bit_generator.SeedSequence",
)
"""What training scripts keep beside the weights. Whatever a pickle asks of these, it gets `_LeftOut` in their place. So none of
them is imported or called, and the file cannot make a path, an array or a generator: that is why the list is harmless."""


class _LeftOut:
    """Stands for an object of a checkpoint that is not read. It ignores all that it is made from, and keeps nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_torch_file(path: Path) -> Tree:
    """The tensors of a torch file, with the names and the nesting that they have in it.

    The file is read with `weights_only`: no code of it runs. Raises CheckpointError, with the reason, for a file that asks for
    anything but tensors, plain values and what `_HARMLESS` names, and for one that is damaged.
    """
    zipped = _is_zip(path)
    if zipped and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is a damaged torch file: its end is missing, so it was cut off; fetch it again")
    with torch.serialization.safe_globals([(_LeftOut, name) for name in _HARMLESS]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on unusual pickles
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refusal(path, error)) from error
        except Exception as error:  # a damaged pickle can raise anything
            raise CheckpointError(f"{path} is no torch checkpoint, or a damaged one: {_first_line(error)}") from error
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the weights of a network")
    return _tree(content)


def _tree(content: Any) -> Tree:
    """The tensors inside of dictionaries and lists; all other values are left out, and so are states of torch's generators."""
    items = content.items() if isinstance(content, Mapping) else enumerate(content)
    tree: Tree = {}
    for key, value in items:
        if isinstance(value, Tensor) and not _is_bytes(value):
            tree[str(key)] = Entry(shape=tuple(value.shape), load=partial(_same, value))
        elif isinstance(value, Mapping | list | tuple):
            tree[str(key)] = _tree(value)
    return tree


def _is_bytes(tensor: Tensor) -> bool:
    """Whether a tensor is a row of bytes, as torch keeps the state of a random generator."""
    return tensor.dtype == torch.uint8 and tensor.dim() == 1


def _is_zip(path: Path) -> bool:
    """Whether the file is of torch's newer format; the older one cannot be mapped into memory."""
    with path.open("rb") as file:
        return file.read(4) == ZIP


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

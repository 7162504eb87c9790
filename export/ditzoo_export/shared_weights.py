"""Two graphs that read their weights from one file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx

_LOCATION, _OFFSET, _LENGTH = "location", "offset", "length"


def share_weights(path: Path, owner: Path) -> None:
    """Lets the graph at `path` read its weights from the files of the graph `owner` in the same folder.

    Weights that `owner` does not have become part of the graph's own file. Its file of weights is deleted.
    """
    known = {_digest(path.parent, weight): weight for weight in _external(onnx.load(owner, load_external_data=False))}
    model = onnx.load(path, load_external_data=False)
    for weight in list(_external(model)):
        shared = known.get(_digest(path.parent, weight))
        place = _place(weight)
        del weight.external_data[:]
        if shared is not None:
            weight.external_data.extend(shared.external_data)
        else:
            weight.raw_data = _read(path.parent, place)
            weight.data_location = onnx.TensorProto.DEFAULT
    onnx.save(model, path)
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)


def _external(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """The weights of a model that are in another file."""
    return (weight for weight in model.graph.initializer if weight.data_location == onnx.TensorProto.EXTERNAL)


def _place(weight: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in weight.external_data}


def _digest(folder: Path, weight: onnx.TensorProto) -> str:
    return hashlib.sha256(_read(folder, _place(weight))).hexdigest()


def _read(folder: Path, place: dict[str, str]) -> bytes:
    with (folder / place[_LOCATION]).open("rb") as file:
        file.seek(int(place[_OFFSET]))
        return file.read(int(place[_LENGTH]))

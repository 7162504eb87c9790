"""Compares the tensors that a manifest states for a graph with those in the graph's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ditzoo.bundle import Graph
from ditzoo.errors import BundleError

Found: TypeAlias = Mapping[str, tuple[str, Sequence[int | str | None]]]
"""The dtype and the shape of each tensor in a file, by name. An axis that may have any size is a text or None."""


def check_graph(path: Path, graph: Graph, found: Found) -> None:
    """Raises BundleError if an input or output of `graph` has another dtype or shape in the file at `path`, or is missing.

    A fixed axis in the file must be the same number in the manifest. An axis of any size may be a number there.
    """
    for spec in (*graph.inputs, *graph.outputs):
        if spec.name not in found:
            raise BundleError(f"{path} has no tensor {spec.name}, which its manifest states; do not use this bundle")
        dtype, shape = found[spec.name]
        fits = len(shape) == len(spec.shape) and all(
            axis == stated for axis, stated in zip(shape, spec.shape, strict=True) if isinstance(axis, int)
        )
        if dtype != spec.dtype or not fits:
            given = f"{dtype}[{', '.join(str(axis) for axis in shape)}]"
            raise BundleError(f"{path} has {spec.name}: {given}, but its manifest states {spec}; do not use this bundle")

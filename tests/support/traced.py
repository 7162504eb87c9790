"""Tracing a network once for exports in several child processes."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ditzoo_export.onnx_bundle  # noqa: F401  # so that no child has to import it
from ditzoo.weights.load import load_network
from ditzoo.zoo.card import Card
from ditzoo_export.artifacts import made_by
from ditzoo_export.network_graphs import write_network_graphs
from ditzoo_export.settings import make_settings


class _TracedError(Exception):
    """Ends an export after its graph is traced, before the exporter changes it."""


def trace_once(card: Card, *precisions: str) -> None:
    """Traces the network of `card`, which must be one graph. Exports in forked children start from that graph.

    Tracing takes nearly all of the time of an export of a small network, and writes no file. Everything after it is as usual.
    """
    programs: dict[tuple[torch.dtype, ...], torch.onnx.ONNXProgram] = {}
    trace: Any = torch.onnx.export

    def traced(module: nn.Module, **options: Any) -> torch.onnx.ONNXProgram:
        dtypes = tuple(parameter.dtype for parameter in module.parameters())
        if dtypes not in programs:
            programs[dtypes] = trace(module, **options)
            raise _TracedError
        return programs[dtypes]

    torch.onnx.export = traced
    made_by(card)  # it looks through all installed packages, and remembers what it found
    for precision in precisions:
        with tempfile.TemporaryDirectory() as folder, suppress(_TracedError):
            write_network_graphs(Path(folder), card, load_network(card), make_settings(card, precision=precision))

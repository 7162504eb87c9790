"""Tracing a network once for exports in several child processes."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ditzoo_export.onnx_bundle  # noqa: F401  # so that no child has to import it
from ditzoo.nets.network import Network
from ditzoo.zoo.card import Card
from ditzoo_export.artifacts import made_by
from ditzoo_export.network_graphs import write_network_graphs
from ditzoo_export.settings import Settings


class _TracedError(Exception):
    """Ends an export after its graph is traced, before the exporter changes it."""


def trace_once(card: Card, net: Network, *settings: Settings) -> None:
    """Traces `net`, which must become one graph, for each of `settings`. Exports in forked children start from these graphs.

    Tracing takes nearly all of the time of an export of a small network, and writes no file. Everything after it is as usual.
    What an export has to know of the installed packages is looked up once, too.
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
    made_by(card)
    for each in settings:
        with tempfile.TemporaryDirectory() as folder, suppress(_TracedError):
            write_network_graphs(Path(folder), card, net, each)

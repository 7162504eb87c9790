"""Making a bundle of ONNX graphs: trace, quantize, verify, and write down what it is."""

from __future__ import annotations

import gc
from pathlib import Path

from ditzoo import nets
from ditzoo.bundle import CARD, MANIFEST, PLAN, Graph, Manifest, record_files, to_json
from ditzoo.card import Card
from ditzoo.plan import make_plan
from ditzoo_export.precision import quantize
from ditzoo_export.settings import Settings
from ditzoo_export.trace import trace_graphs
from ditzoo_export.verify import verify


def fill_onnx(
    folder: Path, card: Card, net: nets.Net | None, settings: Settings, *, key: str, made_by: dict[str, str]
) -> None:
    """Fills `folder` with the bundle of a card's network, or of `net`; raises ExportError where its verification fails."""
    net = nets.load(card) if net is None else net
    graphs = _graphs(folder, card, net, settings)
    verified = verify(folder, graphs, card, net, settings)
    (folder / PLAN).write_bytes(make_plan(card).to_json())
    (folder / CARD).write_bytes(to_json(card))
    manifest = Manifest(
        model=card.name,
        key=key,
        settings={"command": settings.command(card), "precision": settings.precision, "target": settings.target},
        graphs=graphs,
        files=record_files(folder),
        made_by=made_by,
        verified=verified,
    )
    (folder / MANIFEST).write_bytes(to_json(manifest))


def _graphs(folder: Path, card: Card, net: nets.Net, settings: Settings) -> dict[str, Graph]:
    """Writes the graphs; eight-bit ones are made from float32 ones."""
    if settings.precision not in ("int8", "fp8"):
        return trace_graphs(folder, card, net, settings, precision=settings.precision)
    graphs = trace_graphs(folder, card, net, settings, precision="fp32")
    gc.collect()  # the tracer's cycles hold the weights
    return quantize(folder, graphs, card, settings)

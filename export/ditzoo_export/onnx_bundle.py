"""Making a bundle of ONNX graphs: trace the network, quantize and verify the graphs, and write the manifest."""

from __future__ import annotations

import gc
import logging
import tempfile
from pathlib import Path

import numpy as np

from ditzoo.bundle import CARD, MANIFEST, PLAN, REUSE_GRAPH, Graph, Manifest, Verification
from ditzoo.digests import digest
from ditzoo.errors import ExportError
from ditzoo.families import family_of
from ditzoo.manifests import record_files
from ditzoo.nets.network import Network
from ditzoo.pictures.autoencoders import with_statistics
from ditzoo.plan.make import make_plan
from ditzoo.progress import SILENT, Display
from ditzoo.records import to_json
from ditzoo.weights.load import load_network
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card
from ditzoo_export.decoder import export_decoder
from ditzoo_export.network_graphs import write_network_graphs
from ditzoo_export.quantization.calibration import largest_inputs
from ditzoo_export.quantization.graphs import write_quantized
from ditzoo_export.quantization.layers import distinct_extents
from ditzoo_export.settings import Settings
from ditzoo_export.shared_weights import share_weights
from ditzoo_export.text_encoder import export_text
from ditzoo_export.verify import Expected, expect, verify

log = logging.getLogger(__name__)


def fill_onnx(
    folder: Path,
    card: Card,
    net: Network | None,
    settings: Settings,
    *,
    key: str,
    made_by: dict[str, str],
    display: Display = SILENT,
) -> None:
    """Fills `folder` with the bundle of a card's network, or of `net`. The stages appear on `display`.

    Raises ExportError if the verification fails.
    """
    with display.stage(f"running {card.name} in torch, to verify the export"):
        from_card, net = net is None, load_network(card) if net is None else net
        expected = expect(card, net, settings)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch) if settings.eight_bits else folder
        graphs = write_network_graphs(place, card, net, settings, display=display)
        del net
        gc.collect()  # reference cycles of the tracer hold copies of the weights
        if settings.eight_bits:
            graphs, verified, extent = _eight_bits(folder, place, graphs, card, expected, settings, display)
        else:
            _share_weights(folder, graphs)
            with display.stage("verifying the graphs"):
                verified, extent = verify(folder, graphs, card, expected, settings), ""
    graphs |= export_decoder(card, folder, size=settings.size, display=display)
    graphs |= export_text(card, folder, display=display)
    (folder / PLAN).write_bytes(make_plan(card).to_json())
    (folder / CARD).write_bytes(to_json(with_statistics(card) if "decoder" in graphs else card))
    with display.stage("computing checksums"):
        files = record_files(folder)
    manifest = Manifest(
        model=card.name,
        key=key,
        weights=digest(weights_file(card)) if from_card else None,
        settings={
            "command": settings.command(card),
            "precision": settings.precision,
            "target": settings.target,
            **({"quantized": extent} if extent else {}),
        },
        graphs=graphs,
        files=files,
        made_by=made_by,
        verified=verified,
    )
    (folder / MANIFEST).write_bytes(to_json(manifest))


def _share_weights(folder: Path, graphs: dict[str, Graph]) -> None:
    if REUSE_GRAPH in graphs:
        share_weights(folder / graphs[REUSE_GRAPH].file, folder / graphs["backbone"].file)


def _eight_bits(
    folder: Path,
    source: Path,
    floats: dict[str, Graph],
    card: Card,
    expected: Expected,
    settings: Settings,
    display: Display,
) -> tuple[dict[str, Graph], Verification, str]:
    """Makes quantized graphs from the float32 graphs in `source`.

    It tries the extents of the family in their order, and keeps the first that passes the verification. Returns the graphs,
    their verification and the extent. Raises ExportError if no extent passes.
    """
    largest = _calibrated(source, floats, card, display) if settings.calibrated else {}
    for extent, left_out in distinct_extents(source / floats["backbone"].file, family_of(card.backbone)).items():
        with display.stage(f"quantizing to {settings.precision}: {extent}"):
            graphs = write_quantized(source, folder, floats, settings, largest=largest, left_out=left_out)
            _share_weights(folder, graphs)
        try:
            with display.stage("verifying the graphs"):
                return graphs, verify(folder, graphs, card, expected, settings), extent
        except ExportError as error:
            failure = error
            log.info("the verification fails if %s is quantized: %s", extent, error)
    raise failure


def _calibrated(source: Path, floats: dict[str, Graph], card: Card, display: Display) -> dict[str, np.ndarray]:
    with display.stage("measuring the inputs of the layers in a sampling run"):
        return largest_inputs(source, floats, card)

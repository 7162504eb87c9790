"""What a bundle of engines has beside them: card, plan, manifest, and the ONNX graphs that are still needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from ditzoo.bundle import CARD, MANIFEST, PLAN, Bundle, Engine, Graph, Manifest
from ditzoo.manifests import record_files
from ditzoo.pictures.text_encoder import TOKENIZER
from ditzoo.records import to_json


def finish_engines(
    folder: Path,
    source: Bundle,
    engines: dict[str, Engine],
    *,
    key: str,
    made_by: dict[str, str],
    settings: dict[str, str],
) -> None:
    """Writes into `folder` what a bundle has beside its engines: card, plan, the graphs that are needed, and the manifest.

    `source` is the bundle of the ONNX graphs that have the weights of the engines.
    """
    for name in (CARD, PLAN):
        (folder / name).write_bytes((source.path / name).read_bytes())
    stripped = {engine.graph for engine in engines.values() if "stripped" in engine.options}
    manifest = Manifest(
        model=source.card.name,
        key=key,
        weights=source.manifest.weights,
        settings=settings,
        graphs=_keep_graphs(folder, source, {name: source.manifest.graphs[name] for name in stripped}),
        engines=engines,
        files=record_files(folder),
        made_by=made_by,
        verified=source.manifest.verified,
    )
    (folder / MANIFEST).write_bytes(to_json(manifest))


def _keep_graphs(folder: Path, source: Bundle, graphs: dict[str, Graph]) -> dict[str, Graph]:
    """Copies the ONNX files of `graphs`, of the decoder and of the text encoder beside the engines. Returns these graphs.

    Engines without weights need `graphs`. With the decoder and the text encoder, a bundle makes images without torch.
    """
    kept = graphs | {name: graph for name, graph in source.manifest.graphs.items() if name in ("decoder", "text_encoder")}
    for name in source.manifest.files:
        if name == TOKENIZER or any(name.startswith(graph.file) for graph in kept.values()):
            shutil.copyfile(source.path / name, folder / name)  # onnx refuses hard links
    return kept

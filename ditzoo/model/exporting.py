"""Exporting by name: ONNX bundles, TensorRT engines and Triton repositories. Nothing heavy is imported before it is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ditzoo.bundle import Bundle
from ditzoo.errors import MissingPackageError, check_type
from ditzoo.files import check_writable
from ditzoo.model_names import ModelLike, find_model
from ditzoo.progress import SILENT, Display
from ditzoo.weights.catalogue import CardLike, card_of

_FOLDER = "the path of a folder"


def check_exporter() -> None:
    """Raises MissingPackageError where a package that the exporter needs is not installed. Imports none of them."""
    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingPackageError(f"exporting needs the package {package}: pip install 'ditzoo[export]'")


def export_onnx(
    model: CardLike,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    target: str = "onnxruntime",
    resolution: str | int | None = None,
    split: bool | None = None,
    guided: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Exports a model to a bundle in the folder `out`: ONNX graphs, plan, card and manifest, verified before it appears.

    `precision` is fp32, fp16, bf16, int8 or fp8; `target` is onnxruntime or tensorrt. `resolution` is in pixels: 256, "256x384"
    (height x width) or "dynamic"; by default that of the model. `split` puts conditioning into a graph of its own, by default
    where that is possible; `guided` adds a graph with guidance inside. A bundle of the same export that is there already is
    left as it is; `overwrite` replaces another one. Raises UsageError for what the model does not allow and for a folder that
    cannot be written, ExportError where the verification fails, and MissingPackageError without the extra `export`.
    """
    card = card_of(model)
    check_type("out", out, (str, os.PathLike), _FOLDER)
    check_exporter()
    from ditzoo_export import export_onnx as export
    from ditzoo_export import make_settings

    settings = make_settings(card, precision=precision, target=target, resolution=_text(resolution), split=split, guided=guided)
    return export(card, Path(out), settings=settings, overwrite=overwrite)


def export_tensorrt(
    model: CardLike,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp16",
    flavour: str = "tensorrt-rtx",
    gpu: str = "current",
    resolution: str | int | None = None,
    batch: str | int = "1-4",
    merged: bool = False,
    split: bool | None = None,
    options: Sequence[str] = (),
    overwrite: bool = False,
) -> Bundle:
    """Builds TensorRT engines of a model into a bundle in the folder `out`, from a verified ONNX export.

    `flavour` is tensorrt or tensorrt-rtx; `gpu` is "current", the GPU of this machine, or a list such as "sm89,sm120".
    `resolution` (pixels) and `batch` (rows of the network; guidance takes two an image) may be lists such as "256,512" and
    "1,4,8-16". Each combination has an engine of its own, or all share one where they are `merged`. `options` are "stripped",
    "refittable", "hardware_compatible", "version_compatible" and "tf32". Raises as `export_onnx`.
    """
    card = card_of(model)
    check_type("out", out, (str, os.PathLike), _FOLDER)
    check_exporter()
    from ditzoo_export import export_engines, make_engine_settings

    settings = make_engine_settings(
        card,
        flavour=flavour,
        gpu=gpu,
        resolution=_text(resolution),
        batch=str(batch),
        precision=precision,
        merged=merged,
        split=split,
        options=options,
    )
    return export_engines(card, Path(out), settings=settings, overwrite=overwrite)


def write_triton_repository(
    model: ModelLike,
    repo: str | os.PathLike[str],
    *,
    precision: str = "fp32",
    client: bool = False,
    instances: int = 1,
    overwrite: bool = False,
    display: Display = SILENT,
) -> list[Path]:
    """Writes a model into a Triton model repository: a bundle's graphs or engines, or the ONNX export of a card, which is made
    in ditzoo's cache first. Returns the folders of the models; raises UsageError where one is there already."""
    found, folder = find_model(model), Path(repo)
    check_writable(folder if folder.is_dir() else folder.parent, "--repo")
    check_exporter()
    if not isinstance(found, Bundle):
        from ditzoo_export import cached_bundle, make_settings

        settings = make_settings(found, precision=precision)
        with display.status(f"exporting {found.name} to ONNX, if it is not in the cache"):
            found = cached_bundle(found, settings=settings)
    from ditzoo_export.triton import export_triton

    folder.mkdir(exist_ok=True)
    return export_triton(found, folder, client=client, instances=instances, overwrite=overwrite)


def _text(resolution: str | int | None) -> str | None:
    return None if resolution is None else str(resolution)

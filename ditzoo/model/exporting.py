"""Exports models by name: to ONNX bundles, TensorRT engines and Triton repositories. Large packages are imported on use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ditzoo.bundle import Bundle
from ditzoo.errors import MissingPackageError, UsageError, check_flags, check_type, described, whole_number
from ditzoo.files import check_target, check_writable, make_folder, path_problem
from ditzoo.model_names import ModelLike, find_model
from ditzoo.progress import SILENT, Display
from ditzoo.weights.catalogue import CardLike, card_of
from ditzoo.zoo.sizes import resolution_text

_FOLDER = "the path of a folder"
_BATCH = "a number of rows, or a list such as '1,4,8-16'"


def check_exporter() -> None:
    """Raises MissingPackageError if a package that the exporter needs is not installed. Imports none of these packages."""
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
    reuse: str | None = None,
    overwrite: bool = False,
    display: Display = SILENT,
) -> Bundle:
    """Exports a model to a bundle in the folder `out`: ONNX graphs, plan, card and manifest.

    The graphs are verified against torch before the folder appears. `precision` is fp32, fp16, bf16, int8 or fp8; `target` is
    onnxruntime or tensorrt. `resolution` is in pixels: 256, "256x384" (height x width) or "dynamic"; the default is that of the
    model. `split` puts conditioning into a graph of its own; the default is to split if the network allows it. `guided` adds a
    graph that contains guidance. `reuse` "blocks=K" adds a graph that runs the first K and the last K blocks only, for plans
    with reuse of the same K (see `ditzoo.make_plan`). If `out` already holds a bundle of the same export, it is kept as it is.
    `overwrite` replaces a bundle of another export. Raises UsageError if the model does not support the arguments or if the
    folder cannot be written, ExportError if the verification fails, and MissingPackageError if the extra `export` is not
    installed. The stages of the work appear on `display`.
    """
    card = card_of(model)
    check_type("out", out, (str, os.PathLike), _FOLDER)
    check_flags(overwrite=overwrite)
    check_exporter()
    from ditzoo_export import export_onnx as export
    from ditzoo_export import make_settings

    settings = make_settings(
        card,
        precision=precision,
        target=target,
        resolution=_text(resolution),
        split=split,
        guided=guided,
        reuse=reuse,
    )
    return export(card, Path(out), settings=settings, overwrite=overwrite, display=display)


def export_tensorrt(
    model: CardLike,
    out: str | os.PathLike[str],
    *,
    precision: str = "fp16",
    flavour: str = "tensorrt_rtx",
    gpu: str = "current",
    resolution: str | int | None = None,
    batch: str | int = "1-4",
    merged: bool = False,
    split: bool | None = None,
    options: Sequence[str] = (),
    workspace: int | None = None,
    reuse: str | None = None,
    overwrite: bool = False,
    display: Display = SILENT,
) -> Bundle:
    """Builds TensorRT engines of a model into a bundle in the folder `out`, from a verified ONNX export.

    `flavour` is tensorrt or tensorrt_rtx. `gpu` is "current", which means the GPU of this machine, or a list of architectures
    and cards such as "sm89,H100". `resolution` is in pixels. `batch` counts rows of the network's input; a guided image takes
    two rows. Both may be lists, such as "256,512" and "1,4,8-16". Each combination gets its own engine, or all share one engine
    if `merged` is set. `options` may contain "stripped", "refittable", "hardware_compatible", "version_compatible", "tf32" and
    "weight_streaming". `workspace` is the most device memory for the intermediate results of one layer, in MB. `reuse`
    "blocks=K" adds engines that run the first K and the last K blocks only, for plans with reuse of the same K; `resolution` is
    then one. Raises the same errors as `export_onnx`. The stages of the work appear on `display`.
    """
    card = card_of(model)
    check_type("out", out, (str, os.PathLike), _FOLDER)
    check_flags(overwrite=overwrite)
    check_exporter()
    from ditzoo_export import export_engines, make_engine_settings

    settings = make_engine_settings(
        card,
        flavour=flavour,
        gpu=gpu,
        resolution=_text(resolution),
        batch=batch if isinstance(batch, str) else described(whole_number("batch", batch, _BATCH)),
        precision=precision,
        merged=merged,
        split=split,
        options=options,
        workspace=workspace,
        reuse=reuse,
    )
    return export_engines(card, Path(out), settings=settings, overwrite=overwrite, display=display)


def refit_tensorrt(
    model: ModelLike,
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    display: Display = SILENT,
) -> Bundle:
    """Puts other weights into the refittable engines of a bundle. Writes a new bundle into the folder `out`.

    `model` is the folder of the engines, or the opened bundle. `checkpoint` is a file with weights of the same network, or the
    name of a model whose weights are here, such as a fine-tune that was imported. Names and shapes are checked first, and the
    new weights are verified as in `export_onnx`. Raises UsageError if the model is no bundle of refittable engines, or if the
    weights are of another network. Raises CheckpointError if the file does not fit, and BackendError if the engines do not run
    on this machine or refuse the weights.
    """
    bundle = find_model(model)
    check_type("out", out, (str, os.PathLike), _FOLDER)
    check_flags(overwrite=overwrite)
    check_type("checkpoint", checkpoint, (str, os.PathLike), "the path of a checkpoint, or the name of a model")
    if not isinstance(bundle, Bundle):
        raise UsageError(f"--refit takes the folder of a bundle of engines, not the name {bundle.name}")
    check_exporter()
    from ditzoo_export.refitting import FineTune, check_refittable, fine_tune_of, refit_engines

    check_refittable(bundle, bundle.card)
    path = Path(checkpoint)
    is_file = path_problem(path) is None and path.is_file()
    tuned = fine_tune_of(path, bundle) if is_file else FineTune(name=str(checkpoint), card=card_of(str(checkpoint)))
    return refit_engines(bundle, tuned, Path(out), overwrite=overwrite, display=display)


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
    """Writes a model into the Triton model repository `repo` and returns the folders of the Triton models.

    A bundle gives its graphs or engines. A card is first exported to ONNX in ditzoo's cache. Raises UsageError if one of the
    folders exists already and `overwrite` is not set.
    """
    check_type("repo", repo, (str, os.PathLike), _FOLDER)
    check_flags(client=client, overwrite=overwrite)
    found, folder = find_model(model), Path(repo)
    check_target(folder, "--repo")
    check_writable(folder if folder.exists() else folder.parent, "--repo")
    if not isinstance(found, Bundle):
        check_exporter()
        from ditzoo_export import cached_bundle, make_settings

        settings = make_settings(found, precision=precision)
        found = cached_bundle(found, settings=settings, display=display)
    from ditzoo_export.triton import export_triton

    make_folder(folder, "--repo")
    return export_triton(found, folder, client=client, instances=instances, overwrite=overwrite)


def _text(resolution: str | int | None) -> str | None:
    return None if resolution is None else resolution_text(resolution)

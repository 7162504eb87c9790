"""Opening a model on a backend: what the backend needs, an ONNX export or engines, is made first where it is missing."""

from __future__ import annotations

from ditzoo.backends import load_module, open_backend
from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec
from ditzoo.backends.table import row_of
from ditzoo.bundle import Bundle
from ditzoo.model.exporting import check_exporter
from ditzoo.model_names import ModelLike, find_model
from ditzoo.progress import SILENT, Display
from ditzoo.specs import Device
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels


def default_backend(model: Card | Bundle) -> str:
    """The name of the backend that runs a model where none is chosen.

    That is torch for a card, onnxruntime for a bundle of ONNX graphs, and for any other bundle the TensorRT of its engines.
    """
    if isinstance(model, Card):
        return "torch"
    flavours = [engine.flavour for engine in model.manifest.engines.values()]
    return flavours[0] if flavours and "backbone" not in model.manifest.graphs else "onnxruntime"


def open_model(
    model: ModelLike,
    spec: BackendSpec,
    *,
    device: Device | str = "cpu",
    threads: int | None = None,
    size: Size | None = None,
    display: Display = SILENT,
) -> Backend:
    """Opens a model on the backend of `spec`, on `device` unless the spec names one.

    Some backends run the ONNX export of a card, or its engines for the GPU of this machine (see `ditzoo.backends.table`). They
    are taken from ditzoo's cache, or made there first, for latents of `size` (height, width); by default that of training.
    Raises MissingPackageError if the packages for that are not installed, ExportError if an export fails its verification, and
    all that `find_model` and `open_backend` raise.
    """
    load_module(spec.name)
    found = _prepared(find_model(model), spec, device=device, size=size, display=display)
    card = found.card if isinstance(found, Bundle) else found
    with display.status(f"loading {card.name} on {spec.name}"):
        return open_backend(
            spec.name,
            found,
            device=spec.device or device,  # type: ignore[arg-type]  # `open_backend` checks it
            precision=spec.precision,
            form=spec.form,
            compiled=spec.compiled,
            tf32=spec.tf32,
            threads=threads,
        )


def _prepared(model: Card | Bundle, spec: BackendSpec, *, device: str, size: Size | None, display: Display) -> Card | Bundle:
    """What the backend of `spec` runs: the model itself, or the bundle that is exported from its card."""
    row = row_of(spec.name)
    if isinstance(model, Bundle) or row.runs == "weights":
        return model
    check_exporter()
    from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings

    precision, split = spec.precision or "fp32", None if spec.form is None else spec.form == "split"
    resolution = None if size is None else in_pixels(model, size)
    if row.runs == "graphs":
        target = row.target(precision=precision, device=spec.device or device)  # type: ignore[arg-type]
        settings = make_settings(model, precision=precision, target=target, resolution=resolution, split=split)
        with display.status(f"exporting {model.name} to ONNX, if it is not in the cache"):
            return cached_bundle(model, settings=settings)
    engines = make_engine_settings(
        model,
        flavour=spec.name,
        precision=precision,
        resolution=resolution,
        split=split,
        options=("tf32",) if spec.tf32 else (),
    )
    with display.status(f"building engines of {model.name}, if they are not in the cache"):
        return cached_engines(model, settings=engines)

"""Opens a model on a backend. If the backend needs an ONNX export or engines, they are made first."""

from __future__ import annotations

from ditzoo.backends import load_module, open_backend
from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec, OpenOptions, check_options
from ditzoo.backends.table import row_of
from ditzoo.bundle import Bundle
from ditzoo.model.exporting import check_exporter
from ditzoo.model_names import ModelLike, find_model
from ditzoo.progress import SILENT, Display
from ditzoo.specs import Device
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels


def default_backend(model: Card | Bundle) -> str:
    """The name of the backend that runs a model by default.

    It is torch for a card, onnxruntime for a bundle of ONNX graphs, and the TensorRT flavour of its engines for other bundles.
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
    """Opens a model on the backend of `spec`, on `device` unless the spec names a device.

    Some backends run the ONNX export of a card, or its engines for the GPU of this machine (see `ditzoo.backends.table`). The
    export comes from ditzoo's cache. If the cache does not have it, it is made first. `size` is the (height, width) of the
    latents of the export; the default is that of training. Raises MissingPackageError if the packages for exporting are not
    installed, ExportError if the verification of an export fails, and the errors of `find_model` and `open_backend`.
    """
    load_module(spec.name)
    _check(spec, device=device, threads=threads)
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


def _check(spec: BackendSpec, *, device: Device | str, threads: int | None) -> None:
    """Raises the errors of `check_options` before an export is made."""
    options = OpenOptions(
        device=spec.device or device,  # type: ignore[arg-type]  # checked here
        precision=spec.precision,
        form=spec.form,
        compiled=spec.compiled,
        tf32=spec.tf32,
        threads=threads,
    )
    check_options(row_of(spec.name), options)


def _prepared(model: Card | Bundle, spec: BackendSpec, *, device: str, size: Size | None, display: Display) -> Card | Bundle:
    """Returns the input of the backend of `spec`: the model itself, or the bundle that was exported from its card."""
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
        with display.status(f"exporting {model.name} to ONNX, unless the cache has it"):
            return cached_bundle(model, settings=settings)
    engines = make_engine_settings(
        model,
        flavour=spec.name,
        precision=precision,
        resolution=resolution,
        split=split,
        options=("tf32",) if spec.tf32 else (),
    )
    with display.status(f"building engines of {model.name}, unless the cache has them"):
        return cached_engines(model, settings=engines)

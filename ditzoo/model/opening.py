"""Opens a model on a backend. If the backend needs an ONNX export or engines, they are made first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import msgspec

from ditzoo.backends import check_packages, load_module, open_backend
from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec, OpenOptions, check_options, parse_spec
from ditzoo.backends.reusing import no_reuse
from ditzoo.backends.table import row_of
from ditzoo.bundle import Bundle
from ditzoo.errors import UsageError, check_type
from ditzoo.model.exporting import check_exporter
from ditzoo.model_names import ModelLike, find_model
from ditzoo.plan.table import Plan
from ditzoo.progress import SILENT, Display
from ditzoo.specs import device_name, split_device
from ditzoo.weights.local import check_present
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, in_pixels

AUTO = "auto"
"""The name that stands for the fastest backend. A precision may follow it: auto:bf16."""

TEN_IMAGES = "1-32"
"""The batch sizes of engines for the ten images that are drawn by default, with or without guidance."""


def default_backend(model: Card | Bundle) -> str:
    """The name of the backend that runs a model by default.

    It is torch for a card, the TensorRT flavour of its engines for a bundle that has some, and onnxruntime for other bundles.
    """
    if isinstance(model, Card):
        return "torch"
    return next((engine.flavour for engine in model.manifest.engines.values()), "onnxruntime")


def is_automatic(text: str | None) -> bool:
    """Whether the name of a backend stands for the fastest one (see `ditzoo.model.automatic`)."""
    return text is not None and text.strip().partition(":")[0] == AUTO


def check_backend_text(text: str | None) -> None:
    """Raises UsageError unless `text` is a text, or None for the default backend."""
    if text is not None:
        check_type("backend", text, str, "a backend's name with its options, such as 'torch:bf16' or 'onnxruntime:int8'")


def choose_backend(model: Card | Bundle, text: str | None, *, precision: str | None = None) -> BackendSpec:
    """The backend and options of a text such as "onnxruntime:cuda", or the default backend without a text.

    Raises UsageError for an unknown backend or option, and if the text names another precision than `precision`, which
    `open_backend` checks.
    """
    spec = BackendSpec(name=default_backend(model)) if text is None else parse_spec(text)
    if precision is None:
        return spec
    if spec.precision not in (None, precision):
        raise UsageError(f"the backend {text!r} says {spec.precision}, and the precision is {precision}; leave one out")
    return msgspec.structs.replace(spec, precision=precision)


def open_model(
    model: ModelLike,
    spec: BackendSpec,
    *,
    device: str = "cpu",
    threads: int | None = None,
    size: Size | None = None,
    batch: str = TEN_IMAGES,
    plan: Plan | None = None,
    display: Display = SILENT,
) -> Backend:
    """Opens a model on the backend of `spec`, on `device` unless the spec names a device.

    Some backends run the ONNX export of a card, or its engines for the GPU of this machine (see `ditzoo.backends.table`). The
    export comes from ditzoo's cache. If the cache does not have it, it is made first. `size` is the (height, width) of the
    latents of the export; the default is that of training. `batch` are the batch sizes of engines that are built here, as in
    `export_tensorrt`, and the largest one tells what work the threads of a CPU get; the default is that of ten guided images.
    If `plan` has reuse, an export that is made here can run it. Raises BackendError if the backend has no reuse,
    MissingPackageError if the packages for exporting are not installed, ExportError if the verification of an export fails, and
    the errors of `find_model` and `open_backend`.
    """
    outer = plan.outer_blocks if plan is not None and plan.outer_blocks is not msgspec.UNSET else None
    if outer is not None and not row_of(spec.name).reuses:
        raise no_reuse(spec.name)
    opened = find_model(model)
    check_openable(opened, [spec], device=device, threads=threads)
    with display.status(f"starting {spec.name}"):
        module, check = load_module(spec.name), row_of(spec.name).option_check
    if check is not None and isinstance(opened, Card):
        getattr(module, check)(spec.provider_options, spec.precision or "fp32")
    found = _prepared(opened, spec, device=device, size=size, batch=batch, outer=outer, display=display)
    card = found.card if isinstance(found, Bundle) else found
    with display.status(f"loading {card.name} on {spec.name}"):
        return open_backend(
            spec.name,
            found,
            device=spec.device or device,
            precision=spec.precision,
            form=spec.form,
            compiled=spec.compiled,
            tf32=spec.tf32,
            threads=threads,
            rows=max(map(int, re.findall("[0-9]+", batch))),
            provider_options=spec.provider_options,
        )


def sampling_batch(images: int) -> str:
    """The batch sizes of engines that sample `images` at a time, guided or not.

    The largest is a power of two, so that runs of nearly as many images share their engines, and 128 at most: larger batches
    run in several parts.
    """
    return f"1-{min(128, 1 << (2 * images - 1).bit_length())}"


def check_openable(
    model: Card | Bundle, specs: Iterable[BackendSpec], *, device: str = "cpu", threads: int | None = None
) -> None:
    """Raises the error of the first backend that cannot open a model for want of packages or weights, or for its options.

    It takes milliseconds: no package is imported, and no weights are read.
    """
    for spec in specs:
        row = row_of(spec.name)
        check_packages(row)
        _check(spec, device=device, threads=threads)
        if isinstance(model, Card) and row.runs != "weights":
            check_exporter()
        if isinstance(model, Card):
            check_present(model)


def _check(spec: BackendSpec, *, device: str, threads: int | None) -> None:
    """Raises the errors of `check_options` before an export is made."""
    options = OpenOptions(
        device=device_name(spec.device or device),
        precision=spec.precision,
        form=spec.form,
        compiled=spec.compiled,
        tf32=spec.tf32,
        threads=threads,
        provider_options=spec.provider_options,
    )
    check_options(row_of(spec.name), options)


def _prepared(
    model: Card | Bundle,
    spec: BackendSpec,
    *,
    device: str,
    size: Size | None,
    batch: str,
    outer: int | None,
    display: Display,
) -> Card | Bundle:
    """Returns the input of the backend of `spec`: the model itself, or the bundle that was exported from its card."""
    row = row_of(spec.name)
    if isinstance(model, Bundle) or row.runs == "weights":
        return model
    check_exporter()
    from ditzoo_export import cached_bundle, cached_engines, make_engine_settings, make_settings

    precision, split = spec.precision or "fp32", None if spec.form is None else spec.form == "split"
    resolution = None if size is None else in_pixels(model, size)
    reuse = None if outer is None else f"blocks={outer}"
    if row.runs == "graphs":
        target = row.target(precision=precision, device=spec.device or device)
        settings = make_settings(model, precision=precision, target=target, resolution=resolution, split=split, reuse=reuse)
        return cached_bundle(model, settings=settings, display=display)
    engines = make_engine_settings(
        model,
        flavour=spec.name,
        precision=precision,
        resolution=resolution,
        batch=batch,
        merged="," in batch,
        split=split,
        options=("tf32",) if spec.tf32 else (),
        reuse=reuse,
    )
    index = split_device(spec.device or device)[1]
    with _building_on(index):
        return cached_engines(model, settings=engines, display=display)


def _building_on(index: int) -> AbstractContextManager[None]:
    """A block in which "the GPU of this machine" is the one of this number."""
    from ditzoo.backends import cuda

    return nullcontext() if cuda.gpu() is None else cuda.on_gpu(index)

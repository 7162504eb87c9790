"""From what the user typed to a loaded model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ditzoo.cli import output
from ditzoo.errors import MissingPackageError

if TYPE_CHECKING:
    from ditzoo.backends.base import Backend
    from ditzoo.backends.options import BackendSpec
    from ditzoo.bundle import Bundle
    from ditzoo.zoo.card import Card


def find(text: str) -> Card | Bundle:
    """The card of that name, or the bundle in that folder."""
    from ditzoo.bundle import open_bundle
    from ditzoo.weights.catalogue import card, cards
    from ditzoo.weights.reference import PREFIX

    path = Path(text)
    is_path = (path.exists() or path.name != text) and not text.startswith(PREFIX)
    return open_bundle(path) if is_path and text not in cards() else card(text)


def card_of(model: Card | Bundle) -> Card:
    """The card of a model."""
    from ditzoo.bundle import Bundle

    return model.card if isinstance(model, Bundle) else model


def open_on(model: Card | Bundle, spec: BackendSpec, *, device: str, threads: int | None) -> Backend:
    """The model on a backend, on `device` unless the spec names one. For a backend of graphs, a card is exported first, or its
    earlier export is found in the cache; likewise its engines, for the GPU of this machine."""
    from ditzoo.backends import load_module, open_backend
    from ditzoo.backends.table import row_of
    from ditzoo.bundle import Bundle

    row = row_of(spec.name)
    load_module(row.name)
    precision, split = spec.precision or "fp32", None if spec.form is None else spec.form == "split"
    if row.runs == "graphs" and not isinstance(model, Bundle):
        export, target = exporter(), row.target(precision=precision, device=spec.device or device)  # type: ignore[arg-type]
        settings = export.make_settings(model, precision=precision, target=target, split=split)
        with output.status(f"exporting {model.name} to ONNX, if it is not in the cache"):
            model = export.cached_bundle(model, settings=settings)
    if row.runs == "engines" and not isinstance(model, Bundle):
        export = exporter()
        with output.status(f"building engines of {model.name}, if they are not in the cache"):
            model = export.cached_engines(
                model, settings=export.make_engine_settings(model, flavour=spec.name, precision=precision, split=split)
            )
    with output.status(f"loading {card_of(model).name} on {spec.name}"):
        return open_backend(
            spec.name,
            model,
            device=spec.device or device,  # type: ignore[arg-type]
            precision=spec.precision,
            form=spec.form,
            compiled=spec.compiled,
            threads=threads,
        )


def exporter() -> Any:
    """The exporter; raises MissingPackageError where what it needs is not installed. It loads torch only to make something."""
    from importlib.util import find_spec

    for package in ("torch", "onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingPackageError(f"exporting needs the package {package}: pip install 'ditzoo[export]'")
    import ditzoo_export

    return ditzoo_export

"""The ways to run a network: `base` says what a backend is, `open_backend` opens one by name."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.card import Card
from ditzoo.errors import BackendError, MissingPackageError, UsageError, unknown
from ditzoo.specs import DEVICES, PRECISIONS, Device, Precision

EXTRAS = {"torch": "torch", "onnxruntime": "onnx"}
"""The backends, and the extra of the distribution that installs what each one needs."""


def open_backend(
    name: str,
    model: Card | Bundle,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: int | None = None,
) -> Backend:
    """Opens the backend called `name` on a model: onnxruntime a bundle, torch the weights of a card or of a bundle's card.

    Raises UsageError for a name, device, precision or number of threads that there is not, MissingPackageError where the
    backend's package is not installed, and BackendError where it cannot run as asked.
    """
    _check("device", device, DEVICES)
    _check("precision", precision, PRECISIONS)
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, not {threads}")
    module = load_module(name)
    if name == "torch":
        card = model.card if isinstance(model, Bundle) else model
        return module.TorchBackend(card, device=device, precision=precision, threads=threads)  # type: ignore[no-any-return]
    if isinstance(model, Card):
        raise BackendError(f"onnxruntime runs bundles; `ditzoo export onnx {model.name} --out DIR` makes one")
    graph = model.manifest.graphs["backbone"]
    if precision != graph.precision:
        raise BackendError(f"the bundle {model.path} was exported in {graph.precision}, not {precision}")
    return module.OnnxRuntimeBackend(model.path, graph, model.card, device=device, threads=threads)  # type: ignore[no-any-return]


def load_module(name: str) -> ModuleType:
    """The module of the backend called `name`; raises UsageError or MissingPackageError where there is none."""
    if name not in EXTRAS:
        raise unknown("backend", name, EXTRAS)
    try:
        return import_module(f"ditzoo.backends.{name}")
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise MissingPackageError(f"the backend {name} needs a package: pip install 'ditzoo[{EXTRAS[name]}]'") from error


def _check(kind: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise unknown(kind, given, known)

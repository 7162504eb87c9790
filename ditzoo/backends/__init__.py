"""The ways to run a network: `base` says what a backend is, `open_backend` opens one by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.card import Card
from ditzoo.errors import BackendError, MissingPackageError, UsageError, unknown
from ditzoo.specs import DEVICES, FLAVOURS, PRECISIONS, Device, Precision, Profile

EXTRAS = {"torch": "torch", "onnxruntime": "onnx", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""The backends, and the extra of the distribution that installs what each one needs."""


def open_backend(
    name: str,
    model: Card | Bundle,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    threads: int | None = None,
    profiles: Sequence[Profile] = (),
) -> Backend:
    """Opens the backend called `name` on a model: torch the weights of a card or of a bundle's card, onnxruntime a bundle's
    graphs, tensorrt and tensorrt_rtx a bundle's engines.

    `profiles` are the sizes that onnxruntime's TensorRT devices build engines for; without them, they build for each size that
    comes. Raises UsageError for a name, device, precision or number of threads that there is not or profiles where nothing is
    built, MissingPackageError where the backend's package is not installed, and BackendError where it cannot run as asked.
    """
    _check("device", device, DEVICES)
    _check("precision", precision, PRECISIONS)
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, not {threads}")
    if profiles and (name != "onnxruntime" or device not in FLAVOURS):
        raise UsageError(f"profiles are for onnxruntime on {' or '.join(FLAVOURS)}, not for {name} on {device}")
    module = load_module(name)
    if name == "torch":
        card = model.card if isinstance(model, Bundle) else model
        return module.TorchBackend(card, device=device, precision=precision, threads=threads)  # type: ignore[no-any-return]
    if isinstance(model, Card):
        command = "onnx" if name == "onnxruntime" else f"tensorrt --flavour {name}"
        raise BackendError(f"{name} runs bundles; `ditzoo export {command} {model.name} --out DIR` makes one")
    if name in FLAVOURS:
        return module.open_engines(model, flavour=name, precision=precision)  # type: ignore[no-any-return]
    if "backbone" not in model.manifest.graphs:
        raise BackendError(
            f"the bundle {model.path} has no ONNX graph; `ditzoo export onnx {model.card.name} --out DIR` makes one"
        )
    graphs = model.manifest.graphs
    if precision != graphs["backbone"].precision:
        exported = graphs["backbone"].precision
        raise BackendError(f"the bundle {model.path} was exported in {exported}, not {precision}; add --precision {exported}")
    return module.OnnxRuntimeBackend(  # type: ignore[no-any-return]
        model.path, graphs, model.card, device=device, threads=threads, profiles=profiles
    )


def load_module(name: str) -> ModuleType:
    """The module of the backend called `name`; raises UsageError or MissingPackageError where there is none."""
    if name not in EXTRAS:
        raise unknown("backend", name, EXTRAS)
    try:
        if name in FLAVOURS:
            import_module(name)
        return import_module(f"ditzoo.backends.{'tensorrt' if name in FLAVOURS else name}")
    except ModuleNotFoundError as error:
        if error.name not in (name, "cuda"):
            raise
        raise MissingPackageError(f"the backend {name} needs a package: pip install 'ditzoo[{EXTRAS[name]}]'") from error


def _check(kind: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise unknown(kind, given, known)

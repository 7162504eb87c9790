"""The ways to run a network: `base` says what a backend is, `open_backend` opens one by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError, MissingPackageError, UsageError, unknown
from ditzoo.files import digest
from ditzoo.model_names import ModelLike, find_model
from ditzoo.specs import DEVICES, FLAVOURS, PRECISIONS, Device, Form, Precision, Profile
from ditzoo.zoo.card import Card

EXTRAS = {
    "torch": "torch",
    "diffusers": "diffusers",
    "onnxruntime": "onnx",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
}
"""The backends, and the extra of the distribution that installs what each one needs."""

_IN_TORCH = {"torch": "TorchBackend", "diffusers": "open_peer"}


def open_backend(
    name: str,
    model: ModelLike,
    *,
    device: Device = "cpu",
    precision: Precision | None = None,
    form: Form | None = None,
    compiled: bool = False,
    threads: int | None = None,
    profiles: Sequence[Profile] = (),
) -> Backend:
    """Opens the backend called `name` on a model: torch the weights of a card or of a bundle's card, diffusers the same in its
    own network, onnxruntime a bundle's graphs, tensorrt and tensorrt_rtx a bundle's engines.

    `precision` is, unless given, fp32, or what the bundle was exported in. `form` is what the bundle must hold, or for torch
    whether what depends on time and label alone runs ahead (split). `compiled` passes a network of torch through its compiler.
    `profiles` are the sizes that onnxruntime's TensorRT devices build engines for; without them, they build for each size that
    comes. Raises UsageError for a name, device, precision or number of threads that there is not or profiles where nothing is
    built, MissingPackageError where the backend's package is not installed, and BackendError where it cannot run as asked.
    """
    model = find_model(model)
    _check("device", device, DEVICES)
    if precision is not None:
        _check("precision", precision, PRECISIONS)
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be 1 or more, not {threads}")
    if profiles and (name != "onnxruntime" or device not in FLAVOURS):
        raise UsageError(f"profiles are for onnxruntime on {' or '.join(FLAVOURS)}, not for {name} on {device}")
    if isinstance(model, Bundle) and name in FLAVOURS:
        _check_flavour(model, name)
    module = load_module(name)
    if name in _IN_TORCH:
        opener = getattr(module, _IN_TORCH[name])
        card = _with_its_weights(model) if isinstance(model, Bundle) else model
        return opener(  # type: ignore[no-any-return]
            card, device=device, precision=precision or "fp32", form=form, compiled=compiled, threads=threads
        )
    if isinstance(model, Card):
        command = "onnx" if name == "onnxruntime" else f"tensorrt --flavour {name}"
        raise BackendError(f"{name} runs bundles; `ditzoo export {command} {model.name} --out DIR` makes one")
    _check_form(model, form)
    if name in FLAVOURS:
        return module.open_engines(model, flavour=name, precision=precision)  # type: ignore[no-any-return]
    _check_graphs(model, precision)
    return module.OnnxRuntimeBackend(  # type: ignore[no-any-return]
        model.path, model.manifest.graphs, model.card, device=device, threads=threads, profiles=profiles
    )


def _check_flavour(bundle: Bundle, name: str) -> None:
    """Raises BackendError where the engines of a bundle are of another flavour, whether that one is installed or not."""
    for engine in bundle.manifest.engines.values():
        if engine.flavour != name:
            raise BackendError(f"the engines in {bundle.path} are of {engine.flavour}; use --backend {engine.flavour}")


def load_module(name: str) -> ModuleType:
    """The module of the backend called `name`; raises UsageError or MissingPackageError where there is none."""
    if name not in EXTRAS:
        raise unknown("backend", name, EXTRAS)
    try:
        if name in FLAVOURS:
            import_module(name)
        return import_module(f"ditzoo.backends.{'tensorrt' if name in FLAVOURS else name}")
    except ModuleNotFoundError as error:
        if error.name not in (name, "cuda", "torch"):
            raise
        raise MissingPackageError(f"the backend {name} needs a package: pip install 'ditzoo[{EXTRAS[name]}]'") from error


def _with_its_weights(bundle: Bundle) -> Card:
    """The card of a bundle; raises BackendError where its weights here are known not to be those that were exported."""
    from ditzoo.weights.local import weights_file

    exported = bundle.manifest.weights
    if exported is not None and digest(weights_file(bundle.card)) != exported:
        raise BackendError(
            f"the bundle {bundle.path} was exported from other weights than {bundle.card.name} has here;"
            f" `{bundle.manifest.settings['command']} --out DIR` makes one from these"
        )
    return bundle.card


def _check_form(bundle: Bundle, form: Form | None) -> None:
    parts = {*bundle.manifest.graphs, *(engine.graph for engine in bundle.manifest.engines.values())}
    there: Form = "split" if "conditioning" in parts else "single"
    if form not in (None, there):
        raise BackendError(f"the bundle {bundle.path} is {there}, not {form}; leave that out, or export it with --{form}")


def _check_graphs(bundle: Bundle, precision: Precision | None) -> None:
    if "backbone" not in bundle.manifest.graphs:
        raise BackendError(
            f"the bundle {bundle.path} has no ONNX graph; `ditzoo export onnx {bundle.card.name} --out DIR` makes one"
        )
    exported = bundle.manifest.graphs["backbone"].precision
    if precision not in (None, exported):
        raise BackendError(
            f"the bundle {bundle.path} was exported in {exported}, not {precision}; leave that out, or export it with"
            f" --precision {precision}"
        )


def _check(kind: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise unknown(kind, given, known)

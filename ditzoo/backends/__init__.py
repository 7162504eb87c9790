"""The ways to run a network: `table` lists the backends, `base` says what one is, and `open_backend` opens one by name."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TypeVar

from ditzoo.backends.base import Backend
from ditzoo.backends.options import (
    OpenOptions,
    check_options,
    check_precision,
    check_provider_options,
    check_tf32,
    parse_spec,
)
from ditzoo.backends.table import BackendRow, Runs, row_of
from ditzoo.backends.threads import settle_waiting
from ditzoo.bundle import Bundle, consistently
from ditzoo.digests import digest
from ditzoo.errors import (
    BackendError,
    MissingPackageError,
    UsageError,
    check_flags,
    check_known,
    check_type,
    each_of,
    shortened,
)
from ditzoo.model_names import ModelLike, find_model
from ditzoo.specs import FORMS, PRECISIONS, Form, Precision, Profile, device_name
from ditzoo.zoo.card import Card

T = TypeVar("T", Precision, Form)

_PROFILES = "a list of Profile"


def open_backend(
    name: str,
    model: ModelLike,
    *,
    device: str = "cpu",
    precision: Precision | None = None,
    form: Form | None = None,
    compiled: bool = False,
    tf32: bool = False,
    threads: int | None = None,
    rows: int | None = None,
    profiles: Sequence[Profile] = (),
    provider_options: Mapping[str, str] | None = None,
) -> Backend:
    """Opens a backend on a model. `ditzoo.backends.table` says what each backend runs: a card's weights, a bundle's graphs, or
    a bundle's engines. A backend that runs weights takes a bundle too, and runs the weights of its card.

    `name` may carry options, as in "onnxruntime:int8"; see `ditzoo.backends.options`. A device in the name comes before the
    argument. `device` is cpu or cuda, and for onnxruntime also tensorrt or tensorrt_rtx. A GPU may have a number: "cuda" is the
    first one, and "cuda:1" the second. `precision` is fp32, or that of the bundle, unless it is given. `form` is the form that
    the bundle must have; for torch it says whether the part that depends on time and label alone runs ahead ("split").
    `compiled` passes a network of torch through its compiler. `tf32` lets a GPU compute the matrix multiplications and
    convolutions of fp32 in TF32, which has limits of parity of its own. `threads` is the number of CPU threads; without it, the
    cores and their load decide (see `ditzoo.backends.threads`), and for a small network on onnxruntime or openvino also `rows`,
    the number of rows that an evaluation is going to have: two for each guided image. `profiles` are the sizes for which
    onnxruntime's TensorRT devices build engines; without them, they build for each size that comes. `provider_options` are
    options of ONNX Runtime's execution provider for the device, such as {"gpu_mem_limit": "8000000000"} (see docs/gpu.md), or
    properties of OpenVINO.

    Raises UsageError for an argument of a wrong type or out of range, for an unknown name, device, precision or form, for
    profiles where nothing is built, and for an option that the name and an argument give differently. Raises
    MissingPackageError if the backend's package is not installed, and BackendError if the backend cannot run the model as
    asked.
    """
    check_type("name", name, str, "a backend's name, such as 'onnxruntime:int8'")
    check_flags(compiled=compiled, tf32=tf32)
    named = {} if provider_options is None else provider_options
    check_provider_options(named)
    built_for = tuple(each_of("profiles", profiles, _PROFILES))
    for profile in built_for:
        check_type("profiles", profile, Profile, _PROFILES)
    spec = parse_spec(name)
    row = row_of(spec.name)
    options = OpenOptions(
        device=spec.device or device_name(device),
        precision=_one_of("precision", PRECISIONS, name, spec.precision, precision),
        form=_one_of("form", FORMS, name, spec.form, form),
        compiled=spec.compiled or compiled,
        tf32=spec.tf32 or tf32,
        threads=threads,
        rows=rows,
        profiles=built_for,
        provider_options={**named, **spec.provider_options},
    )
    check_options(row, options)
    runnable = _RUNNABLE[row.runs](row, find_model(model), options)
    opener: Callable[[BackendRow, Card | Bundle, OpenOptions], Backend] = getattr(load_module(row.name), row.opener)
    if isinstance(runnable, Card):
        return opener(row, runnable, options)
    return consistently(runnable, lambda bundle: opener(row, bundle, options))


def load_module(name: str) -> ModuleType:
    """The module of the backend called `name`.

    Raises UsageError if there is no such backend, and MissingPackageError if a package that it needs is not installed.
    """
    row = row_of(name)
    check_packages(row)
    if "torch" in row.packages:
        settle_waiting()
    try:
        with _without_collection():
            for package in row.packages:
                import_module(package)
    except ModuleNotFoundError as error:
        if not any(f"{package}.".startswith(f"{error.name}.") for package in row.packages):
            raise
        raise MissingPackageError(f"the backend {name} needs a package: pip install 'ditzoo[{row.extra}]'") from error
    return import_module(row.module)


@contextmanager
def _without_collection() -> Iterator[None]:
    """A block without the collection of garbage. Importing torch makes many objects and no garbage, and looking for garbage
    takes 6 to 10% of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def check_packages(row: BackendRow) -> None:
    """Raises MissingPackageError if a package that a backend needs is not installed. Imports none of them."""
    if any(find_spec(package.partition(".")[0]) is None for package in row.packages):
        raise MissingPackageError(f"the backend {row.name} needs a package: pip install 'ditzoo[{row.extra}]'")


def _one_of(option: str, known: Sequence[T], name: str, named: T | None, given: T | None) -> T | None:
    """The value of an option in the name or the one in the argument. Raises UsageError if it is not one of the `known` ones."""
    if given is None:
        return named
    check_known(option, given, known)
    if named not in (None, given):
        raise UsageError(f"the backend {shortened(name)!r} says {named}, and the argument says {given}; leave one out")
    return given


def _runnable_weights(row: BackendRow, model: Card | Bundle, options: OpenOptions) -> Card:
    """The card of a model; raises BackendError if a bundle was exported from other weights than its card has here."""
    from ditzoo.weights.local import weights_file

    if isinstance(model, Card):
        return model
    exported = model.manifest.weights
    if exported is not None and digest(weights_file(model.card)) != exported:
        raise BackendError(
            f"the bundle {model.path} was exported from other weights than {model.card.name} has here;"
            f" `{model.manifest.settings['command']} --out DIR` makes one from these"
        )
    return model.card


def _runnable_graphs(row: BackendRow, model: Card | Bundle, options: OpenOptions) -> Bundle:
    """The bundle; raises BackendError if it has no graphs of the form and precision that were asked for."""
    if isinstance(model, Card):
        raise BackendError(f"{row.name} runs bundles; `ditzoo export onnx {model.name} --out DIR` makes one")
    _check_form(model, options.form)
    if "backbone" not in model.manifest.graphs:
        raise BackendError(
            f"the bundle {model.path} has no ONNX graph; `ditzoo export onnx {model.card.name} --out DIR` makes one"
        )
    exported = model.manifest.graphs["backbone"].precision
    if options.precision not in (None, exported):
        raise BackendError(
            f"the bundle {model.path} was exported in {exported}, not {options.precision}; leave that out, or export it with"
            f" --precision {options.precision}"
        )
    check_precision(row, exported)
    if options.tf32:
        check_tf32(exported)
    return model


def _runnable_engines(row: BackendRow, model: Card | Bundle, options: OpenOptions) -> Bundle:
    """The bundle; raises BackendError if its engines are of another flavour, whether that one is installed or not."""
    if isinstance(model, Card):
        command = f"ditzoo export tensorrt --flavour {row.name} {model.name} --out DIR"
        raise BackendError(f"{row.name} runs bundles; `{command}` makes one")
    for engine in model.manifest.engines.values():
        if engine.flavour != row.name:
            raise BackendError(f"the engines in {model.path} are of {engine.flavour}; use --backend {engine.flavour}")
    _check_form(model, options.form)
    return model


_RUNNABLE: dict[Runs, Callable[[BackendRow, Card | Bundle, OpenOptions], Card | Bundle]] = {
    "weights": _runnable_weights,
    "graphs": _runnable_graphs,
    "engines": _runnable_engines,
}
"""What a backend is opened on, for what it runs."""


def _check_form(bundle: Bundle, form: Form | None) -> None:
    parts = {*bundle.manifest.graphs, *(engine.graph for engine in bundle.manifest.engines.values())}
    there: Form = "split" if "conditioning" in parts else "single"
    if form not in (None, there):
        raise BackendError(f"the bundle {bundle.path} is {there}, not {form}; leave that out, or export it with --{form}")

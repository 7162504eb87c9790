"""`--backend auto`: the fastest backend of this machine for a model. It is measured once, and kept in the cache."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from ditzoo.backends.options import BackendSpec, check_threads
from ditzoo.backends.table import ROWS
from ditzoo.backends.threads import cores_here
from ditzoo.bundle import Bundle
from ditzoo.choices import Choice, Situation, Timing, fastest, keep_choice, read_choice
from ditzoo.digests import digest
from ditzoo.distributions import versions_of
from ditzoo.errors import BackendError, DitzooError, UsageError, unknown
from ditzoo.measure import gpu
from ditzoo.measure.bench import rows_per_image
from ditzoo.measure.evaluation_time import least_seconds
from ditzoo.measure.machine import PACKAGES, processor
from ditzoo.model.opening import AUTO, check_openable, default_backend, open_model, sampling_batch
from ditzoo.plan.table import Plan
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.sizes import choose_size
from ditzoo.specs import PRECISIONS, Precision, device_name, split_device
from ditzoo.weights.catalogue import card_of
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size

MOST_IMAGES = 4
"""The most images in the evaluation that is measured."""


def fastest_backend(
    model: Card | Bundle,
    text: str = AUTO,
    *,
    precision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    size: Size | None = None,
    images: int = MOST_IMAGES,
    plan: Plan,
    again: bool = False,
    display: Display = SILENT,
) -> Choice:
    """The fastest backend for a model on this machine. `text` is "auto", or has a precision, such as "auto:bf16".

    The candidates are the backends that are installed and run the model on `device`, in the precision that was asked for: by
    default fp32, or that of the bundle. Another precision is never chosen. A candidate that runs exports of a card gets one in
    the cache. Each candidate is opened alone, and evaluates `images` images of the `plan`, at most four. Only the time of an
    evaluation counts, and not that of loading. The choice holds as long as the model, the arguments, the machine and the
    versions of the packages are the same, unless it is measured `again`.

    Raises UsageError for an unknown precision, and BackendError, with the reasons, if no backend runs the model.
    """
    check_threads(threads)
    situation = _situation(
        model, _precision(model, text, precision), device=device, threads=threads, size=size, images=images, plan=plan
    )
    choice = None if again else read_choice(situation)
    if choice is None:
        choice = _measured(model, situation, plan, display=display)
        keep_choice(choice)
    return choice


def _measured(model: Card | Bundle, situation: Situation, plan: Plan, *, display: Display) -> Choice:
    """Measures every candidate. Raises BackendError if none runs the model."""
    timings = tuple(_timing(model, name, situation, plan, display=display) for name in candidates(model, situation.device))
    chosen = fastest(timings)
    if chosen is None:
        reasons = "; ".join(f"{timing.backend}: {timing.why}" for timing in timings)
        raise BackendError(f"no backend runs {situation.model} in {situation.precision} on {situation.device} here: {reasons}")
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Choice(situation=situation, timings=timings, chosen=chosen, date=date)


def candidates(model: Card | Bundle, device: str) -> list[str]:
    """The names of the backends that "auto" may choose on a device, the default one first."""
    kind, default = split_device(device)[0], default_backend(model)
    names = [row.name for row in ROWS if row.automatic and (kind in row.devices or (row.runs == "engines" and kind == "cuda"))]
    return sorted(names, key=lambda name: name != default)


def _timing(model: Card | Bundle, name: str, situation: Situation, plan: Plan, *, display: Display) -> Timing:
    """The time of an evaluation on a backend, or why it cannot run the model."""
    spec = BackendSpec(name=name, precision=situation.precision)
    try:
        check_openable(model, [spec], device=situation.device, threads=situation.threads)
        with (
            open_model(
                model,
                spec,
                device=situation.device,
                threads=situation.threads,
                size=situation.size,
                batch=sampling_batch(situation.images),
                plan=plan,
                display=display,
            ) as backend,
            display.status(f"measuring {situation.model} on {backend.name}"),
        ):
            return Timing(backend=name, seconds=least_seconds(backend, rows=situation.rows, size=situation.size))
    except DitzooError as error:
        return Timing(backend=name, seconds=None, why=str(error))


def _precision(model: Card | Bundle, text: str, asked: str | None) -> Precision:
    """The precision of "auto" or "auto:bf16", or the one asked for; else that of the bundle, or fp32.

    Raises UsageError for anything else behind "auto", and if a bundle was exported in another precision.
    """
    _, colon, named = text.strip().partition(":")
    if colon and named not in PRECISIONS:
        raise unknown(f"precision of {AUTO}", named, PRECISIONS)
    if asked is not None and asked not in PRECISIONS:
        raise unknown("precision", asked, PRECISIONS)
    if named and asked not in (None, named):
        raise UsageError(f"the backend {text!r} says {named}, and the precision is {asked}; leave one out")
    exported = _exported_precision(model)
    wanted = named or asked or exported or "fp32"
    if exported not in (None, wanted):
        raise UsageError(f"this bundle of {card_of(model).name} is in {exported}, not in {wanted}; leave the precision out")
    found: Precision = msgspec.convert(wanted, Precision)
    return found


def own_precision(model: Card | Bundle) -> Precision:
    """The precision of a backend that names none: that of the bundle, or fp32."""
    return _exported_precision(model) or "fp32"


def _exported_precision(model: Card | Bundle) -> Precision | None:
    if isinstance(model, Card):
        return None
    engines = [engine.precision for engine in model.manifest.engines.values() if engine.graph == "backbone"]
    graph = model.manifest.graphs.get("backbone")
    return graph.precision if graph is not None else next(iter(engines), None)


def _situation(
    model: Card | Bundle,
    precision: Precision,
    *,
    device: str,
    threads: int | None,
    size: Size | None,
    images: int,
    plan: Plan,
) -> Situation:
    """What a choice depends on, here and now."""
    device, images = device_name(device), min(images, MOST_IMAGES)
    gpus = {} if split_device(device)[0] == "cpu" else gpu.describe()
    return Situation(
        model=card_of(model).name,
        weights=digest(weights_file(model)) if isinstance(model, Card) else model.manifest.key,
        precision=precision,
        device=device,
        threads=None if threads is None else int(threads),
        images=images,
        rows=images * rows_per_image(plan),
        size=choose_size(model, None) if size is None else size,
        outer_blocks=plan.outer_blocks if isinstance(plan.outer_blocks, int) else 0,
        processor=processor(),
        cores=cores_here().usable,
        gpu=gpus.get("GPU"),
        versions=versions_of(PACKAGES),
    )

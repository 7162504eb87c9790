"""Reads and writes .npz files of latents that another system drew, with the noise and the plan that made them.

latents [N, C, H, W], or states [S + 1, N, C, H, W]   noise [N, C, H, W]   draws [S, N, C, H, W]   seed, first
classes [N], or prompts   plan   model   precision                          (see docs/parity.md)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ditzoo.errors import PlanError, UsageError
from ditzoo.files import replacing
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.npz import NpzError, StoredArray, open_npz
from ditzoo.measure.parity import SampledStates
from ditzoo.plan.table import Plan, check_plan
from ditzoo.records import from_json
from ditzoo.sampling.classes import MOST_IMAGES
from ditzoo.sampling.noise import MAX_SEED, Floats, Noise, noise_of
from ditzoo.sampling.request import SampleRequest
from ditzoo.specs import PRECISIONS, Precision
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size, check_size, own_size

NAMES = ("latents", "states", "noise", "draws", "seed", "first", "classes", "prompts", "plan", "model", "precision")

_START = 1e-3
"""The largest relative L2 error of the first state against the noise of the file. Rounding to half precision stays below."""


_OPTION = "--save-latents"


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a file: the latents, the request, and the noise, which may differ from that of the request's seed."""

    drawn: SampledStates
    request: SampleRequest
    noise: Noise


def write_recording(path: Path, request: SampleRequest, latents: Floats, *, precision: Precision) -> None:
    """Writes the final `latents` [N, C, H, W] of a request, with its noise and plan. No partial file is ever left."""
    noise = noise_of(request.seed, range(request.first, request.first + request.count), latents.shape[1:])
    texts = {"model": request.model.encode(), "precision": precision.encode(), "plan": request.plan.to_json()}
    if request.prompts is not None:
        texts["prompts"] = msgspec.json.encode(request.prompts)
    arrays: dict[str, Any] = {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    arrays |= {"latents": latents, "noise": noise(0), "seed": np.uint64(request.seed), "first": np.int64(request.first)}
    if request.classes is not None:
        arrays["classes"] = np.array(request.classes, dtype=np.int64)
    with replacing(path, option=_OPTION) as scratch:
        np.savez(scratch, **arrays)


def save_latents(path: Path, request: SampleRequest, latents: Floats, *, precision: Precision) -> None:
    """Writes the final `latents` [N, C, H, W] as an .npy file, or as a recording if `path` ends in .npz."""
    if path.suffix == ".npz":
        write_recording(path, request, latents, precision=precision)
        return
    with replacing(path, option=_OPTION) as scratch:
        np.save(scratch, latents)


def read_recording(path: Path, card: Card, *, plan: Plan | None = None) -> Recording:
    """Reads the recording at `path`, which was made with the model of `card`. `plan` is for a file without a plan.

    Raises UsageError, with the file and the entry, if an entry is missing, has a wrong shape or type, or is not finite.
    """
    try:
        return _recording(path, _Entries(open_npz(path, NAMES)), card, plan)
    except (_EntryError, NpzError) as error:
        raise UsageError(f"{path}: {error}") from error


class _EntryError(Exception):
    """The error of a file. The message does not have the name of the file yet."""


class _Entries:
    """The arrays of a file. Each method checks the shape and the type of an array before it reads the array."""

    def __init__(self, arrays: dict[str, StoredArray]) -> None:
        self._arrays = arrays

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def floats(self, name: str, shape: Sequence[int | str]) -> Floats:
        """A finite floating-point array, at least float32. The axis "N" of `shape` may have any size."""
        stored = self._arrays[name]
        if not np.issubdtype(stored.dtype, np.floating):
            raise _EntryError(f"{name} must be floating-point numbers, not {stored.dtype}")
        fits = stored.ndim == len(shape) and all(
            size > 0 and axis in (size, "N") for axis, size in zip(shape, stored.shape, strict=True)
        )
        if not fits:
            raise _EntryError(f"{name} must be [{', '.join(map(str, shape))}], not {list(stored.shape)}")
        array = stored.read()
        if not np.isfinite(array).all():
            place = np.argwhere(~np.isfinite(array))[0].tolist()
            raise _EntryError(f"{name} has NaN or infinity, first at {place} of [{', '.join(map(str, shape))}]")
        return array.astype(np.promote_types(array.dtype, np.float32), copy=False)

    def size(self, name: str) -> Size | None:
        """The last two axes of an array of latents. None if it has fewer than four axes."""
        shape = self._arrays[name].shape
        return (shape[-2], shape[-1]) if len(shape) > 3 else None

    def integers(self, name: str, shape: tuple[int, ...]) -> list[int]:
        """The numbers of an integer array of the given `shape`, as a flat list."""
        stored = self._arrays[name]
        if stored.shape != shape or not np.issubdtype(stored.dtype, np.integer):
            given = f"{stored.dtype} of {list(stored.shape)}"
            raise _EntryError(f"{name} must be whole numbers of shape {list(shape)}, not {given}")
        return [int(number) for number in stored.read().reshape(-1)]

    def text(self, name: str) -> str:
        """A text, stored as a string or as its bytes in UTF-8."""
        stored = self._arrays[name]
        is_string = stored.dtype.kind == "U" and stored.ndim == 0
        if not is_string and (stored.dtype != np.uint8 or stored.ndim != 1):
            raise _EntryError(f"{name} must be a text, or its bytes as uint8, not {stored.dtype} of {list(stored.shape)}")
        try:
            return str(stored.read()) if is_string else stored.read().tobytes().decode()
        except UnicodeDecodeError as error:
            raise _EntryError(f"{name} is not UTF-8: {error}") from error


def _recording(path: Path, entries: _Entries, card: Card, plan: Plan | None) -> Recording:
    if "model" in entries and entries.text("model") != card.name:
        raise _EntryError(f"it was made with {entries.text('model')}, not {card.name}")
    plan = _plan(entries, plan)
    check_plan(card, plan)
    if ("latents" in entries) == ("states" in entries):
        raise _EntryError("it must have either latents [N, C, H, W] or states [S + 1, N, C, H, W]")
    latent, steps = (card.backbone.latent_shape[0], *_size(entries, card)), len(plan.rows)
    if "latents" in entries:
        states = entries.floats("latents", ("N", *latent))[None]
    else:
        states = entries.floats("states", (steps + 1, "N", *latent))
    count = states.shape[1]
    if count > MOST_IMAGES:
        raise _EntryError(f"it has {count:,} images; at most {MOST_IMAGES:,} are compared")
    noise = _noise(entries, plan, count, latent)
    if len(states) > 1 and relative_l2(states[0], plan.initial * noise(0)) > _START:
        raise _EntryError(f"states[0] is not the noise times {plan.initial:g}, the `initial` of the plan")
    return Recording(
        drawn=SampledStates(name=path.name, precision=_precision(entries), states=tuple(states)),
        request=SampleRequest(
            model=card.name,
            plan=plan,
            seed=0,
            count=count,
            size=msgspec.UNSET if latent[1:] == own_size(card) else latent[1:],
            **_shown(entries, card, count),
        ),
        noise=noise,
    )


def _size(entries: _Entries, card: Card) -> Size:
    """The height and width of the latents: those of the file if the network takes several sizes, else those of training."""
    size = entries.size("latents" if "latents" in entries else "states")
    if size is None or not card.backbone.resizable:
        return own_size(card)
    try:
        check_size(card, size)
    except UsageError as error:
        raise _EntryError(str(error)) from error
    return size


def _plan(entries: _Entries, given: Plan | None) -> Plan:
    if given is not None and "plan" in entries:
        raise _EntryError("it has its own plan; leave out --plan")
    if given is not None:
        return given
    if "plan" not in entries:
        raise _EntryError("it has no plan; add the JSON that `ditzoo plan save` writes, or give --plan FILE")
    try:
        return Plan.from_json(entries.text("plan"))
    except PlanError as error:
        raise _EntryError(f"plan: {error}") from error


def _noise(entries: _Entries, plan: Plan, count: int, latent: tuple[int, ...]) -> Noise:
    """The noise of the file. Draw 0 is `noise`, later draws are in `draws`. Missing draws are generated from `seed`."""
    steps = len(plan.rows)
    draws = {0: entries.floats("noise", (count, *latent))} if "noise" in entries else {}
    if "draws" in entries:
        draws |= dict(enumerate(entries.floats("draws", (steps, count, *latent)), start=1))
    if "seed" in entries:
        (seed,), (first,) = entries.integers("seed", ()), entries.integers("first", ()) if "first" in entries else [0]
        if not (0 <= seed <= MAX_SEED and 0 <= first <= MAX_SEED - count):
            raise _EntryError(f"seed must be 0 to {MAX_SEED}, and first 0 to {MAX_SEED - count}")
        generated = noise_of(seed, range(first, first + count), latent)
        return lambda draw: draws[draw] if draw in draws else generated(draw)
    if 0 not in draws:
        raise _EntryError("it has no noise; add noise [N, C, H, W], the first draw of the plan, or the seed of ditzoo's noise")
    if 1 not in draws and any(row.draws for row in plan.rows):
        raise _EntryError("its plan adds noise at its steps; add draws [S, N, C, H, W], or the seed of ditzoo's noise")
    return lambda draw: draws[draw]


def _shown(entries: _Entries, card: Card, count: int) -> dict[str, Any]:
    """The classes or prompts of the images, if the model takes them."""
    wanted = "prompts" if card.text is not None else "classes" if card.number_of_classes else None
    for name in {"prompts", "classes"} - {wanted}:
        if name in entries:
            raise _EntryError(f"{card.name} does not take {name}; leave out this entry")
    if wanted is not None and wanted not in entries:
        raise _EntryError(f"it has no {wanted}; add an entry of length {count}, the number of images")
    if wanted == "classes":
        return {"classes": tuple(entries.integers("classes", (count,)))}
    return {"prompts": _prompts(entries, count)} if wanted == "prompts" else {}


def _prompts(entries: _Entries, count: int) -> tuple[str, ...]:
    try:
        prompts = from_json(entries.text("prompts"), tuple[str, ...])
    except ValueError as error:
        raise _EntryError(f"prompts must be a JSON list of texts: {error}") from error
    if len(prompts) != count:
        raise _EntryError(f"prompts has length {len(prompts)}; it must be {count}, the number of images")
    return prompts


def _precision(entries: _Entries) -> Precision:
    text = entries.text("precision") if "precision" in entries else "fp32"
    if text not in PRECISIONS:
        raise _EntryError(f"precision must be one of {', '.join(PRECISIONS)}, not {text!r}")
    return text

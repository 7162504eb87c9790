"""Tunes reuse for a model by name. The arguments of the user become a measured list of full rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from ditzoo.errors import UsageError, real_number, shortened, whole_number
from ditzoo.measure.tuning import CANDIDATES, Tuned, tune
from ditzoo.model.opening import check_backend_text, check_openable, choose_backend, open_model
from ditzoo.model_names import ModelLike, find_model
from ditzoo.pictures.draw import condition_of
from ditzoo.plan.make import choose_plan
from ditzoo.plan.reuse import with_all_blocks
from ditzoo.plan.table import check_outer_blocks
from ditzoo.plan.tuning import rows_to_save
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.classes import Classes
from ditzoo.sampling.request import make_request
from ditzoo.sampling.sizes import choose_size
from ditzoo.weights.catalogue import card_of
from ditzoo.zoo.card import Card

IMAGES = 4
"""The number of images that are drawn to tune a model, if no classes are named."""


def tune_reuse(
    model: ModelLike,
    *,
    target: float,
    blocks: int | None = None,
    backend: str | None = None,
    classes: Classes | None = None,
    prompts: str | Iterable[str] | None = None,
    solver: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    guidance_times: tuple[float, float] | None = None,
    guidance_every: int | None = None,
    resolution: str | int | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    display: Display = SILENT,
) -> Tuned:
    """Finds by measuring which rows of a plan run all blocks, so that `target` times fewer blocks run (see
    `ditzoo.measure.tuning.tune`).

    The other rows run the first `blocks` and the last `blocks` blocks; the default is a seventh of all, and at least one.
    `reuse` of the result is the value for `make_plan`, for the same solver, number of steps and guidance. Four images are drawn
    (`classes`: the first four), once without reuse and up to three times with it. The other arguments are those of
    `Model.sample` and `load`. Raises UsageError if an argument is wrong or if the target cannot be reached, and BackendError if
    the backend has no reuse.
    """
    factor = real_number("target", target, "a factor, such as 1.8")
    check_backend_text(backend)
    found = find_model(model)
    card = card_of(found)
    outer = default_blocks(card) if blocks is None else whole_number("blocks", blocks, "a whole number of blocks")
    check_outer_blocks(card, outer)
    chosen = choose_plan(
        found,
        None,
        solver=solver,
        steps=steps,
        guidance=guidance,
        guidance_interval=guidance_interval,
        guidance_times=guidance_times,
        guidance_every=guidance_every,
    )
    plan = with_all_blocks(chosen)
    rows_to_save(plan, target, blocks=card.backbone.blocks, outer=outer)  # raises before the model is opened
    size = choose_size(found, resolution)
    num = IMAGES if classes is None and prompts is None else None
    request = make_request(card, plan, classes=classes, prompts=prompts, num=num, seed=seed, size=size)
    spec = choose_backend(found, backend)
    place = spec.device or device
    check_openable(found, [spec], device=place, threads=threads)
    condition = condition_of(found, request, device=place, display=display)
    probed = msgspec.structs.replace(plan, outer_blocks=outer)
    with (
        open_model(found, spec, device=place, threads=threads, size=size, plan=probed, display=display) as opened,
        display.progress(f"tuning {card.name} on {opened.name}", (1 + CANDIDATES) * len(plan.rows)) as advance,
    ):
        return tune(
            opened,
            plan,
            outer=outer,
            target=factor,
            condition=condition,
            count=request.count,
            seed=request.seed,
            size=size,
            advance=advance,
        )


def default_blocks(card: Card) -> int:
    """The number of first blocks, and of last blocks, that rows with reuse run by default."""
    return max(1, card.backbone.blocks // 7)


def parse_target(text: str) -> float:
    """The factor of "1.8x" or "1.8". Raises UsageError for anything else."""
    try:
        target = float(text.strip().removesuffix("x"))
    except ValueError:
        target = math.nan
    if not math.isfinite(target):
        raise UsageError(f"--target takes a factor, such as 1.8x, not {shortened(text)!r}")
    return target

"""Tuning reuse: the trajectory of a model is measured, and decides which rows of its plan run all blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.backends.timing import DelegatingBackend
from ditzoo.measure.metrics import relative_l2
from ditzoo.plan.reuse import Reuse, reuse_text, with_reuse
from ditzoo.plan.table import Plan, check_outer_blocks
from ditzoo.plan.tuning import Numbers, block_runs, halves_of, least_changes, most_saved, rows_to_save, unreachable
from ditzoo.records import Data
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import sample_steps
from ditzoo.sampling.noise import Floats
from ditzoo.specs import Array
from ditzoo.zoo.sizes import Size

REACH = 64
"""No row reuses the residual of a row this far before it, or further. So many residuals are kept while tuning."""

CANDIDATES = 3
"""The number of lists that are measured at most."""

EVENLY = "evenly spaced"


class Candidate(Data, frozen=True, kw_only=True):
    """A list of full rows. `how` says where it comes from, `reuse` is the option that makes it.

    `factor` is the number of blocks without reuse over the number with it. `expected` is the mean over all rows of the relative
    change of the residual since the row it comes from, which is 0 in a full row. `error` is the relative L2 error of the final
    latents against the plan without reuse.
    """

    how: str
    reuse: str
    full: tuple[int, ...]
    factor: float
    expected: float
    error: float


class Tuned(Data, frozen=True, kw_only=True):
    """The result of tuning: the list of full rows with the least measured error, and the others that were measured."""

    model: str
    solver: str
    rows: int
    blocks: int
    target: float
    images: int
    seed: int
    best: Candidate
    others: tuple[Candidate, ...]

    @property
    def reuse(self) -> str:
        """The option `--reuse` of the best list: "full=0-2,5,9,blocks=4"."""
        return self.best.reuse


class Residuals(DelegatingBackend):
    """A backend that measures how the residual of the middle blocks changes from row to row.

    `distances` has a list for each full evaluation t: the L2 distances of its residual from those of the evaluations before it,
    the oldest first. They are infinite where the earlier evaluation had fewer rows. `norms` has the norm of each residual.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.distances: list[list[float]] = []
        self.norms: list[float] = []
        self._kept: deque[Floats] = deque(maxlen=REACH - 1)

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        """The output of `backend`."""
        return self.backend(inputs)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        """The same as that of `backend`."""
        output, residual = super().with_residual(inputs, outer)
        self.take(np.array(self.numpy(residual), np.float32))
        return output, residual

    def take(self, residual: Floats) -> None:
        """Adds the residual [B, T, D] of the next row."""
        self.distances.append([_distance(residual, old[: len(residual)]) for old in self._kept])
        self.norms.append(float(np.linalg.norm(residual)))
        self._kept.append(residual)

    def changes(self, *, relative: bool) -> Numbers:
        """c(s, t) of `ditzoo.plan.tuning`, [N, N]: the distance, or the distance over the norm of the later residual."""
        count = len(self.norms)
        changes = np.full((count, count), np.inf)
        for later, distances in enumerate(self.distances):
            changes[later - len(distances) : later, later] = distances
        return changes / np.maximum(self.norms, np.finfo(np.float64).tiny) if relative else changes


def tune(
    backend: Backend,
    plan: Plan,
    *,
    outer: int,
    target: float,
    condition: Condition | None,
    count: int,
    seed: int = 0,
    size: Size | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Tuned:
    """Finds which rows of `plan`, which has no reuse, run all blocks so that `target` times fewer blocks run.

    `count` images are drawn without reuse, and the changes of the residual in each row are kept. The lists with the least sum
    of relative changes and of absolute changes, and evenly spaced rows, are then measured on the same images. The best one is
    that with the least error of the final latents. `advance` is called after each step of each run.

    Raises UsageError if the network has too few blocks or if no list reaches the target, and BackendError if the backend has no
    reuse.
    """
    card, blocks = backend.card, backend.card.backbone.blocks
    check_outer_blocks(card, outer)
    saved = rows_to_save(plan, target, blocks=blocks, outer=outer)

    def draw(runner: Backend, run: Plan) -> Floats:
        for step in sample_steps(runner, run, count=count, condition=condition, seed=seed, size=size):
            if step.done:
                advance()
        return runner.numpy(step.x)

    residuals = Residuals(backend)
    without = draw(residuals, msgspec.structs.replace(plan, outer_blocks=outer))
    measured = []
    for how, full in _lists(residuals, plan, outer=outer, target=target, saved=saved, blocks=blocks):
        run = with_reuse(card, plan, Reuse(full=tuple(range(row, row + 1) for row in full), blocks=outer))
        measured.append(
            Candidate(
                how=how,
                reuse=reuse_text(full, outer),
                full=full,
                factor=block_runs(plan, blocks) / block_runs(run, blocks),
                expected=_expected(residuals.changes(relative=True), full),
                error=relative_l2(draw(backend, run), without),
            )
        )
    best, *others = sorted(measured, key=lambda candidate: candidate.error)
    return Tuned(
        model=card.name,
        solver=plan.solver,
        rows=len(plan.rows),
        blocks=outer,
        target=target,
        images=count,
        seed=seed,
        best=best,
        others=tuple(others),
    )


def _lists(
    residuals: Residuals, plan: Plan, *, outer: int, target: float, saved: int, blocks: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The lists of full rows to measure, each once, with where it comes from."""
    halves, seen = halves_of(plan), set[tuple[int, ...]]()
    for how, relative in (("least relative change", True), ("least absolute change", False)):
        changes = residuals.changes(relative=relative)
        full = tuple(least_changes(changes, halves, saved=saved))
        if not full:
            raise unreachable(plan, target, most=most_saved(changes, halves), blocks=blocks, outer=outer)
        if full not in seen:
            seen.add(full)
            yield how, full
    even = _evenly(halves, residuals.changes(relative=True), saved)
    if even not in seen:
        yield EVENLY, even


def _evenly(halves: list[int], changes: Numbers, saved: int) -> tuple[int, ...]:
    """The densest evenly spaced full rows that save enough, with those rows that cannot reuse. All rows if there are none."""
    for every in range(1, len(halves) + 1):
        full = [0]
        for row in range(1, len(halves)):
            if row - full[-1] == every or not np.isfinite(changes[full[-1], row]):
                full.append(row)
        if sum(halves) - sum(halves[row] for row in full) >= saved:
            return tuple(full)
    return tuple(range(len(halves)))


def _expected(changes: Numbers, full: tuple[int, ...]) -> float:
    """The mean relative change of the residual, over all rows."""
    total, last = 0.0, 0
    for row in range(len(changes)):
        if row in full:
            last = row
        else:
            total += float(changes[last, row])
    return total / len(changes)


def _distance(new: Floats, old: Floats) -> float:
    return float(np.linalg.norm(new - old)) if len(old) == len(new) else np.inf

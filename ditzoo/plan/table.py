"""A plan: a sampler as a table of numbers. It is all that is needed to run that sampler anywhere.

Every solver makes its steps by linear combinations of earlier states x, earlier predictions e and fresh noise z:

    x[i+1] = Σ_l states[l] · x[i−l] + Σ_l predictions[l] · e[i−l] + noise · z[i]

e[i] is the guided prediction for x[i] at row i's time; x[0] is `initial` times a draw of noise; the last x is the image.
To make a plan, a solver is run once on unit vectors (see `ditzoo.plan.tracing`).
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Literal

import msgspec

from ditzoo.errors import PlanError, UsageError, check_type, described, shown_path
from ditzoo.files import replacing
from ditzoo.records import Data, from_json, read_limited, to_json
from ditzoo.zoo.card import Card


class Row(Data, frozen=True, kw_only=True):
    """One evaluation of the network and the step that follows it.

    `time` is the input of the network. `guidance` is s in uncond + s · (cond − uncond); at 1 only cond is evaluated.
    `log_variance` is the pair (low, high) of a learned variance, or None. If it is given, it replaces `noise` by
    exp(½ (f · high + (1 − f) · low)) with f = (v + 1) / 2, where v is the network's second half of channels (arXiv 2102.09672,
    eq. 15). `states` and `predictions` begin with the newest. `evaluation` is "reuse" if the row takes the contribution of the
    middle blocks from the last full row (see `ditzoo.plan.reuse`). A full row has no such field. `difference` is "reuse" if a
    row with guidance evaluates only cond, and takes cond − uncond from the last row that evaluated both (see
    `ditzoo.plan.guidance`). Other rows have no such field.
    """

    time: float
    guidance: float
    states: tuple[float, ...]
    predictions: tuple[float, ...]
    noise: float = 0.0
    log_variance: tuple[float, float] | None = None
    evaluation: Literal["reuse"] | msgspec.UnsetType = msgspec.UNSET
    difference: Literal["reuse"] | msgspec.UnsetType = msgspec.UNSET

    @property
    def reuses(self) -> bool:
        """Whether the row takes the contribution of the middle blocks from the last full row."""
        return self.evaluation == "reuse"

    @property
    def guided(self) -> bool:
        """Whether guidance acts on the prediction, if there is a null condition."""
        return self.guidance != 1

    @property
    def evaluates_null(self) -> bool:
        """Whether the network is also evaluated under the null condition, if there is one."""
        return self.guided and self.difference != "reuse"

    @property
    def draws(self) -> bool:
        """Whether the step adds fresh noise."""
        return self.noise != 0 or self.log_variance is not None


class Plan(Data, frozen=True, kw_only=True):
    """A sampler.

    The first `channels` channels of the network's output are the prediction. Guidance acts on the first `guided_channels` of
    them; the others are those of the conditional prediction. Draw 0 is the initial noise, and draw i + 1 is the noise of row i.
    The longest list of weights in any row is the number of newest states and predictions that a program has to keep.
    If rows reuse the middle blocks, they run the first `outer_blocks` and the last `outer_blocks` blocks of the network. A plan
    without such rows does not have this field.
    `sha256` is the checksum of all other fields; it is empty except in files.
    """

    format: Literal["ditzoo-plan/1"] = "ditzoo-plan/1"
    solver: str
    channels: int
    guided_channels: int
    initial: float
    rows: tuple[Row, ...]
    outer_blocks: int | msgspec.UnsetType = msgspec.UNSET
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.rows or not 0 <= self.guided_channels <= self.channels or self.channels < 1:
            raise PlanError("a plan needs rows, channels, and at most as many guided channels as channels")
        for i, row in enumerate(self.rows):
            if not row.states and not row.predictions:
                raise PlanError(f"row {i} of the plan has neither states nor predictions, so it makes no step")
            numbers = [row.time, row.guidance, *row.states, *row.predictions, row.noise, *(row.log_variance or ())]
            if not all(map(math.isfinite, [*numbers, self.initial])):
                raise PlanError(f"row {i} of the plan has a number that is not finite")
            if max(len(row.states), len(row.predictions)) > i + 1:
                raise PlanError(f"row {i} of the plan looks back further than there are states")
        self._check_reuse()
        self._check_differences()

    @property
    def window(self) -> int:
        """How many of the newest states and predictions have to be kept."""
        return max(max(len(row.states), len(row.predictions)) for row in self.rows)

    @property
    def evaluations(self) -> int:
        """How many rows of the network one image takes, if there is a null condition: two for a row that evaluates it."""
        return sum(2 if row.evaluates_null else 1 for row in self.rows)

    def to_json(self) -> bytes:
        """The plan as JSON, exact to the last bit, with a checksum that shows any later change."""
        return to_json(msgspec.structs.replace(self, sha256=self._checksum()))

    @staticmethod
    def from_json(text: bytes | str) -> Plan:
        """The plan in `text`. Raises PlanError, naming the place, if it is no plan or was changed since it was written."""
        check_type("text", text, (str, bytes), "the JSON of a plan")
        try:
            plan = from_json(text, Plan)
        except ValueError as error:
            raise PlanError(f"not a plan: {error}") from error
        if plan.sha256 not in ("", plan._checksum()):
            raise PlanError("the plan was changed since it was written; if on purpose, empty its field sha256")
        return msgspec.structs.replace(plan, sha256="")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the plan as a JSON file at `path`, whole or not at all."""
        check_type("path", path, (str, os.PathLike), "the path of a plan's JSON file")
        with replacing(Path(path)) as scratch:
            scratch.write_bytes(self.to_json())

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Plan:
        """The plan in the JSON file at `path`; raises PlanError if the file cannot be read, or holds no plan."""
        check_type("path", path, (str, os.PathLike), "the path of a plan's JSON file")
        try:
            return Plan.from_json(read_limited(Path(path)))
        except (OSError, PlanError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise PlanError(f"cannot read the plan {shown_path(path)}: {reason}") from error

    def _check_reuse(self) -> None:
        """Raises PlanError if a row reuses something that no row before it computed."""
        if self.outer_blocks is not msgspec.UNSET and self.outer_blocks < 1:
            raise PlanError(f"outer_blocks of the plan is {self.outer_blocks}, but it must be 1 or more")
        full: Row | None = None
        for i, row in enumerate(self.rows):
            if not row.reuses:
                full = row
                continue
            if self.outer_blocks is msgspec.UNSET:
                raise PlanError(f"row {i} of the plan reuses the middle blocks, but the plan has no outer_blocks")
            if full is None or (row.evaluates_null and not full.evaluates_null):
                raise PlanError(f"row {i} of the plan reuses the middle blocks, but no full row before it evaluated as much")

    def _check_differences(self) -> None:
        """Raises PlanError if a row reuses a difference that no row before it computed, or that it has no use for."""
        known = False
        for i, row in enumerate(self.rows):
            known = known or row.evaluates_null
            if row.difference == "reuse" and not (row.guided and known):
                why = "no row before it evaluated both conditions" if row.guided else "its guidance is 1"
                raise PlanError(f"row {i} of the plan reuses the difference of the two conditions, but {why}")

    def _checksum(self) -> str:
        return hashlib.sha256(to_json(msgspec.structs.replace(self, sha256=""))).hexdigest()


def check_plan(card: Card, plan: Plan) -> None:
    """Raises UsageError if the plan has another number of channels than the card's model, or needs a variance that it lacks."""
    if plan.channels != card.backbone.latent_shape[0]:
        raise UsageError(f"this plan is for {plan.channels} channels, and {card.name} has {card.backbone.latent_shape[0]}")
    if any(row.log_variance for row in plan.rows) and not card.learns_variance:
        raise UsageError(f"this plan asks for a learned variance, and {card.name} has none")
    if plan.outer_blocks is not msgspec.UNSET:
        check_outer_blocks(card, plan.outer_blocks)


def check_outer_blocks(card: Card, outer: int) -> None:
    """Raises UsageError unless the card's network has blocks between its first `outer` and its last `outer` blocks."""
    most = (card.backbone.blocks - 1) // 2
    if not 1 <= outer <= most:
        takes = f"blocks=1 to {most}" if most else "no reuse"
        raise UsageError(
            f"reuse with blocks={described(outer)} leaves no middle blocks in {card.name}, which has"
            f" {card.backbone.blocks} blocks; it takes {takes}"
        )

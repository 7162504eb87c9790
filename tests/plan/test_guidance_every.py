"""Plans in which some guided rows reuse the difference of the two conditions."""

from __future__ import annotations

import json

import msgspec
import pytest

import ditzoo
from ditzoo.errors import PlanError, UsageError
from ditzoo.plan.reuse import without_reuse
from ditzoo.plan.table import Plan

CARD = ditzoo.card("dit-digits")


def kinds(plan: Plan) -> str:
    """A letter for each row: b evaluates both conditions, d reuses the difference, c has no guidance."""
    return "".join("b" if row.evaluates_null else "d" if row.guided else "c" for row in plan.rows)


@pytest.mark.parametrize(("every", "expected"), [(1, "bbbbbbb"), (2, "bdbdbdb"), (3, "bddbddb"), (9, "bdddddd")])
def test_every_nth_row_evaluates_both_conditions(every: int, expected: str) -> None:
    plan = ditzoo.make_plan(CARD, steps=7, guidance_every=every)
    assert kinds(plan) == expected
    assert plan.evaluations == 7 + expected.count("b")
    assert Plan.from_json(plan.to_json()) == plan
    assert without_reuse(plan) == ditzoo.make_plan(CARD, steps=7)


def test_a_plan_without_the_option_has_the_bytes_that_it_always_had() -> None:
    plan = ditzoo.make_plan(CARD, steps=3)
    assert ditzoo.make_plan(CARD, steps=3, guidance_every=1).to_json() == plan.to_json()
    assert "difference" not in json.loads(plan.to_json())["rows"][1]
    assert json.loads(ditzoo.make_plan(CARD, steps=3, guidance_every=2).to_json())["rows"][1]["difference"] == "reuse"


def test_rows_without_guidance_stay_as_they_are() -> None:
    plan = ditzoo.make_plan(CARD, solver="ddim", steps=10, guidance_times=(0.2, 0.7), guidance_every=2)
    assert kinds(plan) == "cccbdbdbcc"
    assert kinds(ditzoo.make_plan(CARD, steps=4, guidance=1, guidance_every=2)) == "cccc"


def test_a_row_that_needs_both_residuals_is_full() -> None:
    plan = ditzoo.make_plan(CARD, steps=6, guidance_every=2, reuse="every=3,blocks=1")
    assert kinds(plan) == "bdbdbd"
    assert "".join("r" if row.reuses else "f" for row in plan.rows) == "frrffr"


@pytest.mark.parametrize(
    ("every", "message"), [(0, "must be 1 or more, not 0"), (1.5, "a whole number of rows"), ("2", "a whole number of rows")]
)
def test_wrong_numbers_are_refused(every: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ditzoo.make_plan(CARD, guidance_every=every)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "guidance", "message"),
    [
        (0, 4.0, "row 0 of the plan reuses the difference .* no row before it evaluated both conditions"),
        (2, 1.0, "row 2 of the plan reuses the difference .* its guidance is 1"),
    ],
)
def test_a_plan_that_reuses_no_difference_is_refused(row: int, guidance: float, message: str) -> None:
    plan = ditzoo.make_plan(CARD, steps=3)
    rows = list(plan.rows)
    rows[row] = msgspec.structs.replace(rows[row], difference="reuse", guidance=guidance)
    with pytest.raises(PlanError, match=message):
        msgspec.structs.replace(plan, rows=tuple(rows))

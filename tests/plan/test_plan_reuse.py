from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ditzoo
from ditzoo.errors import PlanError, UsageError
from ditzoo.plan.reuse import parse_reuse, reuse_text, without_reuse
from ditzoo.plan.table import Plan
from ditzoo.weights.catalogue import cards

CARD = ditzoo.card("dit-digits")


def kinds(plan: Plan) -> str:
    return "".join("r" if row.reuses else "f" for row in plan.rows)


def test_a_plan_without_reuse_has_the_bytes_that_it_always_had() -> None:
    plan = ditzoo.make_plan(CARD, solver="ddim", steps=2)
    written = json.loads(plan.to_json())
    assert list(written) == ["format", "solver", "channels", "guided_channels", "initial", "rows", "sha256"]
    assert list(written["rows"][0]) == ["time", "guidance", "states", "predictions", "noise", "log_variance"]
    assert ditzoo.make_plan(CARD, solver="ddim", steps=2, reuse="every=1,blocks=2").to_json() == plan.to_json()


@pytest.mark.parametrize(("every", "expected"), [(2, "frfrfrf"), (3, "frrfrrf"), (9, "frrrrrr")])
def test_full_rows_are_evenly_spaced(every: int, expected: str) -> None:
    plan = ditzoo.make_plan(CARD, steps=7, reuse=f"every={every},blocks=1")
    assert kinds(plan) == expected
    assert plan.outer_blocks == 1
    assert Plan.from_json(plan.to_json()) == plan
    assert without_reuse(plan) == ditzoo.make_plan(CARD, steps=7)


def test_a_row_that_starts_guidance_is_full() -> None:
    """The last full row did not evaluate the null half, so there is nothing to reuse."""
    plan = ditzoo.make_plan(CARD, solver="ddim", steps=10, guidance_times=(0, 0.5), reuse="every=4,blocks=1")
    guided = [row.guided for row in plan.rows]
    assert guided == [False] * 5 + [True] * 5
    assert kinds(plan) == "frrrffrrrf"
    ends = ditzoo.make_plan(CARD, solver="ddim", steps=10, guidance_times=(0.5, 1), reuse="every=4,blocks=1")
    assert kinds(ends) == "frrrfrrrfr"


@pytest.mark.parametrize("text", ["full=0-1,4,blocks=1", "blocks=1, full=4,0-1", "full=1,4,blocks=1"])
def test_full_rows_can_be_listed(text: str) -> None:
    plan = ditzoo.make_plan(CARD, steps=7, reuse=text)
    assert kinds(plan) == "ffrrfrr"
    assert plan.outer_blocks == 1
    assert Plan.from_json(plan.to_json()) == plan
    assert ditzoo.make_plan(CARD, steps=7, reuse="full=0-6,blocks=1").to_json() == ditzoo.make_plan(CARD, steps=7).to_json()


def test_a_listed_plan_has_the_rows_that_cannot_reuse_too() -> None:
    plan = ditzoo.make_plan(CARD, solver="ddim", steps=10, guidance_times=(0, 0.5), reuse="full=3,blocks=1")
    assert kinds(plan) == "frrfrfrrrr"


WRONG = [
    *("", "every=2", "blocks=1", "every=2,blocks=1,a=2", "every=0,blocks=1", "every=2,blocks=x"),
    *("full=0", "full=0,every=2,blocks=1", "full=0,blocks=0"),
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"reuse takes every=N,blocks=K .* such as every=2,blocks=4, or full=LIST,blocks=K"):
        ditzoo.make_plan(CARD, reuse=text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("full=0,7,blocks=1", "reuse names row 7, but the plan has the rows 0 to 6"),
        ("full=0-99999999999999999,blocks=1", "reuse names row 99999999999999999"),
        ("full=,blocks=1", "'' in full of reuse is neither a number nor a range"),
        ("full=3-1,blocks=1", "runs backwards"),
    ],
)
def test_wrong_lists_of_rows_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ditzoo.make_plan(CARD, steps=7, reuse=text)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_of_rows_is_read_as_it_was_written(rows: set[int]) -> None:
    read = parse_reuse(reuse_text(sorted(rows), 2))
    assert [number for numbers in read.full for number in numbers] == sorted(rows)
    assert (read.every, read.blocks) == (None, 2)


@pytest.mark.parametrize("every", [1, 2])
def test_blocks_that_the_network_does_not_have_are_refused(every: int) -> None:
    with pytest.raises(UsageError, match="no middle blocks in dit-digits, which has 6 blocks; it takes blocks=1 to 2"):
        ditzoo.make_plan(CARD, reuse=f"every={every},blocks=3")


def test_every_card_of_a_network_with_three_blocks_takes_reuse() -> None:
    for card in cards().values():
        assert card.backbone.blocks >= 3
        most = (card.backbone.blocks - 1) // 2
        assert ditzoo.make_plan(card, steps=3, solver=None, reuse=f"every=2,blocks={most}").outer_blocks == most


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"outer_blocks": msgspec.UNSET}, "row 1 of the plan reuses the middle blocks, but the plan has no outer_blocks"),
        ({"outer_blocks": 0}, "outer_blocks of the plan is 0"),
        ({"first": "reuse"}, "row 0 of the plan reuses the middle blocks, but no full row"),
        ({"guidance": 1.0}, "row 1 of the plan reuses the middle blocks, but no full row"),
    ],
)
def test_a_plan_that_reuses_nothing_is_refused(change: dict[str, object], message: str) -> None:
    plan = ditzoo.make_plan(CARD, steps=3, reuse="every=3,blocks=1")
    first, *rest = plan.rows
    first = msgspec.structs.replace(
        first,
        evaluation="reuse" if "first" in change else msgspec.UNSET,
        guidance=change.get("guidance", first.guidance),
    )
    with pytest.raises(PlanError, match=message):
        msgspec.structs.replace(plan, rows=(first, *rest), outer_blocks=change.get("outer_blocks", 1))

"""The list of full rows with the least sum of changes, compared with all lists that there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import ditzoo
from ditzoo.errors import UsageError
from ditzoo.plan.tuning import block_runs, least_changes, most_saved, rows_to_save

CARD = ditzoo.card("dit-digits")


@st.composite
def tables(draw: st.DrawFn) -> tuple[np.ndarray, list[int]]:
    """Changes of a plan with a few rows, some of which cannot reuse, and the rows of the network that each row takes."""
    count = draw(st.integers(1, 7))
    values = draw(st.lists(st.floats(0, 9) | st.just(np.inf), min_size=count**2, max_size=count**2))
    return np.array(values).reshape(count, count), draw(st.lists(st.integers(1, 2), min_size=count, max_size=count))


def cost(full: tuple[int, ...], changes: np.ndarray, halves: list[int]) -> tuple[float, int]:
    """The sum of changes of a list of full rows, and the rows of the network that reuse."""
    others = [row for row in range(len(halves)) if row not in full]
    sources = [max(start for start in full if start < row) for row in others]
    return sum(changes[start, row] for start, row in zip(sources, others, strict=True)), sum(halves[row] for row in others)


@settings(max_examples=40)
@given(tables(), st.integers(0, 10))
def test_no_list_has_a_smaller_sum(table: tuple[np.ndarray, list[int]], saved: int) -> None:
    changes, halves = table
    rows = range(1, len(halves))
    lists = [(0, *chosen) for size in range(len(halves)) for chosen in combinations(rows, size)]
    costs = {full: cost(full, changes, halves) for full in lists}
    possible = [error for error, saves in costs.values() if saves >= saved and np.isfinite(error)]
    found = least_changes(changes, halves, saved=saved)
    assert bool(found) == bool(possible)
    assert most_saved(changes, halves) == max(saves for error, saves in costs.values() if np.isfinite(error))
    assume(found)
    error, saves = costs[tuple(found)]
    assert saves >= saved
    assert error == pytest.approx(min(possible))


@settings(max_examples=40)
@given(st.integers(2, 30), st.integers(1, 2), st.floats(1, 3))
def test_the_rows_that_are_saved_reach_the_factor(steps: int, outer: int, target: float) -> None:
    plan = ditzoo.make_plan(CARD, solver="ddim", steps=steps)
    largest = 12 * steps / (12 * steps - 2 * (steps - 1) * (6 - 2 * outer))
    if target > largest * (1 + 1e-9):
        with pytest.raises(UsageError, match=f"it is at most {int(100 * largest) / 100:g}x: choose a smaller target"):
            rows_to_save(plan, target, blocks=6, outer=outer)
        return
    saved = rows_to_save(plan, target, blocks=6, outer=outer)
    reusing = -(-saved // 2)
    full = ",".join(map(str, range(steps - reusing)))
    tuned = ditzoo.make_plan(CARD, solver="ddim", steps=steps, reuse=f"full={full},blocks={outer}")
    assert block_runs(plan, 6) / block_runs(tuned, 6) >= target * (1 - 1e-9)
    assert saved == 0 or (12 * steps) / (12 * steps - (saved - 1) * (6 - 2 * outer)) < target


@pytest.mark.parametrize("target", [0.9, 0, -1, float("inf"), float("nan")])
def test_a_target_below_one_is_refused(target: float) -> None:
    with pytest.raises(UsageError, match=r"the target must be a factor of 1 or more, such as 1\.8"):
        rows_to_save(ditzoo.make_plan(CARD, solver="ddim", steps=5), target, blocks=6, outer=1)

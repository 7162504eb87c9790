"""Guidance is part of the plan: by row, and by channel."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import predictor
from ditzoo.solvers.schedules import point
from ditzoo.zoo.card import Card
from tests.support.solvers_world import DISCRETE, FLOW, LEARNED


class Counter:
    """A backend whose output is its label, and which counts the images that it is shown."""

    inputs = ()

    def __init__(self) -> None:
        self.shown: list[int] = []

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return array

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        self.shown.append(len(inputs["x"]))
        return np.broadcast_to(inputs["y"][:, None, None, None], inputs["x"].shape).astype(np.float32)


FOUR = msgspec.structs.replace(DISCRETE, backbone=msgspec.structs.replace(DISCRETE.backbone, in_chans=4))


@pytest.mark.parametrize("card", [DISCRETE, LEARNED, FLOW], ids=lambda card: card.name)
@given(low=st.floats(0, 3), width=st.floats(0.1, 30))
@settings(max_examples=20)
def test_an_interval_guides_between_two_noise_levels(card: Card, low: float, width: float) -> None:
    solver = "flow-euler" if card is FLOW else "dpmpp-fast"
    plan = make_plan(card, solver=solver, steps=24, guidance=3.0, guidance_interval=(low, low + width))
    for row in plan.rows:
        t = 1 - row.time if card is FLOW else (row.time - card.time.offset) / 1000
        level = point(card, t).noise_level
        assert row.guidance == (3.0 if low < level <= low + width else 1.0)
    everywhere = make_plan(card, solver=solver, steps=24, guidance=3.0)
    assert [row.predictions for row in plan.rows] == [row.predictions for row in everywhere.rows]
    assert {row.guidance for row in everywhere.rows} == {3.0}


def test_a_row_of_scale_1_is_half_the_work() -> None:
    backend, x = Counter(), np.zeros((5, 4, 8, 8), dtype=np.float32)
    plan = make_plan(FOUR, solver="ddim", steps=10, guidance=3.0, guidance_interval=(0.3, 2.0), guided_channels=3)
    condition = Condition(name="y", values=np.full(5, 7), null=np.array(1))
    predict = predictor(backend, plan, condition)  # type: ignore[arg-type]
    for row in plan.rows:
        out = predict(x, row)
        guided = 1 + row.guidance * (7 - 1)
        assert np.array_equal(out[:, :3], np.full((5, 3, 8, 8), guided))
        assert np.array_equal(out[:, 3:], np.full((5, 1, 8, 8), 7))
    assert backend.shown == [5 if row.guidance == 1 else 10 for row in plan.rows]
    assert {5, 10} == set(backend.shown)

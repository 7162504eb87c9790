"""Velocity networks: SiT's samplers against their authors' code, and the conventions of others against the formulas."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

import ditzoo
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import predictor, trajectory
from ditzoo.zoo.card import Card
from tests.support.golden import DATA, Golden, relative_l2
from tests.support.solvers_world import NetBackend

SIT = ditzoo.card("sit-s-2-256")

SAMPLERS = {"euler10_cfg4.0": "flow-euler", "heun20_cfg1.5": "flow-heun", "sde20_cfg1.5": None, "sde50_cfg1.0": None}
"""The solver of each golden file; None for the one of SiT's cards."""


def sit_card(golden: Golden) -> Card:
    """SiT's published card with the network of a golden file."""
    config = golden.config
    return msgspec.structs.replace(SIT, backbone=config, null_label=config.null_label)  # type: ignore[union-attr]


def sit_steps(golden: Golden) -> int:
    """How many evaluations ditzoo makes: the authors' SDE evaluates the network twice at each point, with the same result."""
    return int(golden.metadata["evaluations"]) // (2 if golden.metadata["kind"] == "sde" else 1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sits_samplers_match_the_authors_code(name: str) -> None:
    golden, given = Golden(f"sampler_sit_{name}"), SAMPLERS[name]
    card = sit_card(golden)
    plan = make_plan(card, solver=given, steps=sit_steps(golden), guidance=float(golden.metadata["cfg_scale"]))
    assert plan.guided_channels == int(golden.metadata["cfg_channels"])
    predict = predictor(NetBackend(golden.net()), plan, class_condition(card, golden["in.y"].tolist()))  # type: ignore[arg-type]
    *_, last = trajectory(plan, predict, lambda draw: (golden["noise"][draw - 1] if draw else golden["in.z"]).double())
    assert relative_l2(last, golden["out"]) <= 2e-6
    times = golden["model_times"].numpy()
    theirs = times[::2] if golden.metadata["kind"] == "sde" else times
    np.testing.assert_allclose([row.time for row in plan.rows], theirs, rtol=1e-6, atol=1e-7)


def test_sits_golden_files_are_all_used() -> None:
    assert {path.stem for path in DATA.glob("sampler_sit_*")} == {f"sampler_sit_{name}" for name in SAMPLERS}

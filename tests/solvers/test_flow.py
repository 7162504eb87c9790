"""Velocity networks: SiT's samplers against their authors' code, and the conventions of others against the formulas."""

from __future__ import annotations

import itertools
import math
from typing import Any

import msgspec
import numpy as np
import pytest

import ditzoo
from ditzoo.errors import UsageError
from ditzoo.plan.make import make_plan
from ditzoo.plan.table import Plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import predictor, trajectory
from ditzoo.zoo.card import Card, LinearFlow, Sampling, TimeInput
from ditzoo.zoo.configs import DiTConfig
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


def velocity(x: np.ndarray, t: float, y: np.ndarray) -> np.ndarray:
    """A velocity, image − noise at t from 0, noise, to 1, the image, that depends on everything and is linear in nothing."""
    return np.tanh(x * (1 + y[:, None, None, None] / 5)) * (0.5 + t) - 0.3 * np.sin(3 * t + x)


class Net:
    """A network of its own conventions around `velocity`, in float64."""

    inputs = ()

    def __init__(self, card: Card) -> None:
        self.schedule, self.scale = card.schedule, card.time.scale

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return array

    def __call__(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        t = float(inputs["t"][0]) / self.scale
        flipped = self.schedule == LinearFlow(noise_at=1, velocity="to_noise")
        return -velocity(inputs["x"], 1 - t, inputs["y"]) if flipped else velocity(inputs["x"], t, inputs["y"])


REPA = msgspec.structs.replace(
    SIT,
    name="repa",
    backbone=DiTConfig(input_size=4, hidden_size=8, depth=1, num_heads=1, num_classes=10),
    null_label=10,
    schedule=LinearFlow(noise_at=1, velocity="to_noise"),
    sampling=Sampling(solver="flow-sde", steps=9, guidance=1.8, guided_channels=4, guidance_times=(0.0, 0.7)),
)
"""REPA's conventions (arXiv 2410.06940): the output is noise − image, and t = 1 is noise; guidance where 0 ≤ t ≤ 0.7."""

RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((12, 2, 4, 4, 4))
LABELS = np.array([3, 7])


def run_plan(card: Card, plan: Plan) -> np.ndarray:
    predict = predictor(Net(card), plan, class_condition(card, LABELS.tolist()))  # type: ignore[arg-type]
    *_, last = trajectory(plan, predict, NOISE.__getitem__)
    return last


def repa_guided(x: np.ndarray, t: float, scale: float, window: tuple[float, float]) -> np.ndarray:
    """REPA's network under guidance: v = noise − image, at t from 1, noise, to 0."""
    cond = -velocity(x, 1 - t, LABELS)
    if not window[0] <= t <= window[1]:
        return cond
    null = -velocity(x, 1 - t, np.array([10, 10]))
    return null + scale * (cond - null)


def test_repas_ode_is_what_its_formula_says() -> None:
    """x ← x + (t' − t) · v from t = 1 to 0 (arXiv 2401.08740, eq. 2 and 4, with the noise at t = 1)."""
    times, x = np.linspace(1, 0, 11), NOISE[0]
    for now, then in itertools.pairwise(times):
        x = x + (then - now) * repa_guided(x, now, 1.8, (0.0, 0.7))
    plan = make_plan(REPA, solver="flow-euler", steps=10)
    np.testing.assert_allclose([row.time for row in plan.rows], times[:-1], atol=1e-12)
    np.testing.assert_allclose(run_plan(REPA, plan), x, rtol=1e-10, atol=1e-12)


def test_repas_sde_is_what_its_formula_says() -> None:
    """Euler-Maruyama on dx = (v − ½ w s) dt + √w dw̄ (arXiv 2401.08740, eq. 5), w = 2 t, backwards from t = 1.

    The score is s = −(x + (1 − t) v) / t (its eq. 9, with α = 1 − t and σ = t); the last step, of 0.04, adds no noise.
    """
    times, x = [*np.linspace(1, 0.04, 9), 0.0], NOISE[0]
    for i, (now, then) in enumerate(itertools.pairwise(times)):
        v = repa_guided(x, now, 1.8, (0.0, 0.7))
        score = -(x + (1 - now) * v) / now
        x = x + (v - now * score) * (then - now)
        if then > 0:
            x = x + math.sqrt(2 * now * (now - then)) * NOISE[i + 1]
    np.testing.assert_allclose(run_plan(REPA, make_plan(REPA)), x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("solver", ["flow-euler", "flow-heun", "flow-sde", "diffusers:FlowMatchEulerDiscreteScheduler"])
def test_the_same_network_in_other_conventions_gives_the_same(solver: str) -> None:
    plain = msgspec.structs.replace(REPA, schedule=LinearFlow())
    scaled = msgspec.structs.replace(REPA, time=TimeInput(scale=1000.0))
    first, second, third = (
        run_plan(card, make_plan(card, solver=solver, steps=6, guidance_times=(0.0, 1.0))) for card in (REPA, plain, scaled)
    )
    np.testing.assert_allclose(second, first, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(third, first, rtol=1e-9, atol=1e-10)


LIGHTNING = msgspec.structs.replace(
    SIT,
    sampling=Sampling(solver="flow-euler", steps=11, guidance=6.7, guided_channels=3, guidance_times=(0.125, 1.0), shift=0.3),
)
"""LightningDiT's sampler (arXiv 2501.01423), with as many steps as the golden file has."""


def test_shifted_times_and_guided_times_are_lightningdits() -> None:
    times = Golden("lightningdit")["model_times"].numpy()
    plan = make_plan(LIGHTNING)
    np.testing.assert_allclose([row.time for row in plan.rows], times, rtol=1e-6, atol=1e-7)
    assert [row.guidance for row in plan.rows] == [1.0 if t < 0.125 else 6.7 for t in times]


def test_shift_is_an_option_of_solvers_and_a_default_of_the_card() -> None:
    """s = 3 from 1, noise, to 0 (arXiv 2403.03206, eq. 23) is s = 1 / 3 from 0, noise, to 1."""
    t = np.linspace(1, 0, 6)[:-1]
    expected = 1 - 3 * t / (1 + 2 * t)
    plan = make_plan(LIGHTNING, solver=f"flow-euler:shift={1 / 3!r}", steps=5)
    np.testing.assert_allclose([row.time for row in plan.rows], expected, atol=1e-12)
    assert [row.time for row in make_plan(LIGHTNING, steps=5).rows] != [row.time for row in plan.rows]
    theirs = make_plan(LIGHTNING, solver="diffusers:UniPCMultistepScheduler", steps=5)
    moved = 1 - np.array([row.time for row in theirs.rows])
    even = np.array([1 - row.time for row in make_plan(SIT, solver="diffusers:UniPCMultistepScheduler", steps=5).rows])
    np.testing.assert_allclose(moved, even / 0.3 / (1 + (1 / 0.3 - 1) * even), atol=2e-3)  # theirs are whole steps of 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "flow-euler:shift=0"}, "shift of times must be a number above 0"),
        ({"solver": "flow-euler:shift=nan"}, "option shift of flow-euler takes a finite number"),
        ({"guidance_times": (0.5, 0.2)}, "guidance times must be two times, the lower one first, not 0.5, 0.2"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(SIT, **options)
    with pytest.raises(UsageError, match="times are shifted on straight paths alone"):
        make_plan(ditzoo.card("dit-digits"), solver="ddim:shift=0.3")


def test_guidance_times_on_noise_schedules_count_from_the_image() -> None:
    card = ditzoo.card("uvit-digits")
    plan = make_plan(card, solver="ode-euler", steps=10, guidance=2.0, guidance_times=(0.0, 0.5))
    assert [row.guidance for row in plan.rows] == [2.0 if row.time <= 500 else 1.0 for row in plan.rows]
    assert {row.guidance for row in plan.rows} == {1.0, 2.0}


def test_an_interval_of_noise_levels_takes_the_place_of_the_cards_times() -> None:
    plan = make_plan(LIGHTNING, guidance_interval=(1.0, 7.0))
    assert [row.guidance for row in plan.rows] == [
        6.7 if 1 < (1 - row.time) / max(row.time, 1e-9) <= 7 else 1.0 for row in plan.rows
    ]


def test_cards_without_these_conventions_are_written_as_before() -> None:
    """So that an older ditzoo reads them, and what is named by a hash of its card keeps its name."""
    text = msgspec.json.encode(SIT).decode()
    assert '"schedule":{"kind":"linear_flow"}' in text
    assert '"sampling":{"solver":"flow-sde","steps":250,"guidance":1.5,"guided_channels":3}' in text
    dcae = msgspec.json.encode(ditzoo.card("uvit-s-dcae-f32-512").decoder).decode()
    assert dcae == '{"kind":"autoencoder","architecture":"AutoencoderDC","source":null,"scale":0.3189,"factor":32}'
    assert msgspec.json.decode(msgspec.json.encode(LIGHTNING), type=Card) == LIGHTNING
    assert msgspec.json.decode(msgspec.json.encode(REPA), type=Card) == REPA

"""The solvers: against the authors' code, against exact solutions, and their tables against themselves."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ditzoo
from ditzoo.errors import UsageError
from ditzoo.plan.make import make_plan, parse_solver, trace_solver
from ditzoo.plan.table import Row
from ditzoo.plan.tracing import trace
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import predictor, trajectory
from ditzoo.solvers import SOLVERS, fast_orders
from ditzoo.solvers.schedules import grid, point, time_of
from ditzoo.zoo.card import Card, ContinuousVP, DiscreteBetas, File, LinearFlow, OnHub, Sampling, TextEncoder, TimeInput
from tests.support.golden import Golden, relative_l2
from tests.support.solvers_world import DISCRETE, FLOW, LEARNED, VP, NetBackend, as_plan, deviation, final_coefficients, solve

GOLDENS = {
    "cond_conv_dpmpp_fast10_scale0.4": "dpmpp-fast",
    "cond_conv_dpmpp_fast24_scale0.0": "dpmpp-fast",
    "cond_conv_dpmpp_fast50_scale0.4": "dpmpp-fast",
    "t2i_dpmpp_fast50_scale1.0": "dpmpp-fast",
    "uncond_pixel_dpm15": "dpm-fast",
    "uncond_pixel_ode20": "ode-euler",
    "uncond_pixel_sde20": "euler-maruyama",
}

OPTIONS = ["", "dpmpp:order=1", "dpmpp:order=3", "dpmpp-fast:order=1", "dpmpp-fast:order=2", "dpm-fast:order=2", "ddim:eta=1"]
ON_VP = [*(name for name, solver in SOLVERS.items() if DiscreteBetas in solver.schedules), *OPTIONS[1:]]
ON_FLOW = [name for name, solver in SOLVERS.items() if LinearFlow in solver.schedules]
EVERY = [(card, name) for card, names in ((LEARNED, ON_VP), (DISCRETE, ON_VP), (VP, ON_VP), (FLOW, ON_FLOW)) for name in names]


def golden_card(golden: Golden, solver: str) -> Card:
    """The card of a golden model, sampled as its file says."""
    meta, config = golden.metadata, Golden(golden.metadata["model"]).config
    pixels = "VP-SDE" in meta["schedule"]
    tokens, width = config.text_shape or (1, 1)
    text = TextEncoder(source=OnHub(repo="none/none", files=(File(path="none"),)), tokens=tokens, width=width)
    return msgspec.structs.replace(
        DISCRETE,
        backbone=config,
        schedule=ContinuousVP() if pixels else DISCRETE.schedule,
        time=TimeInput(scale=999.0 if pixels else 1000.0),
        null_label=10 if "in.y" in golden.tensors else None,
        text=text if "in.context" in golden.tensors else None,
        sampling=Sampling(
            solver=solver,
            steps=int(meta["steps"]),
            guidance=1 + float(meta.get("scale") or golden_scale(meta)),
            guided_channels=config.latent_shape[0],
        ),
    )


def golden_scale(metadata: dict[str, str]) -> float:
    return float(metadata["name"].rpartition("scale")[2]) if "scale" in metadata["name"] else 0.0


def golden_condition(golden: Golden) -> Condition | None:
    if "in.y" in golden.tensors:
        return Condition(name="y", values=golden["in.y"].numpy(), null=np.array(10))
    if "in.context" in golden.tensors:
        return Condition(name="context", values=golden["in.context"].numpy(), null=golden["in.empty_context"][0].numpy())
    return None


@pytest.mark.parametrize("name", GOLDENS)
def test_uvit_samplers_match_the_authors_code(name: str) -> None:
    golden = Golden(f"sampler_uvit_{name}")
    golden.metadata["name"] = name
    plan = make_plan(golden_card(golden, GOLDENS[name]))
    net = Golden(golden.metadata["model"]).net()
    predict = predictor(NetBackend(net), plan, golden_condition(golden))  # type: ignore[arg-type]
    *_, last = trajectory(plan, predict, lambda draw: (golden["noise"][draw - 1] if draw else golden["in.z"]).double())
    assert relative_l2(last, golden["out"]) <= (5e-6 if name.endswith("dpm15") else 2e-6)
    if "model_times" in golden.tensors:  # the authors' are rounded to float32 on a scale of 1, so those near 0 to less
        np.testing.assert_allclose([row.time for row in plan.rows], golden["model_times"], rtol=1e-6, atol=1e-4)


def test_golden_files_are_all_used() -> None:
    from tests.support.golden import DATA

    assert {path.stem for path in DATA.glob("sampler_uvit_*")} == {f"sampler_uvit_{name}" for name in GOLDENS}


@pytest.mark.parametrize(("card", "text"), EVERY, ids=lambda value: value if isinstance(value, str) else value.name)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_compact_rows_are_the_dense_table(card: Card, text: str, steps: int) -> None:
    """Replaying the compact rows on unit vectors must give back what the solver did, state by state."""
    tracer, moves = trace_solver(card, text, steps)
    plan = as_plan(tracer, moves)
    evaluations = iter(range(1, 1 + len(moves)))

    def predict(x: np.ndarray, row: Row) -> np.ndarray:
        return tracer.unit(next(evaluations))[None, None]

    def noise(draw: int) -> np.ndarray:
        return tracer.unit(0 if draw == 0 else len(moves) + draw)[None, None]

    for replayed, dense in zip(trajectory(plan, predict, noise), tracer.inputs, strict=True):
        assert np.abs(replayed[0, 0] - dense).max() <= 1e-9 * np.abs(dense).max()
    assert plan.window <= 3


CONVERGENCE = [
    (DISCRETE, "ddim", 1),
    (DISCRETE, "dpmpp:order=1", 1),
    (DISCRETE, "dpmpp:order=2", 2),
    (VP, "dpmpp:order=3", 2),  # its first and last steps are of lower order
    (VP, "dpmpp-fast:order=1", 1),
    (VP, "dpmpp-fast:order=2", 2),
    (VP, "dpmpp-fast:order=3", 3),
    (VP, "dpm-fast:order=1", 1),
    (VP, "dpm-fast:order=2", 2),
    (VP, "dpm-fast:order=3", 3),
    (VP, "ode-euler", 1),
    (VP, "ode-heun", 2),
    (FLOW, "flow-euler", 1),
    (FLOW, "flow-heun", 2),
]


@pytest.mark.parametrize(("card", "text", "order"), CONVERGENCE, ids=lambda value: getattr(value, "name", value))
def test_the_error_falls_with_the_order_of_the_solver(card: Card, text: str, order: int) -> None:
    """On the linear ODE of Gaussian images, whose solution is x(t) / x(1) = deviation(t) / deviation(1)."""
    chosen = parse_solver(text)
    run = SOLVERS["flow-heun"].run if "heun" in text else chosen.solver.run
    errors = []
    counts = (62, 122)  # the last step of "fast" is then only one order lower
    for steps in counts:
        points = grid(card, "uniform", [1] * steps, end=0.3, stops=True)
        tracer = trace(card, run, points, 2 * steps if "heun" in text else steps, chosen.options)
        (last, *_) = final_coefficients(card, tracer, tracer.moves())
        errors.append(abs(last - deviation(points[-1]) / deviation(points[0])))
    assert math.log(errors[0] / errors[1]) / math.log(counts[1] / counts[0]) > order - 0.2


@pytest.mark.parametrize(("card", "text"), [(VP, "euler-maruyama"), (FLOW, "flow-sde")], ids=["euler-maruyama", "flow-sde"])
def test_the_sde_gives_images_of_the_right_deviation(card: Card, text: str) -> None:
    errors = [abs(np.linalg.norm(solve(card, text, steps)) - 0.5) for steps in (100, 200, 400)]
    assert errors[-1] < 0.02
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize(("card", "text"), EVERY, ids=lambda value: value if isinstance(value, str) else value.name)
def test_every_solver_gives_images_of_nearly_the_right_deviation_in_many_steps(card: Card, text: str) -> None:
    text = "ddpm:variance=fixed_small" if text == "ddpm" else text
    coefficients = solve(card, text, 400)
    assert np.linalg.norm(coefficients) == pytest.approx(0.5, rel=0.03)


def test_ddim_on_a_straight_path_would_be_eulers_method() -> None:
    """The forms of a prediction agree: DDIM moves along the straight path as Euler does (arXiv 2010.02502, section 4.3)."""
    points = grid(FLOW, "uniform", [1] * 9, end=0.1, stops=True)
    ddim, euler = (trace(FLOW, SOLVERS[name].run, points, 9, {}).moves() for name in ("ddim", "flow-euler"))
    for a, b in zip(ddim, euler, strict=True):
        assert a.states == pytest.approx(b.states, rel=1e-12)
        assert a.predictions == pytest.approx(b.predictions, rel=1e-12)


@given(evaluations=st.integers(1, 200), order=st.integers(1, 3))
def test_fast_orders_use_up_the_evaluations(evaluations: int, order: int) -> None:
    orders = fast_orders(evaluations, order)
    assert sum(orders) == evaluations
    assert orders == sorted(orders, reverse=True)
    assert max(orders) <= order
    assert orders[-1] < 3 or order < 3 or evaluations < 3


@pytest.mark.parametrize("card", [DISCRETE, LEARNED, VP, FLOW], ids=lambda card: card.name)
@given(t=st.floats(1e-4, 1 - 1e-4))
def test_time_and_signal_to_noise_are_inverse(card: Card, t: float) -> None:
    assert time_of(card.schedule, point(card, t).log_snr) == pytest.approx(t, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("card", [DISCRETE, VP], ids=lambda card: card.name)
@given(t=st.floats(0.01, 0.99))
def test_beta_is_the_slope_of_alpha(card: Card, t: float) -> None:
    h, n = 1e-7, t * 1000
    if abs(n - round(n)) > 1e-3:
        slope = (math.log(point(card, t + h).alpha) - math.log(point(card, t - h).alpha)) / (2 * h)
        assert point(card, t).diffusion == pytest.approx(-2 * slope, rel=1e-5)


@given(
    spacing=st.sampled_from(["linspace", "trailing", "uniform", "logsnr", "karras"]),
    steps=st.integers(1, 60),
    stops=st.booleans(),
    card=st.sampled_from([DISCRETE, VP, FLOW]),
    order=st.integers(1, 3),
)
def test_grids_go_down_from_noise(spacing: str, steps: int, stops: bool, card: Card, order: int) -> None:
    if card is FLOW and spacing in ("logsnr", "karras"):
        with pytest.raises(UsageError, match="starts from pure noise"):
            grid(card, spacing, [1] * steps, end=1e-3, stops=stops)
        return
    points = grid(card, spacing, fast_orders(steps, order), end=1e-3, stops=stops or order > 1)
    times = [p.t for p in points]
    assert len(points) == steps + 1
    assert times == sorted(set(times), reverse=True)
    assert times[0] == 1 or (spacing == "linspace" and steps == 1 and card is DISCRETE)
    assert (times[-1] == 0) == (not stops and order == 1)


@pytest.mark.parametrize(
    ("card", "text", "steps", "message"),
    [
        (VP, "flow-euler", 10, "flow-euler is not for the schedule of vp; use ddpm, ddim"),
        (FLOW, "dpmpp", 10, "use flow-euler, flow-heun, flow-sde"),
        (VP, "ddim:spacing=leading", 10, "counts discrete steps"),
        (DISCRETE, "dpm-fast:end=2", 10, "end must be a time between"),
        (DISCRETE, "dpm-fast:end=nan", 10, "option end of dpm-fast takes a finite number"),
        (VP, "ode-euler", 3000, "steps must be 1 to 2000"),
        (VP, "dpm-fast:order=0", 10, "order must be 1, 2 or 3"),
    ],
)
def test_what_cannot_be_is_one_clear_error(card: Card, text: str, steps: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(card, solver=text, steps=steps)


def test_a_solver_other_than_the_cards_comes_with_its_own_number_of_steps() -> None:
    assert len(make_plan(DISCRETE).rows) == DISCRETE.sampling.steps
    assert len(make_plan(DISCRETE, solver="dpmpp:order=3").rows) == DISCRETE.sampling.steps
    assert len(make_plan(DISCRETE, solver="ode-heun").rows) == SOLVERS["ode-heun"].steps


@pytest.mark.parametrize("card", list(ditzoo.CARDS.values()), ids=lambda card: card.name)
def test_every_card_has_a_sampler(card: Card) -> None:
    """At its own number of steps, and at the few that exports and comparisons try."""
    for steps in (None, 2, 5):
        plan = make_plan(card, steps=steps)
        assert len(plan.rows) == (card.sampling.steps if steps is None else steps)
        unguided = {1.0} if card.sampling.guidance_times else set()
        assert {row.guidance for row in plan.rows} - unguided == {card.sampling.guidance}

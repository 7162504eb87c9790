from __future__ import annotations

import json
import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ditzoo
from ditzoo.errors import PlanError, UsageError
from ditzoo.plan.make import make_plan, parse_solver
from ditzoo.plan.table import Plan, Row
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import predictor, trajectory
from ditzoo.solvers import SOLVERS
from ditzoo.solvers.schedules import alpha_bars, leading, linspace, trailing
from ditzoo.zoo.card import Card
from tests.support.golden import DATA, Golden, relative_l2

DIT, UVIT = ditzoo.card("dit-digits"), ditzoo.card("uvit-digits")

SAMPLERS = [
    "sampler_dit_ddim_10_cfg4.0_eta0.5",
    "sampler_dit_ddim_ddim10_cfg4.0_eta0.0",
    "sampler_dit_ddpm_50_cfg1.5_eta0.0",
    "sampler_dit_ddpm_8_cfg1.0_eta0.0",
    "sampler_dit_ddpm_8_cfg4.0_eta0.0",
]

TEXTS = ["ddpm", "ddpm:variance=fixed_large", "ddim", "ddim:eta=1", "dpmpp:order=1", "dpmpp:order=2", "dpmpp:order=3"]


class NetBackend:
    """As much of a backend as `predictor` needs, around a network, in any float type outside of it."""

    inputs = ()

    def __init__(self, net: Callable[..., torch.Tensor]) -> None:
        self.net = net

    def asarray(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array)

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.net(**{name: value.float() if value.is_floating_point() else value for name, value in inputs.items()})


def golden_plan(golden: Golden, card: Card) -> Plan:
    meta = golden.metadata
    respacing = meta["respacing"]
    spacing = "leading" if respacing.startswith("ddim") else "linspace"
    options = f"spacing={spacing}" + (f",eta={meta['eta']}" if meta["kind"] == "ddim" else "")
    return make_plan(
        card,
        solver=f"{meta['kind']}:{options}",
        steps=int(respacing.removeprefix("ddim")),
        guidance=float(meta["cfg_scale"]),
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_dit_samplers_match_the_authors_code(name: str) -> None:
    golden = Golden(name)
    model = Golden(golden.metadata["model"])
    sampling = msgspec.structs.replace(DIT.sampling, guided_channels=int(golden.metadata["cfg_channels"]))
    card = msgspec.structs.replace(DIT, backbone=model.config, sampling=sampling)
    plan = golden_plan(golden, card)
    assert [row.time for row in plan.rows] == golden["timesteps"].tolist()
    condition = Condition(name="y", values=golden["in.y"].numpy(), null=np.array(card.null_label))
    predict = predictor(NetBackend(model.net()), plan, condition)  # type: ignore[arg-type]
    states = list(trajectory(plan, predict, lambda draw: golden["noise"][draw - 1] if draw else golden["in.z"]))
    recorded = states[1::10] if len(plan.rows) >= 50 else states[1:]
    for state, expected in zip(recorded, golden["trajectory"], strict=True):
        assert relative_l2(state, expected) <= 2e-5
    assert relative_l2(states[-1], golden["out"]) <= 2e-5


def test_guided_forward_matches_the_authors_code() -> None:
    golden = Golden("dit_patch2_sigma")
    scale = float(golden.metadata["cfg_scale"])
    plan = Plan(solver="", channels=4, guided_channels=3, initial=1.0, rows=(_row(0, guidance=scale),))
    half = len(golden["cfg.x"]) // 2
    condition = Condition(name="y", values=golden["cfg.y"][:half].numpy(), null=np.array(10))
    row = msgspec.structs.replace(plan.rows[0], time=float(golden["cfg.t"][0]))
    out = predictor(NetBackend(golden.net()), plan, condition)(golden["cfg.x"][:half], row)  # type: ignore[arg-type]
    assert len(set(golden["cfg.t"].tolist())) == 1
    assert (out - golden["cfg.out"][:half]).abs().max() <= 1e-5 * golden["cfg.out"].abs().max()


@pytest.mark.parametrize("respacing", json.loads((DATA / "dit_respacing.json").read_text()).items(), ids=lambda item: item[0])
def test_respacing_keeps_the_steps_of_the_authors_code(respacing: tuple[str, list[int]]) -> None:
    text, kept = respacing
    space = leading if text.startswith("ddim") else linspace
    assert [n - 1 for n in space(1000, int(text.removeprefix("ddim")))] == sorted(kept)


@given(steps=st.integers(1, 1000))
def test_every_spacing_visits_distinct_steps_of_the_schedule(steps: int) -> None:
    for space in (linspace, trailing):
        visited = space(1000, steps)
        assert len(set(visited)) == steps
        assert min(visited) >= 1
        assert max(visited) <= 1000


def test_alpha_bars_of_the_papers() -> None:
    dit, uvit = alpha_bars(DIT.schedule), alpha_bars(UVIT.schedule)  # type: ignore[arg-type]
    assert len(dit) == 1001
    assert dit[0] == 1
    assert dit[1] == pytest.approx(1 - 1e-4)
    assert dit[1000] == pytest.approx(4.0358e-5, rel=1e-3)
    assert uvit[1] == pytest.approx(1 - 0.00085)
    assert uvit[1000] == pytest.approx(0.0046601, rel=1e-3)


@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_first_order_dpmpp_is_ddim(spacing: str) -> None:
    """DPM-Solver++ of order 1 is DDIM without noise (arXiv 2211.01095, section 4)."""
    first = make_plan(DIT, solver=f"dpmpp:order=1,spacing={spacing}", steps=12)
    second = make_plan(DIT, solver=f"ddim:spacing={spacing}", steps=12)
    for a, b in zip(first.rows, second.rows, strict=True):
        assert a.states == pytest.approx(b.states, rel=1e-12)
        assert a.predictions == pytest.approx(b.predictions, rel=1e-12)


def test_ddim_at_eta_1_is_ddpm_with_the_small_variance() -> None:
    """arXiv 2010.02502, section 4.1."""
    first, second = make_plan(DIT, solver="ddim:eta=1", steps=20), make_plan(DIT, solver="ddpm:variance=fixed_small", steps=20)
    for a, b in zip(first.rows, second.rows, strict=True):
        assert (*a.states, *a.predictions, a.noise) == pytest.approx((*b.states, *b.predictions, b.noise), rel=1e-9)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("card", [DIT, UVIT], ids=lambda card: card.name)
def test_every_solver_finds_the_image_behind_exact_predictions(card: Card, text: str) -> None:
    """With one image in the world the noise in x is known exactly, and every solver must end on that image."""
    image = np.linspace(-1, 1, 64).reshape(1, 1, 8, 8)
    plan = make_plan(card, solver=text, steps=20, guidance=1.0)
    marginals = {point.time: point for point in parse_solver(text).grid(card, 20)}

    def predict(x: np.ndarray, row: Row) -> np.ndarray:
        point = marginals[row.time]
        exact = (x - point.alpha * image) / point.sigma
        return np.concatenate([exact, np.zeros_like(exact)], axis=1)

    rng = np.random.default_rng(0)
    *_, last = trajectory(plan, predict, lambda draw: rng.standard_normal(image.shape))
    assert np.abs(last - image).max() < 1e-9


finite = st.floats(allow_nan=False, allow_infinity=False)


def _row(i: int, *, guidance: float = 1.0) -> Row:
    return Row(time=0.0, guidance=guidance, states=(1.0,), predictions=(-0.1,))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    rows = tuple(
        Row(
            time=draw(finite),
            guidance=draw(finite),
            states=tuple(draw(st.lists(finite, min_size=1, max_size=min(3, i + 1)))),
            predictions=tuple(draw(st.lists(finite, max_size=min(3, i + 1)))),
            noise=draw(finite),
            log_variance=draw(st.none() | st.tuples(finite, finite)),
        )
        for i in range(draw(st.integers(1, 4)))
    )
    text = draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))  # no text has a NUL character
    return Plan(solver=text, channels=4, guided_channels=draw(st.integers(0, 4)), initial=draw(finite), rows=rows)


@given(plan=plans())
def test_plans_survive_json_to_the_last_bit(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.to_json() == plan.to_json()
    for row, other in zip(plan.rows, again.rows, strict=True):  # == holds for 0.0 and -0.0; their signs must agree too
        assert [math.copysign(1, value) for value in row.states] == [math.copysign(1, value) for value in other.states]


@settings(max_examples=300)
@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_corrupted_plan_is_refused(position: int, byte: int) -> None:
    plan = make_plan(UVIT, steps=3)
    text = bytearray(plan.to_json())
    text[position % len(text)] = byte
    try:
        assert Plan.from_json(bytes(text)) == plan  # nothing but white space was hit
    except PlanError:
        return


def test_a_changed_number_is_found_unless_the_checksum_is_emptied() -> None:
    fields = json.loads(make_plan(UVIT, steps=3).to_json())
    fields["rows"][1]["states"][0] += 1e-3
    with pytest.raises(PlanError, match="was changed since it was written"):
        Plan.from_json(json.dumps(fields))
    assert Plan.from_json(json.dumps({**fields, "sha256": ""})).rows[1].states[0] == fields["rows"][1]["states"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "needs rows"),
        ({"guided_channels": 2}, "as many guided channels as channels"),
        ({"format": "ditzoo-plan/2"}, "ditzoo-plan/2"),
        ({"initial": None}, r"\$.initial"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_plan_is_refused_with_the_place(change: dict[str, object], message: str) -> None:
    fields = json.loads(make_plan(UVIT, steps=3).to_json())
    with pytest.raises(PlanError, match=message):
        Plan.from_json(json.dumps({**fields, **change}))


def test_a_plan_that_looks_back_too_far_is_refused() -> None:
    fields = json.loads(make_plan(UVIT, steps=3).to_json())
    fields["rows"][0]["states"] = [1.0, 1.0]
    with pytest.raises(PlanError, match="row 0 of the plan looks back further"):
        Plan.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("dimm", "unknown solver 'dimm'; did you mean"),
        ("ddim:etta=1", "unknown option of ddim 'etta'; did you mean eta"),
        ("ddim:eta=x", "option eta of ddim takes a float, not 'x'"),
        ("ddim:eta=-1", "eta must be 0 or more"),
        ("ddim:eta=2", "use at most 1"),
        ("ddim:spacing=even", "unknown spacing 'even'"),
        ("dpmpp:order=4", "order must be 1, 2 or 3"),
        ("ddpm:variance=learned", "variance must be auto, fixed_small, fixed_large for this network"),
    ],
)
def test_a_wrong_solver_is_one_clear_error(solver: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(UVIT, solver=solver, steps=10)


@pytest.mark.parametrize("steps", [0, -3, 1001])
def test_impossible_numbers_of_steps_are_refused(steps: int) -> None:
    with pytest.raises(UsageError, match=f"steps must be 1 to 1000 .*not {steps}"):
        make_plan(DIT, steps=steps)


def test_leading_spacing_without_a_whole_stride_is_refused() -> None:
    with pytest.raises(UsageError, match="no whole stride"):
        make_plan(DIT, solver="ddim:spacing=leading", steps=300)


@pytest.mark.parametrize("guidance", [math.nan, math.inf])
def test_guidance_must_be_a_number(guidance: float) -> None:
    with pytest.raises(UsageError, match="guidance must be a finite number"):
        make_plan(DIT, guidance=guidance)


def test_options_of_solvers_come_from_their_signatures() -> None:
    assert SOLVERS["ddim"].options == {"eta": 0.0}
    assert SOLVERS["dpmpp"].options == {"order": 2}

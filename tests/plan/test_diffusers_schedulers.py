"""Schedulers of diffusers: compiled, replayed against themselves, and our own solvers against theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ditzoo.errors import DitzooError, PlanError, UsageError
from ditzoo.nets.network import Network
from ditzoo.plan.diffusers import Scheduler, noise_from
from ditzoo.plan.make import make_plan
from ditzoo.sampling.loop import trajectory
from ditzoo.weights.load import load_network
from ditzoo.zoo.card import Card
from tests.support.golden import relative_l2
from tests.support.solvers_world import DISCRETE, FLOW, VP

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")

COMPILED = [
    "CogVideoXDDIMScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDIMScheduler:timestep_spacing=trailing",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepScheduler:algorithm_type=sde-dpmsolver++",
    "DPMSolverMultistepScheduler:solver_order=3,use_karras_sigmas=true",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerDiscreteScheduler:use_karras_sigmas=true",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
]
COMPILED_FLOW = [
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
]

Noise = Callable[[int], torch.Tensor]


@pytest.fixture(scope="module")
def net() -> Network:
    return load_network(DISCRETE).requires_grad_(False)


@pytest.fixture(scope="module")
def noise() -> Noise:
    draws = torch.randn(100, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return lambda draw: draws[draw].clone()


def predict(net: Network, card: Card, x: torch.Tensor, time: float) -> torch.Tensor:
    """The digits network; on a straight path, what it would say as a velocity does not matter: any function will do."""
    time = 1000 * (1 - time) if card is FLOW else time
    return net(x.float(), torch.full((len(x),), time), torch.tensor([3, 7]))


def run_scheduler(net: Network, card: Card, text: str, steps: int, noise: Noise) -> torch.Tensor:
    """The plain loop of diffusers' pipelines."""
    wrapped = Scheduler(card, text, steps)
    scheduler, draws = wrapped.fresh(), []
    x = noise(0) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    with noise_from(inspect.getmodule(wrapped.kind), lambda: noise(draws[-1])):
        for i, time in enumerate(scheduler.timesteps):
            draws.append(i + 1)
            shown = scheduler.scale_model_input(x, time) if hasattr(scheduler, "scale_model_input") else x
            if card is FLOW:
                output = -predict(net, card, shown, 1 - float(time) / 1000)
            else:
                output = predict(net, card, shown, float(time) * card.time.scale / 1000 + card.time.scale / 1000)
            x = scheduler.step(output, time, x, return_dict=False)[0]
    return x


def run_plan(net: Network, card: Card, text: str, steps: int, noise: Noise) -> torch.Tensor:
    plan = make_plan(card, solver=text, steps=steps, guidance=1.0)
    *_, last = trajectory(plan, lambda x, row: predict(net, card, x, row.time), noise)
    return last


CASES = [*((DISCRETE, text) for text in COMPILED), (VP, "UniPCMultistepScheduler"), *((FLOW, text) for text in COMPILED_FLOW)]


@pytest.mark.parametrize(("card", "text"), CASES, ids=lambda value: value if isinstance(value, str) else value.name)
def test_a_compiled_scheduler_does_what_the_scheduler_does(net: Network, noise: Noise, card: Card, text: str) -> None:
    steps = 11
    replayed = run_plan(net, card, f"diffusers:{text}", steps, noise)
    assert relative_l2(replayed, run_scheduler(net, card, text, steps, noise)) <= 1e-5


OURS = [
    ("ddim:spacing=trailing", "DDIMScheduler:timestep_spacing=trailing,set_alpha_to_one=true"),
    ("ddpm:spacing=trailing", "DDPMScheduler:timestep_spacing=trailing"),
    ("dpmpp:order=1", "DPMSolverMultistepScheduler:timestep_spacing=trailing,solver_order=1,final_sigmas_type=zero"),
    ("dpmpp:order=2", "DPMSolverMultistepScheduler:timestep_spacing=trailing,solver_order=2,final_sigmas_type=zero"),
    ("dpmpp:order=3", "DPMSolverMultistepScheduler:timestep_spacing=trailing,solver_order=3,final_sigmas_type=zero"),
]


@pytest.mark.parametrize(("ours", "theirs"), OURS, ids=[ours for ours, _ in OURS])
def test_our_solvers_are_those_of_diffusers(net: Network, noise: Noise, ours: str, theirs: str) -> None:
    steps = 10  # from 15 on diffusers does not lower the order of the last step but one; its DDIM's steps must divide 1000
    assert relative_l2(run_plan(net, DISCRETE, ours, steps, noise), run_scheduler(net, DISCRETE, theirs, steps, noise)) <= 1e-4


def test_our_flow_euler_is_that_of_diffusers(net: Network, noise: Noise) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - i / 20 for i in range(20)])
    x = noise(0)
    for time in scheduler.timesteps:
        x = scheduler.step(-predict(net, FLOW, x, 1 - float(time) / 1000), time, x).prev_sample
    assert relative_l2(run_plan(net, FLOW, "flow-euler", 20, noise), x) <= 1e-4


@pytest.mark.parametrize(
    ("card", "text", "message"),
    [
        (DISCRETE, "DDIMScheduler:clip_sample=true", "not linear"),
        (DISCRETE, "DDPMScheduler:thresholding=true", "not linear"),
        (DISCRETE, "UniPCMultistepScheduler:thresholding=true", "not linear"),
        (DISCRETE, "DDIMInverseScheduler", "from images to noise"),
        (DISCRETE, "RePaintScheduler", "take more, or less"),
        (DISCRETE, "DPMSolverSDEScheduler", "DPMSolverSDEScheduler"),
        (DISCRETE, "FlowMatchEulerDiscreteScheduler", "not for the schedule"),
        (FLOW, "DDIMScheduler", "not for the schedule"),
        (DISCRETE, "DDIMSchedular", "did you mean DDIMScheduler"),
        (DISCRETE, "DDIMScheduler:timestep_spacin=leading", "did you mean timestep_spacing"),
        (DISCRETE, "DDIMScheduler:timestep_spacing=none", "does not take this"),
        (DISCRETE, "DDIMScheduler:prediction_type=sample", "come from the card"),
    ],
)
def test_a_scheduler_that_is_no_table_is_refused_with_the_reason(card: Card, text: str, message: str) -> None:
    with pytest.raises(DitzooError, match=message):
        make_plan(card, solver=f"diffusers:{text}", steps=10)


def test_hidden_noise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler that draws from torch itself, not by the function that is traced."""
    from diffusers.schedulers import scheduling_ddpm

    def drawn_elsewhere(self: object, *args: object, **options: object) -> object:
        result = original(self, *args, **options)
        result.prev_sample = result.prev_sample + torch.randn(())
        return result

    original = scheduling_ddpm.DDPMScheduler.step
    drawn_elsewhere.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    monkeypatch.setattr(scheduling_ddpm.DDPMScheduler, "step", drawn_elsewhere)
    with pytest.raises(PlanError, match="draws noise that cannot be seen"):
        make_plan(DISCRETE, solver="diffusers:DDPMScheduler", steps=5)


def test_steps_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="steps must be 1 to 1000"):
        make_plan(DISCRETE, solver="diffusers:DDIMScheduler", steps=0)


def test_tables_of_schedulers_are_finite_numbers() -> None:
    plan = make_plan(DISCRETE, solver="diffusers:UniPCMultistepScheduler:solver_order=3", steps=12)
    assert len(plan.rows) == 12
    assert np.isfinite([weight for row in plan.rows for weight in row.states]).all()

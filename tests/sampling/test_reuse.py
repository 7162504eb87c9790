"""Sampling with reuse of the middle blocks: whose residual a row takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest

import msgspec
import numpy as np
import pytest

import ditzoo
from ditzoo.backends.base import Backend
from ditzoo.backends.timing import DelegatingBackend
from ditzoo.backends.torch import TorchBackend
from ditzoo.errors import BackendError, UsageError
from ditzoo.nets.network import Network
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import sample_steps
from ditzoo.specs import Array
from ditzoo.weights.load import load_network

NAMES = ("dit-digits", "uvit-digits")
REUSE = "every=3,blocks=1"


@pytest.fixture(scope="module", params=NAMES)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    with ditzoo.open_backend("torch", request.param) as opened:
        yield opened


class Counting(DelegatingBackend):
    """Records the kind of each evaluation, with the number of rows in its batch."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.seen: list[tuple[str, int]] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        self.seen.append(("plain", len(inputs["x"])))
        return self.backend(inputs)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        self.seen.append(("full", len(inputs["x"])))
        return super().with_residual(inputs, outer)

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        self.seen.append(("reuse", len(inputs["x"])))
        assert len(residual) == len(inputs["x"])
        return super().with_reuse(inputs, outer, residual)


class Full(DelegatingBackend):
    """Runs all blocks in each row, and gives the residual in the rows that are full anyway."""

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        return self.backend(inputs)

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        return super().with_residual(inputs, outer)[0]


def states(backend: Backend, *, classes: list[int], reuse: str | None = REUSE, **options: int) -> Iterator[np.ndarray]:
    plan = ditzoo.make_plan(backend.card, steps=7, reuse=reuse)
    condition = class_condition(backend.card, classes)
    for step in sample_steps(backend, plan, count=len(classes), condition=condition, **options):
        yield backend.numpy(step.x).copy()


def test_full_rows_of_a_plan_with_reuse_are_those_without_it_bit_for_bit(backend: Backend) -> None:
    without = list(states(backend, classes=[1, 2], reuse=None))
    assert [x.tobytes() for x in states(backend, classes=[1, 2], reuse="every=1,blocks=1")] == [x.tobytes() for x in without]
    assert [x.tobytes() for x in states(Full(backend), classes=[1, 2])] == [x.tobytes() for x in without]
    reused = list(states(backend, classes=[1, 2]))
    assert reused[1].tobytes() == without[1].tobytes()
    assert reused[2].tobytes() != without[2].tobytes()
    assert 1e-4 < np.linalg.norm(reused[-1] - without[-1]) / np.linalg.norm(without[-1]) < 0.6


def test_two_samplings_in_turns_do_not_mix(backend: Backend) -> None:
    alone = [[x.tobytes() for x in states(backend, classes=classes, seed=seed)] for classes, seed in (([1, 2], 0), ([7], 5))]
    first, second = (states(backend, classes=classes, seed=seed) for classes, seed in (([1, 2], 0), ([7], 5)))
    mixed = list(chain.from_iterable(zip_longest(first, second)))
    assert [x.tobytes() for x in mixed[::2]] == alone[0]
    assert [x.tobytes() for x in mixed[1::2]] == alone[1]


def test_a_run_that_was_left_changes_none_after_it(backend: Backend) -> None:
    expected = [x.tobytes() for x in states(backend, classes=[3])]
    left = states(backend, classes=[4], seed=9)
    for _ in range(3):
        next(left)
    assert [x.tobytes() for x in states(backend, classes=[3])] == expected


def test_each_batch_has_a_residual_of_its_own(backend: Backend) -> None:
    whole = list(states(backend, classes=[1, 2, 3]))[-1]
    parts = list(states(backend, classes=[1, 2, 3], batch=2))
    together = np.concatenate([parts[7], parts[-1]])
    np.testing.assert_allclose(together, whole, rtol=1e-3, atol=1e-4)


def test_both_halves_of_guidance_are_reused_and_a_row_without_it_takes_one() -> None:
    with ditzoo.open_backend("torch", "dit-digits") as backend:
        plan = ditzoo.make_plan(backend.card, solver="ddim", steps=8, guidance_times=(0.4, 1), reuse="every=3,blocks=2")
        counting = Counting(backend)
        drawn = ditzoo.sample(counting, plan, classes=[1, 2])
        kinds = [("full", 4), ("reuse", 4), ("reuse", 4), ("full", 4), ("reuse", 4), ("reuse", 2), ("full", 2), ("reuse", 2)]
        assert counting.seen == kinds
        assert np.isfinite(drawn).all()


@pytest.mark.parametrize("solver", ["dpmpp:order=3", "ddim:eta=1"])
def test_multistep_and_stochastic_solvers_stay_near_the_plan_without_reuse(backend: Backend, solver: str) -> None:
    plans = [ditzoo.make_plan(backend.card, solver=solver, steps=16, reuse=reuse) for reuse in (None, "every=2,blocks=2")]
    without, full, reused = (
        ditzoo.sample(runner, plan, classes=[1, 2])
        for runner, plan in ((backend, plans[0]), (Full(backend), plans[1]), (backend, plans[1]))
    )
    assert full.tobytes() == without.tobytes()
    assert 0 < np.linalg.norm(reused - without) / np.linalg.norm(without) < 0.3


def test_the_split_form_reuses_the_same() -> None:
    plan = ditzoo.make_plan("dit-digits", steps=5, reuse=REUSE)
    drawn = []
    for name in ("torch", "torch:split"):
        with ditzoo.open_backend(name, "dit-digits") as backend:
            drawn.append(ditzoo.sample(backend, plan, classes=[0, 1]))
    np.testing.assert_allclose(*drawn, rtol=1e-4, atol=1e-5)


class Other(Network):
    """A network of another library: it has no blocks that could be left out."""

    def __init__(self, net: Network) -> None:
        super().__init__()
        self.net = net

    inputs = property(lambda self: self.net.inputs)  # type: ignore[assignment]
    outputs = property(lambda self: self.net.outputs)  # type: ignore[assignment]


def test_a_backend_without_reuse_says_which_have_it() -> None:
    card = ditzoo.card("dit-digits")
    plan = ditzoo.make_plan(card, steps=3, reuse=REUSE)
    takers = "cannot reuse the middle blocks; use --backend torch or onnxruntime or openvino"
    with TorchBackend(card, library="other", net=Other(load_network(card))) as backend:
        with pytest.raises(BackendError, match=f"other fp32 cpu {takers}"):
            ditzoo.sample(backend, plan, classes=[1])
        with pytest.raises(BackendError, match=f"other fp32 cpu {takers}"):
            ditzoo.sample(Counting(backend), plan, classes=[1])
    with ditzoo.open_backend("torch", card) as backend:
        pass
    with pytest.raises(BackendError, match="closed"):
        ditzoo.sample(backend, plan, classes=[1])


def test_a_plan_for_a_deeper_network_is_refused() -> None:
    plan = msgspec.structs.replace(ditzoo.make_plan("uvit-digits", steps=3, reuse="every=2,blocks=3"), solver="ddim")
    with (
        ditzoo.open_backend("torch", "dit-digits") as backend,
        pytest.raises(UsageError, match="no middle blocks in dit-digits"),
    ):
        ditzoo.sample(backend, plan, classes=[1])

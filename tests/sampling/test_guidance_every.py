"""Sampling with fewer evaluations of the null condition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import ditzoo
from ditzoo.backends.base import Backend
from ditzoo.backends.timing import DelegatingBackend
from ditzoo.measure.metrics import relative_l2
from ditzoo.model.opening import open_model, parse_spec
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import predictor
from ditzoo.specs import Array

CLASSES = list(range(10))


class Counting(DelegatingBackend):
    """Records the number of rows of each evaluation."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.rows: list[int] = []

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        self.rows.append(len(inputs["x"]))
        return self.backend(inputs)

    def with_residual(self, inputs: Mapping[str, Array], outer: int) -> tuple[Array, Array]:
        self.rows.append(len(inputs["x"]))
        return super().with_residual(inputs, outer)

    def with_reuse(self, inputs: Mapping[str, Array], outer: int, residual: Array) -> Array:
        self.rows.append(len(inputs["x"]))
        return super().with_reuse(inputs, outer, residual)


@pytest.mark.parametrize(
    ("name", "solver", "limits"),
    [("dit-digits", "dpmpp", (0.03, 0.06, 0.09)), ("uvit-digits", "dpmpp-fast", (0.03, 0.04, 0.05))],
)
def test_the_error_is_small_and_the_evaluations_are_fewer(name: str, solver: str, limits: tuple[float, ...]) -> None:
    """Without guidance the latents of these models are 0.29 and 0.15 away."""
    with ditzoo.open_backend("torch", name) as backend:
        counting = Counting(backend)
        plans = [ditzoo.make_plan(name, solver=solver, steps=20, guidance_every=every) for every in (1, 2, 3, 4)]
        drawn = [ditzoo.sample(counting, plan, classes=CLASSES) for plan in plans]
        assert counting.rows[:20] == [20] * 20
        assert counting.rows[20:40] == [20, 10] * 10
        assert [sum(counting.rows[i : i + 20]) for i in range(0, 80, 20)] == [10 * plan.evaluations for plan in plans]
        without = ditzoo.sample(backend, ditzoo.make_plan(name, solver=solver, steps=20), classes=CLASSES)
    assert drawn[0].tobytes() == without.tobytes()
    for latents, limit in zip(drawn[1:], limits, strict=True):
        assert 0 < relative_l2(latents, without) < limit


def test_a_row_takes_the_difference_of_the_last_row_that_had_one() -> None:
    """Compared with the equation, evaluated in its parts. Only the guided channels change."""
    with ditzoo.open_backend("torch", "dit-digits") as backend:
        plan = ditzoo.make_plan(backend.card, solver="ddpm", steps=4, guidance=3, guided_channels=1, guidance_every=3)
        first, second, third, _ = plan.rows
        labels = np.array([3, 8])
        random = np.random.default_rng(0)
        x, later = (backend.asarray(random.standard_normal((2, 1, 16, 16), np.float32)) for _ in range(2))

        def plain(x: Array, time: float, y: np.ndarray) -> np.ndarray:
            given = {"t": np.full(2, time, np.float32), "y": y}
            return backend.numpy(backend({"x": x, **{name: backend.asarray(value) for name, value in given.items()}}))

        predict = predictor(backend, plan, Condition(name="y", values=labels, null=np.array(backend.card.null_label)))
        predict(x, first)
        drawn = [backend.numpy(predict(later, row)) for row in (second, third)]
        null = np.full(2, backend.card.null_label)
        difference = (plain(x, first.time, labels) - plain(x, first.time, null))[:, :1]
        for row, output in zip((second, third), drawn, strict=True):
            cond = plain(later, row.time, labels)
            np.testing.assert_allclose(output[:, :1], cond[:, :1] + 2 * difference, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(output[:, 1:], cond[:, 1:], rtol=1e-4, atol=1e-5)


def test_each_batch_and_each_run_has_a_difference_of_its_own() -> None:
    plan = ditzoo.make_plan("dit-digits", steps=5, guidance_every=4)
    with ditzoo.open_backend("torch", "dit-digits") as backend:
        whole, parts = (ditzoo.sample(backend, plan, classes=CLASSES[:3], batch=batch) for batch in (3, 2))
    np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("reuse", [None, "every=2,blocks=1", "full=0,3,4,blocks=1"])
def test_a_backend_that_resizes_slowly_gets_one_number_of_rows(reuse: str | None) -> None:
    """If all rows evaluate both conditions, they stay together."""
    every, always = (ditzoo.make_plan("dit-digits", steps=6, reuse=reuse, guidance_every=every) for every in (2, 1))
    with ditzoo.open_backend("torch", "dit-digits") as backend:
        slow, quick = Counting(backend), Counting(backend)
        slow.resizes_slowly = True
        drawn, expected = (ditzoo.sample(counting, every, classes=CLASSES) for counting in (slow, quick))
        assert slow.rows == [10] * every.evaluations
        assert quick.rows == [20, 10] * 3
        np.testing.assert_allclose(drawn, expected, rtol=1e-3, atol=1e-4)
        slow.rows.clear()
        ditzoo.sample(slow, always, classes=CLASSES)
        assert slow.rows == [20] * 6


@pytest.mark.parametrize("name", ["torch:split", "onnxruntime", "openvino"])
def test_every_backend_draws_the_same(name: str) -> None:
    plan = ditzoo.make_plan("dit-digits", solver="ddpm", steps=6, guidance_every=2)
    with open_model("dit-digits", parse_spec("torch")) as torch, open_model("dit-digits", parse_spec(name)) as other:
        expected, drawn = (ditzoo.sample(backend, plan, classes=[1, 2]) for backend in (torch, other))
    assert relative_l2(drawn, expected) < 1e-5


def test_reuse_of_blocks_goes_with_it() -> None:
    """Both at once add little to the error of the reuse of blocks."""
    options = {"solver": "ddim", "steps": 20}
    with ditzoo.open_backend("torch", "dit-digits") as backend:
        without, blocks, both = (
            ditzoo.sample(backend, ditzoo.make_plan(backend.card, **options, **given), classes=CLASSES)  # type: ignore[arg-type]
            for given in ({}, {"reuse": "every=2,blocks=1"}, {"reuse": "every=2,blocks=1", "guidance_every": 2})
        )
    assert relative_l2(both, without) < 1.5 * relative_l2(blocks, without) < 0.15

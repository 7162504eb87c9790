from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ditzoo
from ditzoo.errors import BackendError, UsageError
from ditzoo.plan.make import make_plan
from ditzoo.sampling.condition import class_condition
from ditzoo.sampling.loop import predictor, sample_steps, trajectory
from ditzoo.sampling.noise import MAX_SEED, gaussian
from ditzoo.specs import Array, TensorSpec

CARD = ditzoo.card("dit-digits")
PLAN = make_plan(CARD, steps=4)


class Elementwise:
    """A backend whose network works on each image alone, element by element, so that a batch cannot change its rounding."""

    name, precision, card = "elementwise", "fp32", CARD
    inputs = (TensorSpec(name="x", shape=("batch", 1, 8, 8)), TensorSpec(name="t", shape=("batch",)))
    outputs: tuple[TensorSpec, ...] = ()

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        x, t, y = inputs["x"], inputs["t"][:, None, None, None], inputs["y"][:, None, None, None]
        noise = np.tanh(x * (1 + y)) + t / 1000
        return np.concatenate([noise, np.sin(x + y)], axis=1).astype(np.float32)

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return array

    def numpy(self, array: np.ndarray) -> np.ndarray:
        return array


def draw(classes: list[int], *, seed: int, batch: int | None) -> np.ndarray:
    return ditzoo.sample(Elementwise(), PLAN, classes=classes, seed=seed, batch=batch)  # type: ignore[arg-type]


@given(classes=st.lists(st.integers(0, 9), min_size=1, max_size=9), batch=st.integers(1, 12), seed=st.integers(0, MAX_SEED))
@settings(max_examples=50)
def test_batch_size_changes_no_bit(classes: list[int], batch: int, seed: int) -> None:
    whole, parts = draw(classes, seed=seed, batch=None), draw(classes, seed=seed, batch=batch)
    assert whole.dtype == np.float32
    assert whole.tobytes() == parts.tobytes()


@given(classes=st.lists(st.integers(0, 9), min_size=2, max_size=6), seed=st.integers(0, MAX_SEED))
@settings(max_examples=25)
def test_an_image_depends_on_its_own_place_alone(classes: list[int], seed: int) -> None:
    """More images behind it, or others around it, leave image i as it is."""
    whole = draw(classes, seed=seed, batch=None)
    assert draw(classes[:1], seed=seed, batch=None).tobytes() == whole[:1].tobytes()
    others = [(number + 1) % 10 for number in classes[:-1]] + classes[-1:]
    assert draw(others, seed=seed, batch=1)[-1].tobytes() == whole[-1].tobytes()


def test_seeds_images_and_draws_give_different_noise() -> None:
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (MAX_SEED, 0, 0), (0, 2**32, 0), (0, 0, 2**32)]
    assert len({gaussian(*key, (4,)).tobytes() for key in keys}) == len(keys)


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), in plain integers."""
    low = 2**64 - 1
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [(second >> 64) ^ counter[1] ^ key[0], second & low, (first >> 64) ^ counter[3] ^ key[1], first & low]
        key = [(key[0] + 0x9E3779B97F4A7C15) & low, (key[1] + 0xBB67AE8584CAA73B) & low]
    return counter


@given(seed=st.integers(0, MAX_SEED), image=st.integers(0, MAX_SEED), draw=st.integers(0, MAX_SEED))
def test_noise_can_be_repeated_in_any_language(seed: int, image: int, draw: int) -> None:
    """This definition is in every picture that was ever drawn: a change of it is a change of format."""
    expected = []
    for block in (1, 2):
        bits = philox([block, 0, draw, 0], [seed, image])
        uniform = [((value >> 11) + 0.5) / 2**53 for value in bits]
        for u, v in (uniform[:2], uniform[2:]):
            radius = math.sqrt(-2 * math.log(u))
            expected += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    np.testing.assert_allclose(gaussian(seed, image, draw, (2, 4)).reshape(-1), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(gaussian(seed, image, draw, (7,)), gaussian(seed, image, draw, (8,))[:7])


def test_noise_is_standard_normal() -> None:
    values = np.sort(np.concatenate([gaussian(7, image, 3, (10_000,)) for image in range(10)]).astype(np.float64))
    normal = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in values])
    uniform = (np.arange(len(values)) + 0.5) / len(values)
    assert np.abs(normal - uniform).max() < 1.63 / math.sqrt(len(values))  # Kolmogorov-Smirnov at 1%


def test_numpy_and_torch_arrays_run_the_same_loop() -> None:
    condition = class_condition(CARD, [3, 4])
    noises = [np.stack([gaussian(5, image, i, (1, 8, 8)) for image in (0, 1)]) for i in range(len(PLAN.rows) + 1)]

    class Torch(Elementwise):
        def __call__(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return torch.from_numpy(super().__call__({name: value.numpy() for name, value in inputs.items()}))

        def asarray(self, array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array)

    first = list(trajectory(PLAN, predictor(Elementwise(), PLAN, condition), noises.__getitem__))  # type: ignore[arg-type]
    tensors = [torch.from_numpy(noise) for noise in noises]
    second = list(trajectory(PLAN, predictor(Torch(), PLAN, condition), tensors.__getitem__))  # type: ignore[arg-type]
    assert len(first) == len(second) == len(PLAN.rows) + 1
    assert all(isinstance(x, torch.Tensor) and x.dtype == torch.float32 for x in second)
    for x, y in zip(first, second, strict=True):
        np.testing.assert_allclose(x, y.numpy(), rtol=1e-5, atol=1e-6)


def test_guidance_of_1_asks_for_the_conditional_half_only() -> None:
    sizes: list[int] = []

    class Counting(Elementwise):
        def __call__(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            sizes.append(len(inputs["x"]))
            return super().__call__(inputs)

    for guidance in (1.0, 2.0):
        ditzoo.sample(Counting(), make_plan(CARD, steps=2, guidance=guidance), classes=[1, 2, 3])  # type: ignore[arg-type]
    assert sizes == [3, 3, 6, 6]


def test_guidance_leaves_the_channels_that_it_does_not_act_on() -> None:
    plan = make_plan(CARD, steps=2, guidance=3.0)
    x = gaussian(0, 0, 0, (1, 1, 8, 8))
    row = plan.rows[0]
    guided = predictor(Elementwise(), plan, class_condition(CARD, [4]))(x, row)  # type: ignore[arg-type]
    times = np.full(1, row.time, dtype=np.float32)
    cond = Elementwise()({"x": x, "t": times, "y": np.array([4])})
    uncond = Elementwise()({"x": x, "t": times, "y": np.array([10])})
    np.testing.assert_allclose(guided[:, :1], uncond[:, :1] + 3 * (cond[:, :1] - uncond[:, :1]), rtol=1e-6)
    np.testing.assert_array_equal(guided[:, 1:], cond[:, 1:])


def test_steps_come_one_by_one() -> None:
    steps = sample_steps(Elementwise(), PLAN, count=3, condition=class_condition(CARD, [1, 2, 3]), batch=2)  # type: ignore[arg-type]
    assert [(list(step.images), step.done) for step in steps] == [
        (images, done) for images in ([0, 1], [2]) for done in range(5)
    ]


class Overflowing(Elementwise):
    """Below a time its output for one class is what a half-precision number that became too large leaves."""

    def __init__(self, value: float, precision: str, kind: Callable[[np.ndarray], Array]) -> None:
        self.value, self.precision, self.kind = value, precision, kind  # type: ignore[misc]

    def __call__(self, inputs: Mapping[str, Array]) -> Array:
        plain = {name: np.asarray(value) for name, value in inputs.items()}
        output = super().__call__(plain)
        broken = (plain["y"] == 4) & (plain["t"] < 500)
        output[broken, 0, 3, 3] = self.value
        return self.kind(output)

    def asarray(self, array: np.ndarray) -> Array:
        return self.kind(array)

    def numpy(self, array: Array) -> np.ndarray:
        return np.asarray(array)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_number_that_is_not_finite_names_its_step_time_and_image(
    kind: Callable[[np.ndarray], Array], value: float, precision: str
) -> None:
    backend = Overflowing(value, precision, kind)
    step = next(i for i, row in enumerate(PLAN.rows) if row.time < 500)
    steps = sample_steps(
        backend,  # type: ignore[arg-type]
        PLAN,
        count=4,
        condition=class_condition(CARD, [1, 2, 3, 4]),
        batch=2,
        first=10,
    )
    done = []
    with pytest.raises(BackendError) as error:
        done.extend((min(state.images), state.done) for state in steps)
    assert done[-1] == (2, step)  # the first batch is whole, and the second one ends before the step
    where = f"gave NaN or infinity in step {step + 1} of 4, at time {PLAN.rows[step].time:g}, image 13; "
    assert where in str(error.value)
    assert ("use --precision bf16" in str(error.value)) == (precision == "fp16")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"classes": [10]}, "class 10 is out of range; dit-digits knows 0 to 9"),
        ({"classes": [-1]}, "class -1 is out of range"),
        ({"classes": []}, "number of images must be 1 or more"),
        ({"classes": [1], "batch": 0}, "batch must be 1 or more, not 0"),
        ({"classes": [1], "seed": -1}, "seed must be 0 to"),
        ({"classes": [1], "seed": 2**64}, "seed must be 0 to"),
        ({}, "say which classes"),
    ],
)
def test_impossible_requests_are_refused(request_: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ditzoo.sample(Elementwise(), PLAN, **request_)  # type: ignore[arg-type]

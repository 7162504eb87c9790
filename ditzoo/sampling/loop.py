"""Sampling: classifier-free guidance, and the loop that runs a plan on any backend."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from ditzoo.arrays import library_of
from ditzoo.backends.base import Backend, PreparesConditioning, resizes_slowly
from ditzoo.backends.reusing import reusing
from ditzoo.errors import BackendError, UsageError, check_count, check_type, wrong_type
from ditzoo.plan.table import Plan, Row
from ditzoo.sampling.classes import MOST_IMAGES, Classes
from ditzoo.sampling.condition import Condition, class_condition, condition_inputs, has_null
from ditzoo.sampling.noise import Floats, Noise, noise_of
from ditzoo.sampling.request import check_seed
from ditzoo.sampling.sizes import latent_shape
from ditzoo.specs import Array
from ditzoo.zoo.sizes import Size


def trajectory(plan: Plan, predict: Callable[[Array, Row], Array], noise: Callable[[int], Array]) -> Iterator[Array]:
    """Runs a plan. Yields x before the first row and after each row; the last x is the image.

    `predict(x, row)` returns the guided output of the network, [B, C, H, W]. If the network has variance channels, they are the
    last ones. `noise(draw)` returns a standard normal array of x's shape. The arrays may belong to any library.
    """
    x = plan.initial * noise(0)
    yield x
    states, predictions = deque([x], maxlen=plan.window), deque[Array](maxlen=plan.window)
    for i, row in enumerate(plan.rows):
        output = predict(x, row)
        predictions.appendleft(output[:, : plan.channels])
        x = sum(weight * state for weight, state in zip(row.states, states, strict=False))
        x = x + sum(weight * e for weight, e in zip(row.predictions, predictions, strict=False))
        if row.draws:
            x = x + deviation(row, output[:, plan.channels :]) * noise(i + 1)
        states.appendleft(x)
        yield x


def deviation(row: Row, variance: Array) -> Array:
    """The standard deviation of a row's noise. The row gives it, or the network's `variance` channels choose it (see `Row`)."""
    if row.log_variance is None:
        return row.noise
    low, high = row.log_variance
    fraction = (variance + 1) / 2
    return library_of(variance).exp(0.5 * (fraction * high + (1 - fraction) * low))


def predictor(backend: Backend, plan: Plan, condition: Condition | None) -> Callable[[Array, Row], Array]:
    """The function `predict` for `trajectory`: a network with classifier-free guidance (arXiv 2207.12598).

    The network is that of `backend`, under `condition`. The guided channels are uncond + s · (cond − uncond). All other
    channels are cond. If the guidance scale s is 1, only cond is evaluated. A row may also take cond − uncond from an earlier
    row (see `ditzoo.plan.guidance`).

    The two conditions are evaluated together. A backend that resizes slowly evaluates them one after the other if some rows
    evaluate cond alone.

    The function keeps the residual of the last full row and the last difference of the conditions for rows with reuse, so it
    is for the rows of one trajectory of one batch, in their order. Raises BackendError if the plan has reuse and the backend
    cannot run it.
    """
    evaluate = _evaluator(backend, plan)
    halves = has_null(condition)
    cond, both = (fitted(backend, condition_inputs(condition, halves=both)) for both in (False, halves))
    apart = (
        _evaluator(backend, plan) if resizes_slowly(backend) and len({row.evaluates_null for row in plan.rows}) > 1 else None
    )

    if condition is not None and condition.name == "y" and isinstance(backend, PreparesConditioning):
        backend.prepare([row.time for row in plan.rows], condition_inputs(condition, halves=halves)["y"].tolist())

    difference: Array = None

    def predict(x: Array, row: Row) -> Array:
        nonlocal difference
        size, xp, guided = len(x), library_of(x), plan.guided_channels
        if not (row.evaluates_null and halves):
            kept = evaluate({"x": x, **fitted(backend, {"t": _times(row, size)}), **cond}, row)
            if not (row.guided and halves):
                return kept
            mixed = kept[:, :guided] + (row.guidance - 1) * difference
        else:
            inputs = {"x": xp.concat([x, x]), **fitted(backend, {"t": _times(row, 2 * size)}), **both}
            if apart is None:
                output = evaluate(inputs, row)
                kept, uncond = output[:size], output[size:, :guided]
            else:
                kept = evaluate({name: value[:size] for name, value in inputs.items()}, row)
                uncond = apart({name: value[size:] for name, value in inputs.items()}, row)[:, :guided]
            difference = kept[:, :guided] - uncond
            mixed = uncond + row.guidance * difference
        return xp.concat([mixed, kept[:, guided:]], axis=1)

    return predict


def _evaluator(backend: Backend, plan: Plan) -> Callable[[Mapping[str, Array], Row], Array]:
    """The network of `backend` as a function of its inputs and the row, which says whether the middle blocks are reused.

    The residual of the last full row has the null half of a guided batch behind the other half, so that a row without guidance
    takes its first part.
    """
    outer = plan.outer_blocks
    if outer is msgspec.UNSET:
        return lambda inputs, row: backend(inputs)
    network = reusing(backend)
    residual: Array = None
    network.check_reuse(outer)

    def evaluate(inputs: Mapping[str, Array], row: Row) -> Array:
        nonlocal residual
        if row.reuses:
            return network.with_reuse(inputs, outer, residual[: len(inputs["x"])])
        output, residual = network.with_residual(inputs, outer)
        return output

    return evaluate


def evaluation_inputs(x: Floats, row: Row, condition: Condition | None) -> dict[str, npt.NDArray[np.generic]]:
    """All inputs of the network for `row` of a plan, at latents `x` [B, C, H, W].

    If there is a null condition, the batch has 2·B rows: first those under the condition, then those under the null condition.
    """
    halves = has_null(condition)
    x = np.concatenate([x, x]) if halves else x
    return {"x": x, "t": _times(row, len(x)).astype(x.dtype), **condition_inputs(condition, halves=halves)}


def fitted(backend: Backend, inputs: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Array]:
    """The inputs as the backend takes them: as arrays of its own library, in the dtypes of its specs."""
    types = {spec.name: spec.dtype for spec in backend.inputs}
    return {name: backend.asarray(value.astype(types.get(name, value.dtype), copy=False)) for name, value in inputs.items()}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a batch after `done` rows of the plan.

    `images` are the numbers of the images in the batch. `x` [B, C, H, W] is an array of the backend.
    """

    images: range
    done: int
    x: Array


def states_of(backend: Backend, plan: Plan, *, condition: Condition | None, noise: Noise, first: int = 0) -> Iterator[Array]:
    """Every state of one batch: x before the first row of the plan, and x after each row. They are arrays of the backend.

    `first` is the number of the first image. Raises BackendError, with the step, its time and the image, if a value is not
    finite.
    """
    states = trajectory(plan, predictor(backend, plan, condition), lambda draw: fitted(backend, {"x": noise(draw)})["x"])
    for done, x in enumerate(states):
        xp = library_of(x)
        if not bool(xp.all(xp.isfinite(x))):
            raise _not_finite(backend, plan, done, first + _first_broken(x))
        yield x


def _first_broken(x: Array) -> int:
    """The index in the batch of the first image [C, H, W] with a NaN or an infinity."""
    xp = library_of(x)
    return next(place for place in range(len(x)) if not bool(xp.all(xp.isfinite(x[place]))))


def _not_finite(backend: Backend, plan: Plan, done: int, image: int) -> BackendError:
    advice = (
        "fp16 overflowed, as its largest number is 65504: use --precision bf16 (or a bf16 bundle), which has the range of fp32"
        if backend.precision == "fp16"
        else "the weights, the solver or the guidance cause too large numbers; `ditzoo parity` compares with PyTorch in fp32"
    )
    return BackendError(
        f"{backend.name} gave NaN or infinity in step {done} of {len(plan.rows)}, at time {plan.rows[max(done - 1, 0)].time:g},"
        f" image {image}; {advice}"
    )


def sample_steps(
    backend: Backend,
    plan: Plan,
    *,
    count: int,
    condition: Condition | None = None,
    seed: int = 0,
    batch: int | None = None,
    first: int = 0,
    size: Size | None = None,
) -> Iterator[Step]:
    """Samples `count` images, `batch` at a time (default: all at once), and yields every state of every batch.

    The noise of image i depends only on (seed, `first` + i): neither the batch size nor the backend changes it. `size` is the
    height and width of the latents. By default it is the size that the backend takes, or the size of training if the backend
    takes any size. Raises UsageError if the count, the batch or the seed is out of range, or if the backend does not take the
    size. Raises BackendError if a value is not finite.
    """
    batch = count if batch is None else batch
    check_request(count=count, batch=batch, seed=seed)
    shape = latent_shape(backend, size)
    for start in range(0, count, batch):
        images = range(start, min(start + batch, count))
        part = condition and msgspec.structs.replace(condition, values=condition.values[images.start : images.stop])
        noise = noise_of(seed, range(first + images.start, first + images.stop), shape)
        states = states_of(backend, plan, condition=part, noise=noise, first=first + images.start)
        for done, x in enumerate(states):
            yield Step(images=images, done=done, x=x)


def sample(
    backend: Backend,
    plan: Plan,
    *,
    classes: Classes | None = None,
    count: int | None = None,
    seed: int = 0,
    batch: int | None = None,
    size: Size | None = None,
) -> Floats:
    """The latents of one image for each of `classes`, or of `count` images of an unconditional model: [N, C, H, W].

    Classes are numbers or names, as in [3, "seven"]. `batch` is how many images are sampled at a time (default: all at once).
    `size` is the height and width of the latents (default: the size that the backend takes, or the size of training if it takes
    any size). `ditzoo.decode` turns latents into pictures. Raises UsageError if the model does not have a class, if a count,
    batch, seed or size is out of range, or if an argument has a wrong type.
    """
    check_backend("backend", backend)
    check_type("plan", plan, Plan, "a Plan, such as make_plan makes")
    condition = None if classes is None else class_condition(backend.card, classes)
    total = count if condition is None else len(condition.values)
    if total is None:
        raise UsageError("say which classes to sample, or how many images")
    steps = sample_steps(backend, plan, count=total, condition=condition, seed=seed, batch=batch, size=size)
    return np.concatenate([backend.numpy(step.x) for step in steps if step.done == len(plan.rows)])


def check_backend(argument: str, backend: object) -> None:
    """Raises UsageError, which names the `argument`, if `backend` is not a backend."""
    if not (hasattr(backend, "card") and callable(backend)):
        raise wrong_type(argument, backend, "an opened backend, such as open_backend gives")


def check_request(*, count: int, batch: int, seed: int) -> None:
    """Raises UsageError unless the number of images is 1 to `MOST_IMAGES`, the batch is 1 or more, and the seed has 64 bits."""
    check_count("the number of images", count, most=MOST_IMAGES)
    check_count("batch", batch)
    check_seed(seed)


def _times(row: Row, size: int) -> Floats:
    return np.full(size, row.time)

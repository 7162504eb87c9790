"""Benchmarks: the time and memory of several backends, measured side by side in one run on the same inputs.

All backends are open at once and take turns, one evaluation each. Other load on the machine then affects all of them equally.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.backends.reusing import reusing
from ditzoo.backends.timing import TimedBackend
from ditzoo.errors import BackendError, UsageError, check_count
from ditzoo.measure import gpu
from ditzoo.measure.machine import Ceilings, ceilings, gpu_ceilings, machine, seconds
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity_run import Opener
from ditzoo.plan.table import Plan
from ditzoo.ranges import parse_ranges
from ditzoo.records import Data
from ditzoo.sampling.classes import MOST_IMAGES
from ditzoo.sampling.condition import Condition, class_condition
from ditzoo.sampling.loop import evaluation_inputs, fitted, sample_steps
from ditzoo.sampling.noise import Floats, gaussian
from ditzoo.sampling.sizes import common_shape, latent_shape
from ditzoo.specs import PRECISION_TRAITS, Array, Precision
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size

_MOST_REPEATS = 1_000_000

_Call: TypeAlias = Callable[[], Floats]

_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Spread(Data, frozen=True, kw_only=True):
    """Repeated timings, in seconds: the median and the quartiles."""

    median: float
    low: float
    high: float
    repeats: int


class Measurement(Data, frozen=True, kw_only=True):
    """The time and memory that one backend takes at one batch size.

    `evaluation` is the time of one guided evaluation of `batch` images; one call takes both halves of the batch, with the
    labels and with the null label. `reuse` is the time of one that reuses the middle blocks, or None if the plan has no reuse.
    `images_per_second` is derived from them for all steps of the plan. `error` is the relative L2 error of the evaluation, the
    larger one with reuse; the first backend is the reference. `load` is the time to open the backend. `first_image` is the
    time from then to the latents of one image in numpy. Both are in seconds. `overhead` is the share of `first_image` that was
    not spent in calls of the network. It is only meaningful on a CPU: on a GPU, a call may return before its work is done.
    `host_memory` and `device_memory` are in bytes. The first is the peak while the backend loads and draws one image, less the
    memory in use before. The second is by how much the free memory of the GPU was less afterwards; libraries keep what they
    took. It holds for the whole GPU, so nothing else may run there. They are None if the system does not report them, and the
    second one for backends on a CPU. `speed` is in multiply-adds per
    second; it is None if torch is not installed, which counts them.
    """

    backend: str
    precision: Precision
    batch: int
    evaluation: Spread
    reuse: Spread | None = None
    images_per_second: float
    error: float
    load: float
    first_image: float
    overhead: float
    host_memory: int | None
    device_memory: int | None
    speed: float | None


class Bench(Data, frozen=True, kw_only=True):
    """The results of a benchmark, with a description of the machine.

    `parameters` is the number of parameters of the network. `multiply_adds` is for one evaluation of one row of the batch; a
    guided image takes `rows` rows. `warmup` rounds ran before the timed ones. `ceilings` are the limits of the processor, and
    of the GPU if torch uses one.
    """

    model: str
    steps: int
    parameters: int
    multiply_adds: int | None
    rows: int
    warmup: int
    machine: dict[str, str]
    ceilings: tuple[Ceilings, ...]
    measurements: tuple[Measurement, ...]

    def share(self, measurement: Measurement) -> float | None:
        """The speed of a backend as a share of its device's limit in multiply-adds per second; None if either is unknown."""
        device = "cpu" if "cpu" in measurement.backend.split() else "cuda"
        rate = next((ceilings.multiply_adds for ceilings in self.ceilings if ceilings.device == device), None)
        return None if measurement.speed is None or rate is None else measurement.speed / rate

    def least_seconds(self, ceilings: Ceilings) -> tuple[float | None, float]:
        """The least time in seconds for one guided evaluation of one image on a device.

        The first number is the time for the arithmetic, or None if `multiply_adds` is unknown. The second number is the time
        for reading the weights once.
        """
        read = PRECISION_TRAITS[ceilings.precision].bytes * self.parameters / ceilings.copy
        work = None if self.multiply_adds is None else self.rows * self.multiply_adds / ceilings.multiply_adds
        return work, read


def count_multiply_adds(card: Card, *, size: Size | None = None) -> int | None:
    """The number of multiply-adds of one evaluation of a card's network on one image. None if torch is not installed.

    `size` is the height and width of the latents; the default is that of training.
    """
    try:
        from ditzoo.measure.operations import multiply_adds
    except ModuleNotFoundError:
        return None
    return multiply_adds(card.backbone, size=size)


def rows_per_image(plan: Plan) -> int:
    """The number of rows that one image takes in the evaluation that is measured: two if both conditions are evaluated."""
    return 2 if plan.rows[len(plan.rows) // 2].evaluates_null else 1


def parse_batches(text: str) -> list[int]:
    """The batch sizes in a list like "1,8,32" or "1-4", each once.

    Raises UsageError if the list is malformed or a size out of range.
    """
    ranges = parse_ranges(text, argument="--batch")
    for each in ranges:
        check_count("batch", each[0])
        check_count("batch", each[-1], most=MOST_IMAGES)
    return list(dict.fromkeys(size for each in ranges for size in each))


def run(
    openers: Sequence[Opener],
    plan: Plan,
    *,
    batches: Sequence[int],
    repeats: int = 10,
    warmup: int = 2,
    size: Size | None = None,
    text: Condition | None = None,
    multiply_adds: int | None = None,
    advance: Callable[[], object] = lambda: None,
) -> Bench:
    """Measures every backend at every batch size.

    Each round is one evaluation on every backend. `advance` is called after each round. `size` is the height and width of the
    latents. The default is the size that all backends take, or that of training if they take any. `text` is the condition of
    one prompt, for text-to-image models. `multiply_adds` is the number of multiply-adds for one evaluation of one image; see
    `count_multiply_adds`. Raises UsageError if there is no backend, if a batch size or the number of repeats is below 1, if the
    number of warm-up rounds is below 0, if the backends run different models, or if a backend does not take the size. Raises
    BackendError if an output has NaN or infinity, or if the plan has reuse and a backend has none.
    """
    if not openers:
        raise UsageError("name at least one backend to measure")
    for batch in batches:
        check_count("batch", batch, most=MOST_IMAGES)
    check_rounds(repeats, warmup)
    with ExitStack() as stack:
        loaded = [_load(stack, opener, plan, size, text) for opener in openers]
        backends = [entry[0] for entry in loaded]
        if any(backend.card != backends[0].card for backend in backends):
            raise UsageError("these backends run different models; choose backends that run the same model")
        halves = rows_per_image(plan)
        measurements = []
        height, width = (latent_shape(backends[0], size) if size else common_shape(*backends))[1:]
        for batch in batches:
            inputs = [_inputs(backend, plan, batch, (height, width), text) for backend in backends]
            calls = [_calls(backend, given, plan) for backend, given in zip(backends, inputs, strict=True)]
            spreads, outputs = _take_turns(calls, repeats=repeats, warmup=warmup, advance=advance)
            work = None if multiply_adds is None else multiply_adds * batch * halves
            for (backend, costs), taken, given in zip(loaded, spreads, outputs, strict=True):
                if not all(np.isfinite(output).all() for output in given):
                    raise BackendError(f"{backend.name} gave NaN or infinity with a batch of {batch}; try another precision")
                error = max(relative_l2(output, expected) for output, expected in zip(given, outputs[0], strict=True))
                measurements.append(_measurement(backend, costs, plan, batch=batch, spreads=taken, error=error, work=work))
    return Bench(
        model=backends[0].card.name,
        steps=len(plan.rows),
        parameters=backends[0].card.backbone.parameters,
        multiply_adds=multiply_adds,
        rows=halves,
        warmup=warmup,
        machine=machine(),
        ceilings=(ceilings(), *gpu_ceilings()),
        measurements=tuple(measurements),
    )


class _Costs(msgspec.Struct, frozen=True, kw_only=True):
    load: float
    first_image: float
    overhead: float
    host_memory: int | None
    device_memory: int | None


def _load(stack: ExitStack, opener: Opener, plan: Plan, size: Size | None, text: Condition | None) -> tuple[Backend, _Costs]:
    """Opens a backend and draws one image. Returns the backend, and the time and memory for both."""
    before = _reset_peak()
    gpu.release_cached()
    free = gpu.free_memory()
    started = time.perf_counter()
    backend = stack.enter_context(opener())
    load = time.perf_counter() - started
    timed, condition = TimedBackend(backend), _condition(backend.card, 1, text)
    first = seconds(
        lambda: [timed.numpy(step.x) for step in sample_steps(timed, plan, count=1, condition=condition, size=size)]
    )
    peak = _peak()
    used = None if before is None or peak is None else peak - before
    left = None if "cpu" in backend.name.split() else gpu.free_memory()
    return backend, _Costs(
        load=load,
        first_image=first,
        overhead=1 - timed.seconds / first,
        host_memory=used,
        device_memory=None if free is None or left is None else max(0, free - left),
    )


def _calls(backend: Backend, inputs: Mapping[str, Array], plan: Plan) -> list[_Call]:
    """What is measured: an evaluation of the network, and one that reuses its middle blocks if the plan has reuse."""
    outer = plan.outer_blocks
    if outer is msgspec.UNSET:
        return [lambda: backend.numpy(backend(inputs))]
    network = reusing(backend)
    network.check_reuse(outer)
    residual = network.with_residual(inputs, outer)[1]
    return [
        lambda: backend.numpy(network.with_residual(inputs, outer)[0]),
        lambda: backend.numpy(network.with_reuse(inputs, outer, residual)),
    ]


def _take_turns(
    calls: Sequence[Sequence[_Call]], *, repeats: int, warmup: int, advance: Callable[[], object]
) -> tuple[list[list[Spread]], list[list[Floats]]]:
    """Makes the calls of the backends in turn (A, B, A, B). Returns for each call its times in seconds and its last output."""
    outputs: list[list[Floats]] = [[np.empty(0)] * len(each) for each in calls]
    timings: list[list[list[float]]] = [[[] for _ in each] for each in calls]
    for turn in range(warmup + repeats):
        for i, each in enumerate(calls):
            for kind, call in enumerate(each):
                started = time.perf_counter()
                outputs[i][kind] = call()
                took = time.perf_counter() - started
                if turn >= warmup:
                    timings[i][kind].append(took)
        advance()
    return [[_spread(values) for values in each] for each in timings], outputs


def _inputs(backend: Backend, plan: Plan, batch: int, size: Size, text: Condition | None) -> Mapping[str, Array]:
    """The inputs of the evaluation in the middle of the plan, on the backend's device."""
    shape, row = latent_shape(backend, size), plan.rows[len(plan.rows) // 2]
    x = np.stack([gaussian(0, image, 0, shape) for image in range(batch)])
    condition = _condition(backend.card, batch, text)
    if condition is not None and not row.evaluates_null:
        condition = msgspec.structs.replace(condition, null=None)
    return fitted(backend, evaluation_inputs(x, row, condition))


def _condition(card: Card, batch: int, text: Condition | None) -> Condition | None:
    """The condition of a batch: the classes in order, or the same text for every image."""
    if text is not None:
        return msgspec.structs.replace(text, values=np.repeat(text.values[:1], batch, axis=0))
    count = card.number_of_classes
    return class_condition(card, [i % count for i in range(batch)]) if count else None


def _measurement(
    backend: Backend, costs: _Costs, plan: Plan, *, batch: int, spreads: Sequence[Spread], error: float, work: int | None
) -> Measurement:
    """`spreads` are the times of an evaluation, and of one with reuse if the plan has reuse."""
    spread, reuse = spreads[0], spreads[1] if len(spreads) > 1 else None
    run = sum((reuse if reuse and row.reuses else spread).median for row in plan.rows)
    return Measurement(
        backend=backend.name,
        precision=backend.precision,
        batch=batch,
        evaluation=spread,
        reuse=reuse,
        images_per_second=batch / run,
        error=error,
        load=costs.load,
        first_image=costs.first_image,
        overhead=costs.overhead,
        host_memory=costs.host_memory,
        device_memory=costs.device_memory,
        speed=None if work is None else work / spread.median,
    )


def _spread(values: Sequence[float]) -> Spread:
    low, median, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return Spread(median=median, low=low, high=high, repeats=len(values))


def _reset_peak() -> int | None:
    """Resets the peak memory of this process. Returns the memory in use in bytes, or None if the system cannot reset it."""
    try:
        _RESET_PEAK.write_text("5")
    except OSError:
        return None
    return _peak()


def _peak() -> int | None:
    """The peak memory of this process since the last reset, in bytes. None if the system does not report it."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def check_rounds(repeats: int, warmup: int) -> None:
    """Raises UsageError unless the number of timed rounds is 1 or more, and that of warm-up rounds 0 or more."""
    check_count("repeats", repeats, most=_MOST_REPEATS)
    if warmup < 0:
        raise UsageError(f"warmup must be 0 or more, not {warmup}")
    if warmup > _MOST_REPEATS:
        raise UsageError(f"warmup must be at most {_MOST_REPEATS:,}, not {warmup:,}")

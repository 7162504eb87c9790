"""Benchmarks: what backends cost, measured side by side in one run on the same work.

All contestants are open at once and take turns, one evaluation each, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.backends.timing import TimedBackend
from ditzoo.errors import UsageError
from ditzoo.measure.machine import Ceilings, ceilings, gpu_ceilings, machine, seconds
from ditzoo.measure.metrics import relative_l2
from ditzoo.measure.parity_run import Opener
from ditzoo.plan.table import Plan
from ditzoo.records import Data
from ditzoo.sampling.condition import Condition, class_condition
from ditzoo.sampling.loop import evaluation_inputs, fitted, sample_steps
from ditzoo.sampling.noise import Floats, gaussian
from ditzoo.sampling.sizes import common_shape, latent_shape
from ditzoo.specs import PRECISION_TRAITS, Array, Precision
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size

_STATUS, _RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Spread(Data, frozen=True, kw_only=True):
    """Repeated timings, in seconds: the median and the quartiles."""

    median: float
    low: float
    high: float
    repeats: int


class Measurement(Data, frozen=True, kw_only=True):
    """What one backend costs at one batch size.

    `evaluation` is one guided evaluation of `batch` images, both halves in one call; `images_per_second` is what a whole plan
    at that pace gives. `error` is the relative L2 error of that evaluation to the first backend's. `load` and `first_image` are
    seconds, the latter from an opened backend to the latents in numpy; `overhead` is the share of it that was not spent in the
    network's calls (on a CPU; on a GPU, calls may end before their work does). Memory is in bytes: the peak of loading and
    drawing one image, above what was in use before; None where the system does not tell. `speed` is multiply-adds per second,
    None without torch to count them.
    """

    backend: str
    precision: Precision
    batch: int
    evaluation: Spread
    images_per_second: float
    error: float
    load: float
    first_image: float
    overhead: float
    host_memory: int | None
    device_memory: int | None
    speed: float | None


class Bench(Data, frozen=True, kw_only=True):
    """A whole benchmark, with what it ran on.

    `multiply_adds` is for one image and evaluation, `rows` how many a guided image takes. `ceilings` are those of the processor
    and of the GPU, where torch has one.
    """

    model: str
    steps: int
    parameters: int
    multiply_adds: int | None
    rows: int
    machine: dict[str, str]
    ceilings: tuple[Ceilings, ...]
    measurements: tuple[Measurement, ...]

    def share(self, measurement: Measurement) -> float | None:
        """How much of the most multiply-adds per second of its device a backend reaches; None where either is not known."""
        device = "cpu" if "cpu" in measurement.backend.split() else "cuda"
        rate = next((ceilings.multiply_adds for ceilings in self.ceilings if ceilings.device == device), None)
        return None if measurement.speed is None or rate is None else measurement.speed / rate

    def least_seconds(self, ceilings: Ceilings) -> tuple[float | None, float]:
        """The least seconds that one guided image takes on a device: for the arithmetic (None where that is not known), and for
        reading the weights once."""
        read = PRECISION_TRAITS[ceilings.precision].bytes * self.parameters / ceilings.copy
        work = None if self.multiply_adds is None else self.rows * self.multiply_adds / ceilings.multiply_adds
        return work, read


def count_multiply_adds(card: Card, *, size: Size | None = None) -> int | None:
    """The multiply-adds of one evaluation of a card's network on one image; None without torch, which counts them.

    `size` is the height and width of the latents, by default those of training.
    """
    try:
        from ditzoo.measure.operations import multiply_adds
    except ModuleNotFoundError:
        return None
    return multiply_adds(card.backbone, size=size)


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
    """Measures every backend at every batch size; `advance` is called after each round of one evaluation a backend.

    `size` is the height and width of the latents, by default those of training, or of a backend that takes no others. `text` is
    the condition of one prompt, for models that take text. `multiply_adds` is what one image's evaluation takes
    (`count_multiply_adds`). Raises UsageError for no backend, a batch or a number of repeats below 1, backends of different
    models, or a size that a backend does not take.
    """
    _check(openers, batches=batches, repeats=repeats, warmup=warmup)
    with ExitStack() as stack:
        loaded = [_load(stack, opener, plan, size, text) for opener in openers]
        backends = [entry[0] for entry in loaded]
        if any(backend.card != backends[0].card for backend in backends):
            raise UsageError("these backends run different models; compare one model with itself")
        halves = 1 if plan.rows[len(plan.rows) // 2].guidance == 1 else 2
        measurements = []
        height, width = (latent_shape(backends[0], size) if size else common_shape(*backends))[1:]
        for batch in batches:
            inputs = [_inputs(backend, plan, batch, (height, width), text) for backend in backends]
            spreads, outputs = _take_turns(backends, inputs, repeats=repeats, warmup=warmup, advance=advance)
            work = None if multiply_adds is None else multiply_adds * batch * halves
            for (backend, costs), spread, output in zip(loaded, spreads, outputs, strict=True):
                error = relative_l2(output, outputs[0])
                measurements.append(_measurement(backend, costs, plan, batch=batch, spread=spread, error=error, work=work))
    return Bench(
        model=backends[0].card.name,
        steps=len(plan.rows),
        parameters=backends[0].card.backbone.parameters,
        multiply_adds=multiply_adds,
        rows=halves,
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
    """Opens a backend and draws one image, with what that took."""
    before = _reset_peak()
    started = time.perf_counter()
    backend = stack.enter_context(opener())
    load = time.perf_counter() - started
    timed, condition = TimedBackend(backend), _condition(backend.card, 1, text)
    first = seconds(
        lambda: [timed.numpy(step.x) for step in sample_steps(timed, plan, count=1, condition=condition, size=size)]
    )
    peak = _peak()
    used = None if before is None or peak is None else peak - before
    overhead = 1 - timed.seconds / first
    return backend, _Costs(load=load, first_image=first, overhead=overhead, host_memory=used, device_memory=_device_peak())


def _take_turns(
    backends: Sequence[Backend],
    inputs: Sequence[Mapping[str, Array]],
    *,
    repeats: int,
    warmup: int,
    advance: Callable[[], object],
) -> tuple[list[Spread], list[Floats]]:
    """A, B, A, B ...: the seconds of one evaluation, for each backend with its inputs, and what it gives."""
    outputs: list[Floats] = [np.empty(0)] * len(backends)
    timings: list[list[float]] = [[] for _ in backends]
    for turn in range(warmup + repeats):
        for i, backend in enumerate(backends):
            started = time.perf_counter()
            outputs[i] = backend.numpy(backend(inputs[i]))
            took = time.perf_counter() - started
            if turn >= warmup:
                timings[i].append(took)
        advance()
    return [_spread(values) for values in timings], outputs


def _inputs(backend: Backend, plan: Plan, batch: int, size: Size, text: Condition | None) -> Mapping[str, Array]:
    """The inputs of the evaluation in the middle of the plan, on the backend's device."""
    shape, row = latent_shape(backend, size), plan.rows[len(plan.rows) // 2]
    x = np.stack([gaussian(0, image, 0, shape) for image in range(batch)])
    condition = _condition(backend.card, batch, text)
    if condition is not None and row.guidance == 1:
        condition = msgspec.structs.replace(condition, null=None)
    return fitted(backend, evaluation_inputs(x, row, condition))


def _condition(card: Card, batch: int, text: Condition | None) -> Condition | None:
    """What a batch of images shows: the classes in turn, or the text in all of them."""
    if text is not None:
        return msgspec.structs.replace(text, values=np.repeat(text.values[:1], batch, axis=0))
    count = card.number_of_classes
    return class_condition(card, [i % count for i in range(batch)]) if count else None


def _measurement(
    backend: Backend, costs: _Costs, plan: Plan, *, batch: int, spread: Spread, error: float, work: int | None
) -> Measurement:
    return Measurement(
        backend=backend.name,
        precision=backend.precision,
        batch=batch,
        evaluation=spread,
        images_per_second=batch / (spread.median * len(plan.rows)),
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
    """Makes the system forget the peak of this process's memory; returns what is in use now, or None where it cannot."""
    try:
        _RESET_PEAK.write_text("5")
    except OSError:
        return None
    return _peak()


def _peak() -> int | None:
    """The peak of this process's memory since the last reset, in bytes."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return None if kilobytes is None else 1024 * int(kilobytes)


def _device_peak() -> int | None:
    """The peak of the GPU memory that torch holds, where torch is loaded and uses one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def _check(openers: Sequence[Opener], *, batches: Sequence[int], repeats: int, warmup: int) -> None:
    if not openers:
        raise UsageError("say at least one backend to measure")
    for name, value, least in (*(("batch", batch, 1) for batch in batches), ("repeats", repeats, 1), ("warmup", warmup, 0)):
        if value < least:
            raise UsageError(f"{name} must be {least} or more, not {value}")

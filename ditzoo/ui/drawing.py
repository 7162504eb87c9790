"""Draws a job: on each of its backends in turn, with previews, and measures how far two backends differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec
from ditzoo.measure.differences import Difference, picture_difference
from ditzoo.measure.metrics import max_abs
from ditzoo.measure.parity import TOLERANCES, SampledStates, SamplingTask, arithmetic, check_comparable, measure
from ditzoo.model.opening import open_model, sampling_batch
from ditzoo.pictures.decode import Decoder, decode, open_decoder, pixel_values
from ditzoo.pictures.draw import condition_of, draw
from ditzoo.pictures.sheets import contact_sheet, png_bytes
from ditzoo.plan.table import Plan
from ditzoo.sampling.condition import Condition
from ditzoo.sampling.loop import Step
from ditzoo.sampling.noise import Floats, noise_of
from ditzoo.sampling.request import SampleRequest
from ditzoo.ui.jobs import Job
from ditzoo.ui.orders import Order
from ditzoo.ui.states import Drawn, Measured, SideSummary, Summary
from ditzoo.zoo.card import Card
from ditzoo.zoo.class_names import class_names
from ditzoo.zoo.sizes import Size

BATCH = 16
"""The largest number of images that are sampled together. It changes no image."""

PREVIEW_COLUMNS = 5

_PAUSE, _SHARE = 0.3, 4.0
"""The least time between two previews: in seconds, and as a multiple of the time that a preview takes."""


class _Open(msgspec.Struct, frozen=True, kw_only=True):
    """An open backend, and what it was opened for."""

    card: Card
    spec: BackendSpec
    size: Size
    batch: str
    plan: Plan
    backend: Backend

    def serves(self, card: Card, spec: BackendSpec, request: SampleRequest, batch: str) -> bool:
        """Whether it can draw the request."""
        same = (self.card, self.spec, self.size, self.batch) == (card, spec, request.latent_size(card), batch)
        return same and self.plan.outer_blocks == request.plan.outer_blocks


class Studio:
    """Draws jobs. The backends of the last job stay open for the next one. It belongs to one thread."""

    def __init__(self) -> None:
        self._open: list[_Open] = []

    def draw(self, job: Job) -> Drawn:
        """Draws a job. Raises CancelledError if the user cancels it, and the errors of `open_model` and `draw`."""
        try:
            return self._draw(job)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Closes all backends."""
        while self._open:
            self._open.pop().backend.close()

    def _draw(self, job: Job) -> Drawn:
        card, specs, request = job.order.card, job.order.specs, job.order.request
        place = specs[0].device or "cpu"
        condition = condition_of(card, request, device=place, display=job)
        batch = sampling_batch(min(BATCH, request.count))
        self._close_others(card, specs, request, batch)
        with job.status("opening the decoder"):
            decoder = open_decoder(card, device=place)
        job.expect(len(specs) * _evaluations(request))
        backends, latents, sides = [], [], []
        for side, spec in enumerate(specs):
            started = time.perf_counter()
            backend = self._backend(job, spec, batch)
            opened = time.perf_counter()
            preview = _Previews(job, side, card, decoder)
            latents.append(_sample(job, backend, condition, preview))
            sampling = time.perf_counter() - opened - preview.seconds
            sides.append(SideSummary(backend=backend.name, opening=opened - started, sampling=sampling))
            backends.append(backend)
        return _finish(job, backends, latents, sides, condition=condition, decoder=decoder)

    def _backend(self, job: Job, spec: BackendSpec, batch: str) -> Backend:
        """The open backend that serves a job, or one that is opened now."""
        card, request = job.order.card, job.order.request
        found = next((each for each in self._open if each.serves(card, spec, request, batch)), None)
        if found is not None:
            return found.backend
        size, plan = request.latent_size(card), request.plan
        backend = open_model(card, spec, size=size, batch=batch, plan=plan, display=job)
        self._open.append(_Open(card=card, spec=spec, size=size, batch=batch, plan=plan, backend=backend))
        return backend

    def _close_others(self, card: Card, specs: Sequence[BackendSpec], request: SampleRequest, batch: str) -> None:
        """Closes the backends that a job does not need."""
        for each in self._open.copy():
            if not any(each.serves(card, spec, request, batch) for spec in specs):
                self._open.remove(each)
                each.backend.close()


class _Previews:
    """Decodes states for the page: the first one, and later ones as often as takes little of the time."""

    def __init__(self, job: Job, side: int, card: Card, decoder: Decoder) -> None:
        self._job, self._side, self._card, self._decoder = job, side, card, decoder
        self._due, self.seconds = 0.0, 0.0

    def take(self, latents: Callable[[], Floats]) -> None:
        """Shows the latents [N, C, h, w] if it is time."""
        started = time.perf_counter()
        if started < self._due:
            return
        pictures = decode(self._card, latents(), decoder=self._decoder)
        sheet = contact_sheet(pictures, columns=min(len(pictures), PREVIEW_COLUMNS))
        self._job.preview(self._side, png_bytes(sheet))
        took = time.perf_counter() - started
        self.seconds += took
        self._due = started + took + max(_PAUSE, _SHARE * took)


def _sample(job: Job, backend: Backend, condition: Condition | None, previews: _Previews) -> Floats:
    """The latents of all images of a job on a backend, [N, C, h, w]."""

    def on_state(state: Step) -> None:
        job.check()
        if state.done:
            job.step()
            previews.take(lambda: backend.numpy(state.x))

    job.say(f"sampling on {backend.name}")
    drawn = draw(job.order.card, backend, job.order.request, condition=condition, decoder=None, batch=BATCH, callback=on_state)
    return np.concatenate([each.latents for each in drawn])


def _finish(
    job: Job,
    backends: Sequence[Backend],
    latents: Sequence[Floats],
    sides: Sequence[SideSummary],
    *,
    condition: Condition | None,
    decoder: Decoder,
) -> Drawn:
    """Decodes the latents of all backends, and compares the second backend with the first."""
    card, request = job.order.card, job.order.request
    started = time.perf_counter()
    with job.status("decoding"):
        pixels = [pixel_values(card, drawn, decoder=decoder) for drawn in latents]
    decoding = time.perf_counter() - started
    difference = measured = None
    if len(backends) > 1:
        with job.status("comparing"):
            difference = picture_difference(pixels[1], pixels[0])
            measured = _measured(job.order, backends, latents, pixels, condition=condition, difference=difference)
    summary = Summary(
        images=request.count,
        evaluations=_evaluations(request),
        labels=labels_of(card, request),
        sides=tuple(sides),
        decoding=decoding,
        measured=measured,
    )
    return Drawn(summary=summary, pictures=tuple(each.astype(np.uint8) for each in pixels), difference=difference)


def _measured(
    order: Order,
    backends: Sequence[Backend],
    latents: Sequence[Floats],
    pixels: Sequence[Floats],
    *,
    condition: Condition | None,
    difference: Difference,
) -> Measured:
    """The difference of the second backend from the first. Its limits are those of the less precise of both."""
    request = order.request
    check_comparable(*backends)
    limits = max((TOLERANCES[arithmetic(backend)] for backend in backends), key=lambda limit: limit.sample)
    ours, theirs = (
        SampledStates(name=backend.name, precision=backend.precision, states=(drawn,))
        for backend, drawn in zip(backends, latents, strict=True)
    )
    noise = noise_of(request.seed, range(request.count), latents[0].shape[1:])
    task = SamplingTask(plan=request.plan, condition=condition, noise=noise)
    report = measure(order.card, ours, theirs, task, pixels=pixels, tolerance=limits).report
    return Measured(
        sample=report.sample_relative_l2,
        sample_limit=limits.sample,
        psnr=report.psnr,
        psnr_limit=limits.psnr,
        largest_latent=max_abs(latents[1], latents[0]),
        largest_pixel=difference.largest,
        gain=difference.gain,
        passed=report.passed,
    )


def labels_of(card: Card, request: SampleRequest) -> tuple[str, ...]:
    """The name of the class or the prompt of each image; "" for each if the model has neither."""
    if request.classes is not None:
        names = class_names(card)
        return tuple(names[number] for number in request.classes)
    return request.prompts or ("",) * request.count


def _evaluations(request: SampleRequest) -> int:
    """The number of steps over all batches of a request."""
    return -(-request.count // BATCH) * len(request.plan.rows)

"""From a request to pictures: sampling and decoding, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.pictures.decode import Decoder, Pictures, decode
from ditzoo.pictures.text_encoder import prompt_condition
from ditzoo.sampling.condition import Condition, class_condition
from ditzoo.sampling.loop import Step, sample_steps
from ditzoo.sampling.memory import explaining_memory
from ditzoo.sampling.noise import Floats
from ditzoo.sampling.request import SampleRequest
from ditzoo.specs import Device
from ditzoo.zoo.card import Card


class DrawnBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of images: the final latents [N, C, h, w], and their pictures [N, H, W, channels] if they were decoded."""

    latents: Floats
    pictures: Pictures | None


def condition_of(model: Card | Bundle, request: SampleRequest, *, device: Device = "cpu") -> Condition | None:
    """What the images of a request show, as the network takes it; None for an unconditional model.

    Prompts are encoded here, on `device` where that can be. Raises UsageError for classes or prompts that the model does not
    take.
    """
    if request.prompts is not None:
        return prompt_condition(model, request.prompts, device=device)
    card = model.card if isinstance(model, Bundle) else model
    return None if request.classes is None else class_condition(card, request.classes)


def draw(
    model: Card | Bundle,
    backend: Backend,
    request: SampleRequest,
    *,
    condition: Condition | None,
    decoder: Decoder | None,
    batch: int | None = None,
    callback: Callable[[Step], object] = lambda step: None,
) -> Iterator[DrawnBatch]:
    """Draws the images of a request on an opened backend, `batch` at a time (default: all at once), and yields every batch.

    `condition` is that of `condition_of`. Without a `decoder` there are latents and no pictures. `callback` gets every state of
    every batch, the noise at the start included. Raises BackendError, which says what batch fits, where the memory runs out;
    else as `sample_steps`.
    """
    plan, size = request.plan, request.latent_size(backend.card)
    together = request.count if batch is None else min(batch, request.count)
    states = sample_steps(
        backend,
        plan,
        count=request.count,
        condition=condition,
        seed=request.seed,
        batch=batch,
        first=request.first,
        size=size,
    )
    with explaining_memory(backend, plan, batch=together, condition=condition, size=size):
        for step in states:
            callback(step)
            if step.done == len(plan.rows):
                latents = backend.numpy(step.x)
                pictures = None if decoder is None else decode(model, latents, decoder=decoder)
                yield DrawnBatch(latents=latents, pictures=pictures)

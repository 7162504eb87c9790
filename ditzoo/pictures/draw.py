"""Drawing the pictures of a request: sampling and decoding, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from ditzoo.backends.base import Backend
from ditzoo.bundle import Bundle
from ditzoo.pictures.decode import Decoder, Pictures, decode
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.condition import Condition, class_condition
from ditzoo.sampling.loop import Step, sample_steps
from ditzoo.sampling.memory import explaining_memory
from ditzoo.sampling.noise import Floats
from ditzoo.sampling.request import SampleRequest
from ditzoo.zoo.card import Card


class DrawnBatch(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of images: the final latents [N, C, h, w], and the pictures [N, H, W, channels], or None without a decoder."""

    latents: Floats
    pictures: Pictures | None


def condition_of(
    model: Card | Bundle, request: SampleRequest, *, device: str = "cpu", display: Display = SILENT
) -> Condition | None:
    """The condition for the images of a request. It is None for an unconditional model.

    This encodes the prompts and shows it on `display`. `open_encoder` says when the text encoder runs on `device`. Raises
    UsageError if the model does not take the classes or prompts.
    """
    if request.prompts is not None:
        from ditzoo.pictures.text_encoder import prompt_condition  # it brings the client of the Hub

        with display.status("encoding the prompts"):
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

    `condition` is the result of `condition_of`. Without a `decoder`, the batches have latents but no pictures. `callback` gets
    every state of every batch, including the noise at the start. Raises BackendError, which says which batch fits, if the
    memory runs out. Raises the errors of `sample_steps` too.
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

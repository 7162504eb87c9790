"""A loaded model. Two calls lead from a name to pictures: `load` and `Model.sample`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ditzoo.backends.base import Backend
from ditzoo.backends.options import check_threads
from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError, check_callable
from ditzoo.model.opening import check_backend_text, choose_backend, is_automatic, open_model
from ditzoo.model_names import ModelLike, find_model
from ditzoo.pictures.decode import Decoder, check_decoding, open_decoder
from ditzoo.pictures.decoding import WHOLE, Decoding, parse_decoding
from ditzoo.pictures.draw import condition_of, draw
from ditzoo.pictures.sheets import to_image
from ditzoo.plan.make import choose_plan
from ditzoo.plan.table import Plan
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.classes import Classes
from ditzoo.sampling.loop import Step, check_request
from ditzoo.sampling.request import make_request
from ditzoo.sampling.sizes import choose_size, latent_shape
from ditzoo.weights.catalogue import HUB, card_of, cards
from ditzoo.weights.local import weights_state
from ditzoo.zoo.card import Card

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn


class Model:
    """A model that runs on a backend. `ditzoo.load` makes one. As a context manager, it closes at the end of the block.

    `source` is the card or the bundle that the model was loaded from. `card` is its card. `backend` runs its network. The
    network, the decoder and the text encoder run on `device`. `decoding` is how torch decodes latents.
    """

    def __init__(self, source: Card | Bundle, backend: Backend, *, device: str = "cpu", decoding: Decoding = WHOLE) -> None:
        self.source, self.card, self.backend, self.device = source, card_of(source), backend, device
        self.decoding = decoding
        self._decoder: Decoder | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def module(self) -> nn.Module:
        """The network as a torch module. Raises BackendError if the backend does not run in torch."""
        self._check_open()
        module: nn.Module | None = getattr(self.backend, "net", None)
        if module is None:
            raise BackendError(
                f"{self.backend.name} has no torch module; use ditzoo.load({self.name!r}, backend='torch').module"
            )
        return module

    def sample(
        self,
        *,
        classes: Classes | None = None,
        prompts: str | Iterable[str] | None = None,
        num: int | None = None,
        seed: int = 0,
        solver: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        guidance_interval: tuple[float, float] | None = None,
        guidance_times: tuple[float, float] | None = None,
        guidance_every: int | None = None,
        reuse: str | None = None,
        plan: Plan | str | os.PathLike[str] | None = None,
        resolution: str | int | None = None,
        batch: int | None = None,
        callback: Callable[[Step], object] | None = None,
    ) -> list[Image.Image]:
        """Draws images and returns them as Pillow images.

        The noise of an image depends on the seed and on its position in the list, not on the batch. `classes` are numbers and
        names, as in [3, "seven"]; the default is the first ten. Text-to-image models take `prompts` instead. `num` is the
        number of images: the classes or prompts are repeated in order until there are enough. The default is one image for
        each. `solver`, `steps`, `guidance`, `guidance_interval`, `guidance_times`, `guidance_every` and `reuse` are the same as
        those of `make_plan`. A `plan`, or the path of a saved one, replaces these seven. A bundle has its own plan.
        `resolution` is in pixels: 256, or "256x384" (height x width). Only networks and bundles that take several sizes accept
        one that differs from training. `batch` is the number of images that are sampled together; the default is all.
        `callback` is called after each step of each batch with a `Step`, which has the range of the `images`, the number of
        steps `done`, and the latents `x`. Raises UsageError if the model does not take the arguments. Raises BackendError if
        there is not enough memory; the message names a batch that fits.
        """
        self._check_open()
        if callback is not None:
            check_callable("callback", callback, "a function of a Step")
        chosen = choose_plan(
            self.source,
            plan,
            solver=solver,
            steps=steps,
            guidance=guidance,
            guidance_interval=guidance_interval,
            guidance_times=guidance_times,
            guidance_every=guidance_every,
            reuse=reuse,
        )
        size = choose_size(self.source, resolution)
        request = make_request(self.card, chosen, classes=classes, prompts=prompts, num=num, seed=seed, size=size)
        check_request(count=request.count, batch=request.count if batch is None else batch, seed=seed)
        latent_shape(self.backend, size)
        condition = condition_of(self.source, request, device=self.device)
        self._decoder = self._decoder or open_decoder(self.source, device=self.device, decoding=self.decoding)
        batches = draw(
            self.source,
            self.backend,
            request,
            condition=condition,
            batch=batch,
            decoder=self._decoder,
            callback=_after_steps(callback),
        )
        return [to_image(picture) for drawn in batches if drawn.pictures is not None for picture in drawn.pictures]

    def close(self) -> None:
        """Frees the memory of the model. A closed model cannot be used again. A second call does nothing."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._closed:
            self._closed, self._decoder = True, None
            self.backend.__exit__(kind, error, trace)

    def __repr__(self) -> str:
        return f"<ditzoo.Model {self.name} on {self.backend.name}{', closed' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError(f"this model is closed; load it again with ditzoo.load({self.name!r})")


def load(
    model: ModelLike,
    *,
    backend: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    decoding: str | None = None,
    display: Display = SILENT,
) -> Model:
    """Loads a model on a backend, ready to sample.

    `model` is a name such as "dit-digits", `hf:OWNER/REPO`, a bundle's folder, a card or an opened bundle. If the weights are
    on the Hub and not stored yet, they are pulled. `backend` is "NAME[:OPTION...]", such as "torch:bf16" or "onnxruntime:int8".
    The default is torch for a card; for a bundle it is onnxruntime, or the TensorRT flavour of its engines. "auto" is the
    fastest backend, measured once (see `ditzoo.model.automatic.fastest_backend`). onnxruntime and
    TensorRT run an export of a card. It is made on first use and kept in ditzoo's cache. `device` is cpu or cuda, or cuda:1 for
    the second GPU. `threads` is the number of CPU threads of the network. `decoding` is how torch decodes latents: "bf16",
    "tiles" or "bf16,tiles" (see `ditzoo.pictures.decoding.parse_decoding`). Raises UsageError if an argument is wrong. Raises
    MissingPackageError if a package is missing; the message has the pip command. Raises BackendError if the backend cannot run
    on this machine, and the same errors as `pull` if the weights cannot be fetched.
    """
    check_backend_text(backend)
    check_threads(threads)
    found = _with_weights(model)
    how = parse_decoding(decoding)
    check_decoding(found, how)
    if backend is not None and is_automatic(backend):
        from ditzoo.model.automatic import fastest_backend  # it brings what measures

        plan = choose_plan(found, None)
        backend = fastest_backend(found, backend, device=device, threads=threads, plan=plan, display=display).backend
    spec = choose_backend(found, backend)
    opened = open_model(found, spec, device=device, threads=threads, display=display)
    return Model(found, opened, device=spec.device or device, decoding=how)


def _with_weights(model: ModelLike) -> Card | Bundle:
    """Returns the card or the bundle that `model` names. Pulls its weights if only the Hub has them."""
    if isinstance(model, str) and model.startswith(HUB) and model not in cards():
        from ditzoo.model.pulling import pull

        return pull(model).card
    found = find_model(model)
    if isinstance(found, Card) and weights_state(found) == "hub":
        from ditzoo.model.pulling import pull

        pull(found)
    return found


def _after_steps(callback: Callable[[Step], object] | None) -> Callable[[Step], object]:
    """Wraps `callback` so that it is called after each step, but not for the noise before the first step."""

    def call(step: Step) -> object:
        return callback(step) if callback is not None and step.done else None

    return call

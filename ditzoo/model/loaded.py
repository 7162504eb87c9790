"""A loaded model: from a name to pictures in two calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ditzoo.backends.base import Backend
from ditzoo.backends.options import BackendSpec, parse_spec
from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError, check_type
from ditzoo.model.opening import default_backend, open_model
from ditzoo.model_names import ModelLike, find_model
from ditzoo.pictures.decode import Decoder, open_decoder
from ditzoo.pictures.draw import condition_of, draw
from ditzoo.pictures.sheets import to_image
from ditzoo.plan.make import choose_plan
from ditzoo.plan.table import Plan
from ditzoo.progress import SILENT, Display
from ditzoo.sampling.classes import Classes
from ditzoo.sampling.loop import Step, check_request
from ditzoo.sampling.request import make_request
from ditzoo.sampling.sizes import choose_size, latent_shape
from ditzoo.specs import Device
from ditzoo.weights.catalogue import HUB, card_of, cards
from ditzoo.weights.local import weights_state
from ditzoo.zoo.card import Card

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn


class Model:
    """A model on a backend. `ditzoo.load` makes one; as a context manager, it is closed at the end of the block.

    `source` is the card or the bundle that it was loaded from, `card` its card, `backend` what runs its network, and `device`
    where that, the decoder and the text encoder run.
    """

    def __init__(self, source: Card | Bundle, backend: Backend, *, device: Device = "cpu") -> None:
        self.source, self.card, self.backend, self.device = source, card_of(source), backend, device
        self._decoder: Decoder | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def module(self) -> nn.Module:
        """The network as a torch module. Raises BackendError on a backend that does not run in torch."""
        self._check_open()
        module: nn.Module | None = getattr(self.backend, "net", None)
        if module is None:
            raise BackendError(
                f"{self.backend.name} has no torch module; ditzoo.load({self.name!r}, backend='torch').module is one"
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
        plan: Plan | str | os.PathLike[str] | None = None,
        resolution: str | int | None = None,
        batch: int | None = None,
        callback: Callable[[Step], object] | None = None,
    ) -> list[Image.Image]:
        """Draws images: Pillow images, which depend on the seed and their place in the list alone, not on the batch.

        `classes` are numbers and names, as in [3, "seven"]; by default the first ten. Models of text take `prompts`. `num`
        images take turns at them; by default there is one image for each. `solver`, `steps`, `guidance`, `guidance_interval`
        and `guidance_times` are those of `make_plan`. A `plan`, or the path of a saved one, takes their place. A bundle has a
        plan of its own. `resolution` is in pixels: 256, or "256x384" (height x width), for networks and bundles that take other
        sizes than that of training. `batch` is how many images are sampled at a time; by default all. `callback` is called
        after each step of each batch with a `Step`: the range of its `images`, the number of steps `done`, and the latents
        `x`. Raises UsageError for arguments that the model does not take. If the memory is not enough, it raises BackendError,
        which says what batch fits.
        """
        self._check_open()
        chosen = choose_plan(
            self.source,
            plan,
            solver=solver,
            steps=steps,
            guidance=guidance,
            guidance_interval=guidance_interval,
            guidance_times=guidance_times,
        )
        size = choose_size(self.source, resolution)
        request = make_request(self.card, chosen, classes=classes, prompts=prompts, num=num, seed=seed, size=size)
        check_request(count=request.count, batch=request.count if batch is None else batch, seed=seed)
        latent_shape(self.backend, size)
        condition = condition_of(self.source, request, device=self.device)
        self._decoder = self._decoder or open_decoder(self.source, device=self.device)
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
        """Frees what the model holds. A closed model cannot be used again; closing it again does nothing."""
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
            raise BackendError(f"this model is closed; ditzoo.load({self.name!r}) loads it again")


def load(
    model: ModelLike,
    *,
    backend: str | None = None,
    device: Device | str = "cpu",
    threads: int | None = None,
    display: Display = SILENT,
) -> Model:
    """Loads a model on a backend, ready to sample.

    `model` is a name such as "dit-digits", `hf:OWNER/REPO`, a bundle's folder, a card or an opened bundle. Weights that are on
    the Hub and not here yet are pulled. `backend` is "NAME[:OPTION...]", such as "torch:bf16" or "onnxruntime:int8"; by default
    torch, or for a bundle what runs it: onnxruntime or the TensorRT of its engines. onnxruntime and TensorRT run exports of a
    card, which are made in ditzoo's cache on first use. `device` is cpu or cuda, `threads` the number of CPU threads of the
    network. Raises UsageError for an argument that cannot be, MissingPackageError with the pip command where a package is
    missing, BackendError where the backend cannot run here, and as `pull` where weights cannot be fetched.
    """
    if backend is not None:
        check_type("backend", backend, str, "a backend's name with its options, such as 'torch:bf16' or 'onnxruntime:int8'")
    found = _with_weights(model)
    spec = BackendSpec(name=default_backend(found)) if backend is None else parse_spec(backend)
    opened = open_model(found, spec, device=device, threads=threads, display=display)
    return Model(found, opened, device=spec.device or device)  # type: ignore[arg-type]  # `open_model` checks it


def _with_weights(model: ModelLike) -> Card | Bundle:
    """The card or bundle that `model` means; weights that only the Hub has are pulled."""
    if isinstance(model, str) and model.startswith(HUB) and model not in cards():
        from ditzoo.model.pulling import pull

        return pull(model).card
    found = find_model(model)
    if isinstance(found, Card) and weights_state(found) == "hub":
        from ditzoo.model.pulling import pull

        pull(found)
    return found


def _after_steps(callback: Callable[[Step], object] | None) -> Callable[[Step], object]:
    """`callback`, called for the states after a step alone, not for the noise at the start."""

    def call(step: Step) -> object:
        return callback(step) if callback is not None and step.done else None

    return call

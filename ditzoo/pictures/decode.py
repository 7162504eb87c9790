"""Decoding: latents become pictures."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ditzoo.backends.gpus import cuda_device
from ditzoo.backends.graphs import load_graph
from ditzoo.bundle import Bundle
from ditzoo.errors import BackendError, InputError, UsageError, check_callable, check_type, shortened
from ditzoo.model_names import ModelLike, find_model
from ditzoo.pictures.decoding import WHOLE, Decoding
from ditzoo.sampling.noise import Floats
from ditzoo.specs import check_inputs
from ditzoo.zoo.card import Autoencoder, Card, Pixels

Pictures: TypeAlias = npt.NDArray[np.uint8]

SLICE = 512 * 512
"""The number of pixels that are decoded at once."""


class Decoder(Protocol):
    """A function from any number of latents [N, C, h, w] to images [N, channels, H, W] with values of about −1 to 1."""

    def __call__(self, latents: Floats) -> Floats: ...


def open_decoder(model: ModelLike, *, device: str = "cpu", decoding: Decoding = WHOLE) -> Decoder:
    """The decoder of a model.

    If a bundle holds the graph of a decoder, ONNX Runtime runs it. Otherwise torch runs the decoder. The decoder of a model
    that denoises pixels returns its input.

    `device` is the device of the network. If it is not the CPU, the decoder runs on the GPU, provided that its own library has
    one. It decodes a few latents at a time, so the memory that it needs does not grow with their number. `decoding` says how
    torch decodes. Raises UsageError if it is given for a decoder that torch does not run.
    """
    model = find_model(model)
    check_decoding(model, decoding)
    card = model.card if isinstance(model, Bundle) else model
    if isinstance(card.decoder, Pixels):
        return lambda latents: latents
    if isinstance(model, Bundle) and "decoder" in model.manifest.graphs:
        return _sliced(_graph_decoder(model, device), card.decoder)
    return _sliced(_torch_decoder(card, device, decoding), card.decoder)


def check_decoding(model: Card | Bundle, decoding: Decoding) -> None:
    """Raises UsageError if `decoding` is not the default, and torch does not decode for this model."""
    if decoding == WHOLE:
        return
    card = model.card if isinstance(model, Bundle) else model
    if isinstance(card.decoder, Pixels):
        raise UsageError(f"{card.name} denoises pixels and has no decoder; leave out the decoding {decoding}")
    if isinstance(model, Bundle) and "decoder" in model.manifest.graphs:
        raise UsageError(
            f"the bundle {model.path} has its own graph of the decoder; leave out the decoding {decoding}, or use the model's"
            f" name {card.name} instead of the bundle"
        )


def pixel_values(model: ModelLike, latents: Floats, *, decoder: Decoder | None = None) -> Floats:
    """Decodes latents [N, C, h, w] to pixel values [N, H, W, channels] from 0 to 255, which are not rounded.

    They are 127.5 · x + 128, as in the authors' code. `decoder` is a decoder that is open already; without it, the model's
    decoder is opened. Raises UsageError if the latents are not a numpy array of numbers in the shape that the model draws, and
    BackendError if the latents or the decoded images have NaN or infinity.
    """
    found = find_model(model)
    _check_latents(found.card if isinstance(found, Bundle) else found, latents)
    if decoder is not None:
        check_callable("decoder", decoder, "a decoder, such as open_decoder gives")
    _check_finite("the latents have", latents, "the sampler gave them")
    with np.errstate(over="ignore"):  # `_check_finite` and `clip` see to it
        latents = latents.astype(np.float32, copy=False)
        images = (decoder or open_decoder(found))(latents)
        _check_finite("the decoder gave", images, f"the largest latent is {np.abs(latents).max(initial=0):.3g}")
        values: Floats = np.clip(127.5 * images.transpose(0, 2, 3, 1) + 128, 0, 255)
    return values


def _check_latents(card: Card, latents: Floats) -> None:
    """Raises UsageError unless `latents` is an array of one or more latents of the card's model, of any height and width."""
    check_type("latents", latents, np.ndarray, "a numpy array [N, C, h, w], such as sample gives")
    channels = card.backbone.latent_shape[0]
    if latents.ndim != 4 or latents.size == 0 or latents.shape[1] != channels:
        shape = shortened(", ".join(map(str, latents.shape)))
        raise UsageError(f"latents of {card.name} must be [N, {channels}, h, w], with N, h and w of 1 or more, not [{shape}]")
    if latents.dtype.kind not in "fiu":
        raise UsageError(f"latents must be real numbers, such as float32, not {shortened(str(latents.dtype))}")


def _check_finite(who: str, arrays: Floats, why: str) -> None:
    """Raises BackendError, with the first image concerned, if a value of `arrays` [N, ...] is not finite."""
    finite = np.isfinite(arrays).reshape(len(arrays), -1).all(axis=1)
    if not finite.all():
        image = int(np.argmin(finite))
        raise BackendError(f"{who} NaN or infinity for image {image} of {len(arrays)}: {why}; try less guidance or more steps")


def decode(model: ModelLike, latents: Floats, *, decoder: Decoder | None = None) -> Pictures:
    """Decodes latents [N, C, h, w] to pictures [N, H, W, channels] with 8 bits per channel. See `pixel_values`."""
    return pixel_values(model, latents, decoder=decoder).astype(np.uint8)


def _graph_decoder(bundle: Bundle, device: str) -> Decoder:
    """The decoder in a bundle. It raises UsageError if it was not exported for the size of the latents."""
    run, specs = load_graph(bundle, "decoder", device=device), bundle.manifest.graphs["decoder"].inputs

    def decode(latents: Floats) -> Floats:
        try:
            check_inputs(specs, {"latents": latents})
        except InputError as error:
            raise UsageError(
                f"the decoder of the bundle {bundle.path} does not take these latents: {error}; export a bundle for their"
                " resolution, or decode them with the model's name instead of the bundle"
            ) from error
        return run({"latents": latents})

    return decode


def _torch_decoder(card: Card, device: str, decoding: Decoding) -> Decoder:
    import torch

    from ditzoo.pictures import autoencoders

    place = cuda_device(device) if torch.cuda.is_available() else "cpu"
    net = autoencoders.load(card, decoding).to(place)
    if place == "cpu":
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions on a CPU are faster so

    def run(latents: Floats) -> Floats:
        with torch.inference_mode():
            images: Floats = net(torch.from_numpy(np.ascontiguousarray(latents)).to(place)).cpu().numpy()
        return images

    return run


def _sliced(decoder: Decoder, config: Autoencoder) -> Decoder:
    """A decoder that passes its latents to `decoder` in slices of at most `SLICE` pixels, and of at least one image."""

    def run(latents: Floats) -> Floats:
        pixels = latents.shape[2] * latents.shape[3] * config.factor**2
        size = max(1, SLICE // pixels)
        return np.concatenate([decoder(latents[i : i + size]) for i in range(0, len(latents), size)])

    return run

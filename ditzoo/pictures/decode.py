"""From latents to pictures."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ditzoo.backends.graphs import load_graph
from ditzoo.bundle import Bundle
from ditzoo.errors import InputError, UsageError, check_type
from ditzoo.model_names import ModelLike, find_model
from ditzoo.sampling.noise import Floats
from ditzoo.specs import Device, check_inputs
from ditzoo.zoo.card import Autoencoder, Card, Pixels

Pictures: TypeAlias = npt.NDArray[np.uint8]

SLICE = 512 * 512
"""How many pixels are decoded at once."""


class Decoder(Protocol):
    """What turns latents [N, C, h, w] into images [N, channels, H, W] in about −1 ... 1. Any number of latents will do."""

    def __call__(self, latents: Floats) -> Floats: ...


def open_decoder(model: ModelLike, *, device: Device = "cpu") -> Decoder:
    """The decoder of a model: ONNX Runtime's where a bundle brings one, torch's for any other; none for models of pixels.

    It runs on the GPU if `device`, which is that of the network, is not the CPU, and the library of the decoder has a GPU. Few
    latents at a time are decoded, so that the memory that it takes does not grow with their number.
    """
    model = find_model(model)
    card = model.card if isinstance(model, Bundle) else model
    if isinstance(card.decoder, Pixels):
        return lambda latents: latents
    if isinstance(model, Bundle) and "decoder" in model.manifest.graphs:
        return _sliced(_graph_decoder(model, device), card.decoder)
    return _sliced(_torch_decoder(card, device), card.decoder)


def pixel_values(model: ModelLike, latents: Floats, *, decoder: Decoder | None = None) -> Floats:
    """Latents [N, C, h, w] as pixel values [N, H, W, channels] from 0 to 255, not rounded: 127.5 · x + 128, as the authors do.

    `decoder` saves opening the model's own once more. Raises UsageError for latents that are not a numpy array.
    """
    check_type("latents", latents, np.ndarray, "a numpy array [N, C, h, w], such as sample gives")
    images = (decoder or open_decoder(model))(latents.astype(np.float32, copy=False))
    values: Floats = np.clip(127.5 * images.transpose(0, 2, 3, 1) + 128, 0, 255)
    return values


def decode(model: ModelLike, latents: Floats, *, decoder: Decoder | None = None) -> Pictures:
    """Latents [N, C, h, w] as pictures [N, H, W, channels] of 8 bits a channel."""
    return pixel_values(model, latents, decoder=decoder).astype(np.uint8)


def _graph_decoder(bundle: Bundle, device: Device) -> Decoder:
    """The decoder in a bundle. Raises UsageError for latents of another size than it was exported for."""
    run, specs = load_graph(bundle, "decoder", device=device), bundle.manifest.graphs["decoder"].inputs

    def decode(latents: Floats) -> Floats:
        try:
            check_inputs(specs, {"latents": latents})
        except InputError as error:
            raise UsageError(
                f"the decoder of the bundle {bundle.path} does not take these latents: {error}; export a bundle for their"
                " resolution, or decode them with the model's name in place of the bundle"
            ) from error
        return run({"latents": latents})

    return decode


def _torch_decoder(card: Card, device: Device) -> Decoder:
    import torch

    from ditzoo.pictures import autoencoders

    place = "cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda"
    net = autoencoders.load(card).to(place)

    def run(latents: Floats) -> Floats:
        with torch.inference_mode():
            images: Floats = net(torch.from_numpy(np.ascontiguousarray(latents)).to(place)).cpu().numpy()
        return images

    return run


def _sliced(decoder: Decoder, config: Autoencoder) -> Decoder:
    """`decoder`, shown no more latents at once than make `SLICE` pixels, but always one."""

    def run(latents: Floats) -> Floats:
        pixels = latents.shape[2] * latents.shape[3] * config.factor**2
        size = max(1, SLICE // pixels)
        return np.concatenate([decoder(latents[i : i + size]) for i in range(0, len(latents), size)])

    return run

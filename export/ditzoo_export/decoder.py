"""Exporting the decoder of a latent model to ONNX. With it, a bundle makes images without PyTorch."""

from __future__ import annotations

import logging
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ditzoo.bundle import Graph
from ditzoo.errors import ExportError
from ditzoo.nets.precision import copied
from ditzoo.pictures import autoencoders
from ditzoo.pictures.decoding import WHOLE
from ditzoo.progress import SILENT, Display
from ditzoo.specs import TensorSpec
from ditzoo.weights.local import has_decoder
from ditzoo.zoo.card import Autoencoder, Card
from ditzoo.zoo.sizes import Size, own_size
from ditzoo_export.onnx_files import write_graph
from ditzoo_export.settings import OPSET

_DROPPED = 1e-7

log = logging.getLogger(__name__)


def export_decoder(card: Card, folder: Path, *, size: Size | None, display: Display = SILENT) -> dict[str, Graph]:
    """Writes the card's decoder into `folder`. It maps latents of the network to images with values of about −1 to 1.

    `size` is the size of the latents, or None for any size. If the decoder cannot be exported for any size, it is exported for
    the size of training, and the shapes of its graph say so. Returns the graph by its name, for the manifest. The result is
    empty if the model denoises pixels, or if the checkpoint that should hold the decoder does not hold it.
    """
    if not isinstance(card.decoder, Autoencoder) or (card.decoder.source is None and not has_decoder(card)):
        return {}
    if size is None:
        try:
            return {"decoder": _write(card, card.decoder, folder, size=None, display=display)}
        except (ExportError, torch.onnx.OnnxExporterError) as error:
            log.warning("the decoder of %s is exported for one size of latents, not for any size: %s", card.name, error)
            for path in folder.glob("decoder.onnx*"):
                path.unlink()
    return {"decoder": _write(card, card.decoder, folder, size=size or own_size(card), display=display)}


def _write(card: Card, decoder: Autoencoder, folder: Path, *, size: Size | None, display: Display) -> Graph:
    """Writes the decoder for latents of `size`, or of any size, and checks it.

    A decoder for any size is checked at two sizes other than the traced one. Raises ExportError if the output differs from that
    of torch, and OnnxExporterError if torch cannot export the decoder.
    """
    channels, factor = card.backbone.latent_shape[0], decoder.factor
    height, width = own_size(card)
    pixels = ("image_height", "image_width") if size is None else (size[0] * factor, size[1] * factor)
    graph = Graph(
        file="decoder.onnx",
        precision="fp32",
        opset=OPSET,
        inputs=(TensorSpec(name="latents", shape=("batch", channels, *(size or ("height", "width")))),),
        outputs=(TensorSpec(name="images", shape=("batch", 3, *pixels)),),
    )
    sizes = cycle([size] if size else [(height, width + 1), (height, width), (2 * height, width + 3)])  # the first is traced
    rng = np.random.default_rng(0)

    def example(batch: int) -> np.ndarray:
        return (decoder.scale * rng.standard_normal((batch, channels, *next(sizes)))).astype(np.float32)

    write_graph(_with_lasting_eps(autoencoders.load(card, WHOLE)), graph, folder, example, display=display)
    return graph


def _with_lasting_eps(net: nn.Module) -> nn.Module:
    """A copy of the net that shares its weights. Its tiny `eps` constants become vectors, which the exporter keeps.

    onnxscript removes the addition of a number below 1e-8, as if it were zero. It does not remove the addition of a vector with
    one such number. DC-AE needs this: it divides by a sum + 1e-15, and the sum is 0 for a token whose terms are all zero after
    the ReLU.
    """
    net = copied(net)
    for module in net.modules():
        eps = getattr(module, "eps", None)
        if isinstance(eps, float) and eps < _DROPPED:
            del module.eps
            module.register_buffer("eps", torch.tensor([eps]))
    return net

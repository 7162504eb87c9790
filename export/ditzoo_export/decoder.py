"""The decoder of latent models as ONNX, so that a bundle gives images without PyTorch."""

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
from ditzoo.specs import TensorSpec
from ditzoo.weights.local import has_decoder
from ditzoo.zoo.card import Autoencoder, Card
from ditzoo.zoo.sizes import Size, own_size
from ditzoo_export.onnx_files import write_graph

_DROPPED = 1e-7

log = logging.getLogger(__name__)


def export_decoder(card: Card, folder: Path, *, opset: int, size: Size | None) -> dict[str, Graph]:
    """Writes the card's decoder, from latents as the network makes them to images in about −1 ... 1, into `folder`.

    `size` is that of the latents, or None for any size. If the decoder cannot be exported for any size, it is exported for the
    size of training, and its graph says so. Returns the graph by its name, for the manifest. Returns none for models of pixels,
    and if the checkpoint should have held the decoder but did not.
    """
    if not isinstance(card.decoder, Autoencoder) or (card.decoder.source is None and not has_decoder(card)):
        return {}
    if size is None:
        try:
            return {"decoder": _write(card, card.decoder, folder, opset=opset, size=None)}
        except (ExportError, torch.onnx.OnnxExporterError) as error:
            log.warning("the decoder of %s is exported for one size of latents, not for any: %s", card.name, error)
            for path in folder.glob("decoder.onnx*"):
                path.unlink()
    return {"decoder": _write(card, card.decoder, folder, opset=opset, size=size or own_size(card))}


def _write(card: Card, decoder: Autoencoder, folder: Path, *, opset: int, size: Size | None) -> Graph:
    """Writes the decoder for latents of a size, or of any, and checks it; for any size, at two sizes other than the traced one.

    Raises ExportError where it is not what torch has, and OnnxExporterError where torch cannot export it.
    """
    channels, factor = card.backbone.latent_shape[0], decoder.factor
    height, width = own_size(card)
    pixels = ("image_height", "image_width") if size is None else (size[0] * factor, size[1] * factor)
    graph = Graph(
        file="decoder.onnx",
        precision="fp32",
        opset=opset,
        inputs=(TensorSpec(name="latents", shape=("batch", channels, *(size or ("height", "width")))),),
        outputs=(TensorSpec(name="images", shape=("batch", 3, *pixels)),),
    )
    sizes = cycle([size] if size else [(height, width + 1), (height, width), (2 * height, width + 3)])  # the first is traced
    rng = np.random.default_rng(0)

    def example(batch: int) -> np.ndarray:
        return (decoder.scale * rng.standard_normal((batch, channels, *next(sizes)))).astype(np.float32)

    write_graph(_with_lasting_eps(autoencoders.load(card)), graph, folder, example)
    return graph


def _with_lasting_eps(net: nn.Module) -> nn.Module:
    """The net, its weights shared, whose small constants the exporter keeps.

    onnxscript drops the sum with a number below 1e-8 as one with zero, but not the sum with a vector of one such number. DC-AE
    divides by a sum of products + 1e-15, and the sum is 0 for a token whose products are all cut off by ReLU.
    """
    net = copied(net)
    for module in net.modules():
        eps = getattr(module, "eps", None)
        if isinstance(eps, float) and eps < _DROPPED:
            del module.eps
            module.register_buffer("eps", torch.tensor([eps]))
    return net

"""The decoder of latent models as ONNX, so that a bundle gives images without PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ditzoo.bundle import Graph
from ditzoo.pictures import autoencoders
from ditzoo.specs import TensorSpec
from ditzoo.weights.local import has_decoder
from ditzoo.zoo.card import Autoencoder, Card
from ditzoo_export.onnx_files import write_graph


def export_decoder(card: Card, folder: Path, *, opset: int) -> dict[str, Graph]:
    """Writes the card's decoder, from latents as the network makes them to images in about −1 ... 1, into `folder`.

    Returns the graph by its name, for the manifest. Returns none for models of pixels, and if the checkpoint should have held
    the decoder but did not. The size of the latents is the card's own.
    """
    if not isinstance(card.decoder, Autoencoder) or (card.decoder.source is None and not has_decoder(card)):
        return {}
    channels, height, width = card.backbone.latent_shape
    factor = card.decoder.factor
    graph = Graph(
        file="decoder.onnx",
        precision="fp32",
        opset=opset,
        inputs=(TensorSpec(name="latents", shape=("batch", channels, height, width)),),
        outputs=(TensorSpec(name="images", shape=("batch", 3, height * factor, width * factor)),),
    )
    rng, scale = np.random.default_rng(0), card.decoder.scale

    def example(batch: int) -> np.ndarray:
        return (scale * rng.standard_normal((batch, channels, height, width))).astype(np.float32)

    write_graph(autoencoders.load(card), graph, folder, example)
    return {"decoder": graph}

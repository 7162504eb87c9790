"""Exporting the text encoder of a text-to-image model to ONNX. With it, a bundle takes prompts without PyTorch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ditzoo.bundle import Graph
from ditzoo.errors import ExportError
from ditzoo.pictures.text_encoder import TOKENIZER, load_torch, tokenize
from ditzoo.progress import SILENT, Display
from ditzoo.specs import TensorSpec
from ditzoo.zoo.card import Card
from ditzoo_export.onnx_files import write_graph
from ditzoo_export.settings import OPSET

_PROMPTS = ("a", "a photograph of a cat", "")


class LastHiddenState(nn.Module):
    """A text encoder that returns only its last hidden state: tokens [B, T] -> [B, T, D]."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(tokens).last_hidden_state
        return hidden


def export_text(card: Card, folder: Path, *, display: Display = SILENT) -> dict[str, Graph]:
    """Writes the card's text encoder and its tokenizer into `folder`.

    The encoder maps tokens [B, T] to the network's input `context` [B, T, D]. Returns the graph by its name, for the manifest.
    The result is empty if the model takes no prompts. Raises ExportError if the card states another shape for the output of the
    encoder.
    """
    if card.text is None:
        return {}
    text = card.text
    encoder, tokenizer = load_torch(card, text)
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    graph = Graph(
        file="text_encoder.onnx",
        precision="fp32",
        opset=OPSET,
        inputs=(TensorSpec(name="tokens", shape=("batch", text.tokens), dtype="int64"),),
        outputs=(TensorSpec(name="context", shape=("batch", text.tokens, text.width)),),
    )
    module = LastHiddenState(encoder)

    def example(batch: int) -> np.ndarray:
        return tokenize(tokenizer, text, (_PROMPTS * batch)[:batch])

    with torch.no_grad():
        shape = tuple(module(torch.from_numpy(example(1))).shape)
    if shape != (1, text.tokens, text.width):
        raise ExportError(f"the text encoder of {card.name} gives {shape[1:]}, not {(text.tokens, text.width)}")
    write_graph(module, graph, folder, example, display=display)
    return {"text_encoder": graph}

"""Writes the trained weights of the icons into the package, in half precision, and prints what the card has to say about them.

python -m recipes.icons.pack      # -> ditzoo/assets/dit-icons.safetensors, dit-icons-decoder.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ditzoo.files import sha256
from ditzoo.weights.local import ASSETS
from recipes.icons.autoencoder import AUTOENCODER_FILE
from recipes.icons.train import BACKBONE_FILE

_EXACT = ("pos_embed",)
"""Tensors that are computed, not learned. They stay in float32."""


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network in half precision, except the fixed ones."""
    return {name: tensor if name in _EXACT else tensor.to(torch.float16) for name, tensor in state.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the trained weights of the icons into the package.")
    parser.add_argument("--folder", type=Path, default=Path("icons-training"), help="the folder of the training")
    options = parser.parse_args()
    autoencoder = load_file(options.folder / AUTOENCODER_FILE)
    decoder = {name: tensor for name, tensor in autoencoder.items() if name.startswith("decoder.")}
    for name, state in (("dit-icons", load_file(options.folder / BACKBONE_FILE)), ("dit-icons-decoder", decoder)):
        path = ASSETS / f"{name}.safetensors"
        save_file(halved(state), path)
        print(f"{path}: {path.stat().st_size:,} bytes, SHA-256 {sha256(path)}")


if __name__ == "__main__":
    main()

"""The embedded latent model. Its autoencoder ships with the package, too."""

from __future__ import annotations

from ditzoo.zoo.card import Autoencoder, Card, DiscreteBetas, Embedded, File, Sampling, TimeInput
from ditzoo.zoo.configs import DiTConfig

ICONS = ("apple", "boat", "car", "cat", "fish", "flower", "heart", "house", "moon", "star", "sun", "tree")
"""The names of the classes, in the order of the class numbers."""

_LATENTS = Autoencoder(
    architecture="AutoencoderDC",
    scale=1.0,
    factor=4,
    mean=(0.124, 0.115, 0.212, -0.322, -0.473, 0.0058, 0.135, -0.258),
    std=(1.3, 1.64, 1.99, 1.04, 0.744, 1.33, 1.7, 0.866),
)

CARDS = (
    Card(
        name="dit-icons",
        summary="DiT 128/6/2 on latents of icons, 32x32, learned variance",
        backbone=DiTConfig(
            input_size=8, patch_size=2, in_channels=8, hidden_size=128, depth=6, num_heads=4, num_classes=len(ICONS)
        ),
        weights=Embedded(
            file="dit-icons.safetensors",
            sha256="3f4849713edff0d94a21e903581dff64577e6280636b49ea8cbd834a5d9b06b1",
            decoder=File(
                path="dit-icons-decoder.safetensors", sha256="22cc9eecd22fb21d98bfd7141f46c503163f25caeafaea4bd56f6863cbc3f40e"
            ),
        ),
        schedule=DiscreteBetas(spacing="scaled_linear", start=0.00085, end=0.012),
        time=TimeInput(offset=-1.0),
        prediction="noise",
        sampling=Sampling(solver="dpmpp", steps=20, guidance=2.0, guided_channels=8),
        null_label=len(ICONS),
        classes="icons",
        decoder=_LATENTS,
        licence="Apache-2.0",
        citation="https://arxiv.org/abs/2212.09748",
        data="60,000 pictures of 12 classes, 32x32, that recipes/icons draws by code",
    ),
)

"""The models whose weights ship with the package."""

from __future__ import annotations

from ditzoo.zoo.card import Card, DiscreteBetas, Embedded, Pixels, Sampling, TimeInput
from ditzoo.zoo.configs import DiTConfig, UViTConfig

_DATA = "scikit-learn's handwritten digits (UCI Optical Recognition of Handwritten Digits, CC BY 4.0), 898 real 8x8 scans"

CARDS = (
    Card(
        name="dit-digits",
        summary="DiT 64/6/2 on 8x8 handwritten digits, learned variance",
        backbone=DiTConfig(input_size=8, patch_size=2, in_channels=1, hidden_size=64, depth=6, num_heads=4, num_classes=10),
        weights=Embedded(
            file="dit-digits.safetensors", sha256="6995bab250ea4d90c98ce70a7a8e65f431a4fdadb7ed097f2d2c3009f4c51538"
        ),
        schedule=DiscreteBetas(spacing="linear", start=1e-4, end=0.02),
        time=TimeInput(offset=-1.0),
        prediction="noise",
        sampling=Sampling(solver="ddpm", steps=50, guidance=1.6, guided_channels=1),
        null_label=10,
        classes="digits",
        decoder=Pixels(),
        licence="Apache-2.0",
        citation="https://arxiv.org/abs/2212.09748",
        data=_DATA,
    ),
    Card(
        name="uvit-digits",
        summary="U-ViT 64/6/2 on 8x8 handwritten digits",
        backbone=UViTConfig(img_size=8, patch_size=2, in_chans=1, embed_dim=64, depth=6, num_heads=4, num_classes=11),
        weights=Embedded(
            file="uvit-digits.safetensors", sha256="e283f3fd5e2780adee22dfbe7fb3186e4de8dd65b7bbb7d5bfa7815671fde8ae"
        ),
        schedule=DiscreteBetas(spacing="scaled_linear", start=0.00085, end=0.012),
        time=TimeInput(),
        prediction="noise",
        sampling=Sampling(solver="dpmpp", steps=20, guidance=1.4, guided_channels=1),
        null_label=10,
        classes="digits",
        decoder=Pixels(),
        licence="Apache-2.0",
        citation="https://arxiv.org/abs/2209.12152",
        data=_DATA,
    ),
)

"""LightningDiT (arXiv 2501.01423): a DiT that predicts velocity, on latents that were aligned with DINOv2."""

from __future__ import annotations

from ditzoo.zoo.card import Autoencoder, Card, File, LinearFlow, OnHub, Published, Sampling, TimeInput
from ditzoo.zoo.configs import LightningDiTConfig
from ditzoo.zoo.shared import IMAGENET_256

VA_VAE = Autoencoder(
    architecture="AutoencoderKL",
    source=OnHub(
        repo="hustvl/vavae-imagenet256-f16d32-dinov2",
        files=(File(path="vavae-imagenet256-f16d32-dinov2.pt"), File(path="latents_stats.pt")),
    ),
    scale=1.0,
    factor=16,
    statistics="latents_stats.pt",
)
"""VA-VAE, the authors' autoencoder, whose latents are aligned with a vision foundation model."""


def _card(epochs: int, *, name: str, guidance: float, fid: float) -> Card:
    stem = f"lightningdit-xl-imagenet256-{epochs}ep"
    return Card(
        name=name,
        summary=f"LightningDiT-XL/1, {epochs} epochs, on VA-VAE latents of {IMAGENET_256}",
        backbone=LightningDiTConfig(),
        weights=OnHub(repo=f"hustvl/{stem}", files=(File(path=f"{stem}.pt"),), layout="lightningdit"),
        schedule=LinearFlow(),
        time=TimeInput(scale=1.0),
        prediction="velocity",
        sampling=Sampling(
            solver="flow-euler", steps=249, guidance=guidance, guided_channels=3, guidance_times=(0.125, 1.0), shift=0.3
        ),
        null_label=1000,
        classes="imagenet",
        decoder=VA_VAE,
        licence="MIT",
        citation="https://arxiv.org/abs/2501.01423",
        data=IMAGENET_256,
        published=Published(fid=fid, settings=f"Euler ODE, 250 times shifted by 0.3, guidance {guidance} from t = 0.125 on"),
    )


CARDS = (
    _card(800, name="lightningdit-xl-1-256", guidance=6.7, fid=1.35),
    _card(64, name="lightningdit-xl-1-256-64ep", guidance=10.0, fid=2.11),
)

"""The models on DC-AE latents (arXiv 2410.10733, table 3), for images of 512x512: U-ViT, USiT and DiT.

USiT is a U-ViT that predicts velocity. The file of each repository holds the network and its autoencoder.
"""

from __future__ import annotations

import msgspec

from ditzoo.zoo.card import Autoencoder, Card, DiscreteBetas, File, LinearFlow, OnHub, Published, Sampling, Schedule, TimeInput
from ditzoo.zoo.configs import BackboneConfig, UViTConfig
from ditzoo.zoo.dit import SIZES, config
from ditzoo.zoo.shared import DCAE_F32, DCAE_F64, IMAGENET_512
from ditzoo.zoo.uvit import DISCRETE, HUGE, SMALL

_CHANNELS = {DCAE_F32.factor: 32, DCAE_F64.factor: 128}
_TWO_BILLION = UViTConfig(embed_dim=2048, depth=28, num_heads=32, conv=False)
_SIZES = {"s": msgspec.structs.replace(SMALL, conv=False), "h": HUGE, "2b": _TWO_BILLION}

DPMPP = Sampling(solver="dpmpp-fast", steps=30, guidance=1.5, guided_channels=32)


def _card(
    name: str,
    kind: str,
    repo: str,
    backbone: BackboneConfig,
    *,
    decoder: Autoencoder,
    schedule: Schedule,
    time: TimeInput,
    sampling: Sampling,
    published: Published,
) -> Card:
    return Card(
        name=name,
        summary=f"{kind} on DC-AE f{decoder.factor} latents of {IMAGENET_512}",
        backbone=backbone,
        weights=OnHub(repo=f"mit-han-lab/{repo}", revision=None, files=(File(path="model.safetensors"),), layout="dcae"),
        schedule=schedule,
        time=time,
        prediction="velocity" if isinstance(schedule, LinearFlow) else "noise",
        sampling=msgspec.structs.replace(sampling, guided_channels=backbone.latent_shape[0]),
        null_label=1000,
        classes="imagenet",
        decoder=decoder,
        licence="Apache-2.0",
        citation="https://arxiv.org/abs/2410.10733",
        data=IMAGENET_512,
        published=published,
    )


def _net(letter: str, decoder: Autoencoder) -> UViTConfig:
    side, channels = 512 // decoder.factor, _CHANNELS[decoder.factor]
    return msgspec.structs.replace(_SIZES[letter], img_size=side, patch_size=1, in_chans=channels, num_classes=1001)


def _uvit(letter: str, decoder: Autoencoder, fid: float, *, variant: str = "") -> Card:
    factor = decoder.factor
    return _card(
        f"uvit-{letter}-dcae-f{factor}-512{variant}",
        f"U-ViT-{letter.upper()}/1",
        f"dc-ae-f{factor}c{_CHANNELS[factor]}-in-1.0-uvit-{letter}-in-512px{variant}",
        _net(letter, decoder),
        decoder=decoder,
        schedule=DISCRETE,
        time=TimeInput(),
        sampling=DPMPP,
        published=Published(fid=fid, settings="DPM-Solver++ fast, 30 evaluations, guidance 1.5"),
    )


def _usit(letter: str, guidance: float, fid: float) -> Card:
    return _card(
        f"usit-{letter}-dcae-f32-512",
        f"USiT-{letter.upper()}/1",
        f"dc-ae-f32c32-in-1.0-usit-{letter}-in-512px",
        _net(letter, DCAE_F32),
        decoder=DCAE_F32,
        schedule=LinearFlow(),
        time=TimeInput(scale=1.0),
        sampling=Sampling(solver="flow-heun", steps=50, guidance=guidance, guided_channels=32),
        published=Published(fid=fid, settings=f"dopri5 ODE, guidance {guidance}"),
    )


def _dit(guidance: float, fid: float, *, variant: str = "", verified: bool = True) -> Card:
    stated = "" if verified else " (likely)"
    return _card(
        f"dit-xl-1-dcae-f32-512{variant}",
        "DiT-XL/1",
        f"dc-ae-f32c32-in-1.0-dit-xl-in-512px{variant}",
        config(SIZES["xl"], 1, side=16, channels=32),
        decoder=DCAE_F32,
        schedule=DiscreteBetas(spacing="linear", start=1e-4, end=0.02),
        time=TimeInput(offset=-1.0),
        sampling=Sampling(solver="ddpm", steps=250, guidance=guidance, guided_channels=32),
        published=Published(fid=fid, settings=f"DDPM, 250 steps, guidance {guidance}{stated}", verified=verified),
    )


CARDS = (
    _uvit("s", DCAE_F32, 18.08),
    _uvit("h", DCAE_F32, 2.53),
    _uvit("2b", DCAE_F32, 2.30),
    _uvit("h", DCAE_F64, 3.01),
    _uvit("h", DCAE_F64, 2.66, variant="-train2000k"),
    _uvit("2b", DCAE_F64, 2.47),
    _uvit("2b", DCAE_F64, 2.25, variant="-train2000k"),
    _usit("h", 1.2, 1.88),
    _usit("2b", 1.15, 1.72),
    _dit(1.3, 2.84),
    _dit(1.3, 2.41, variant="-trainbs1024", verified=False),
)

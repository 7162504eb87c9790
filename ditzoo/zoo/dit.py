"""DiT (arXiv 2212.09748): the two models that were released, and the twelve architectures of the paper."""

from __future__ import annotations

from typing import NamedTuple

from ditzoo.zoo.card import Card, DiscreteBetas, File, OnHub, Published, Sampling, TimeInput, Unreleased, Weights
from ditzoo.zoo.configs import DiTConfig
from ditzoo.zoo.shared import IMAGENET_256, IMAGENET_512, VAE_EMA


class Size(NamedTuple):
    """The width, depth and number of heads that a letter stands for in the paper (table 1)."""

    width: int
    depth: int
    heads: int


SIZES = {"s": Size(384, 12, 6), "b": Size(768, 12, 12), "l": Size(1024, 24, 16), "xl": Size(1152, 28, 16)}
PATCHES = (2, 4, 8)


def config(size: Size, patch: int, *, side: int = 32, channels: int = 4) -> DiTConfig:
    """The network of `size` with patches of `patch` x `patch`, on latents of `channels` x `side` x `side`."""
    return DiTConfig(
        input_size=side,
        patch_size=patch,
        in_channels=channels,
        hidden_size=size.width,
        depth=size.depth,
        num_heads=size.heads,
    )


def _card(name: str, backbone: DiTConfig, weights: Weights, published: Published | None, data: str) -> Card:
    released = "" if published else " (architecture; its weights were never released)"
    patch, width, depth = backbone.patch_size, backbone.hidden_size, backbone.depth
    return Card(
        name=name,
        summary=f"DiT {width}/{depth}/{patch} on latents of {data}{released}",
        backbone=backbone,
        weights=weights,
        schedule=DiscreteBetas(spacing="linear", start=1e-4, end=0.02),
        time=TimeInput(offset=-1.0),
        prediction="noise",
        sampling=Sampling(solver="ddpm", steps=250, guidance=1.5, guided_channels=3),
        null_label=1000,
        classes="imagenet",
        decoder=VAE_EMA,
        licence="CC-BY-NC-4.0",
        citation="https://arxiv.org/abs/2212.09748",
        data=data,
        published=published,
    )


def _released(repo: str, revision: str, sha256: str | None = None) -> OnHub:
    file = File(path="transformer/diffusion_pytorch_model.bin", sha256=sha256)
    return OnHub(repo=repo, revision=revision, files=(file,), layout="diffusers")


_FID_SETTINGS = "DDPM, 250 steps, guidance 1.5 on 3 channels"

CARDS = (
    _card(
        "dit-xl-2-256",
        config(SIZES["xl"], 2),
        _released(
            "facebook/DiT-XL-2-256",
            "eab87f77abd5aef071a632f08807fbaab0b704d0",
            "e592d64df5a579691e65d2b245641a00bb070b652e2c5ca775cce20a729ce9d9",
        ),
        Published(fid=2.27, settings=_FID_SETTINGS),
        IMAGENET_256,
    ),
    _card(
        "dit-xl-2-512",
        config(SIZES["xl"], 2, side=64),
        _released("facebook/DiT-XL-2-512", "101a3d462b22d64c4afdd4d0c8c59a2c0b961b99"),
        Published(fid=3.04, settings=_FID_SETTINGS),
        IMAGENET_512,
    ),
    *(
        _card(f"dit-{letter}-{patch}", config(size, patch), Unreleased(), None, IMAGENET_256)
        for letter, size in SIZES.items()
        for patch in PATCHES
    ),
)

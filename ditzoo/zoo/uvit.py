"""U-ViT (arXiv 2209.12152): the ten models of the paper. The weights are on the authors' Google Drive, not on the Hub."""

from __future__ import annotations

import msgspec

from ditzoo.zoo.card import Autoencoder, ByHand, Card, ContinuousVP, DiscreteBetas, File, Pixels, Published, Sampling, TimeInput
from ditzoo.zoo.configs import UViTConfig
from ditzoo.zoo.shared import CLIP, IMAGENET_256, IMAGENET_512, VAE_COCO, VAE_EMA, VAE_V1

SMALL = UViTConfig(embed_dim=512, depth=12, num_heads=8)
DEEP = UViTConfig(embed_dim=512, depth=16, num_heads=8)
MID = UViTConfig(embed_dim=768, depth=16, num_heads=12)
LARGE = UViTConfig(embed_dim=1024, depth=20, num_heads=16)
HUGE = UViTConfig(embed_dim=1152, depth=28, num_heads=16, conv=False)
"""The sizes in the paper (table 1). The cards add the other hyperparameters."""

DISCRETE = DiscreteBetas(spacing="scaled_linear", start=0.00085, end=0.012)
CONTINUOUS = ContinuousVP(beta_min=0.1, beta_max=20.0)

EULER = Sampling(solver="euler-maruyama", steps=1000, guidance=1.0, guided_channels=3)
FAST = Sampling(solver="dpm-fast", steps=50, guidance=1.0, guided_channels=3)
_COCO = "MS-COCO, 256x256, with captions"
_PIXEL_FID = "Euler-Maruyama SDE, 1000 steps, no guidance"
_FAST_FID = "DPM-Solver-fast, 50 evaluations"
_PLUS_FID = "DPM-Solver++ fast, 50 evaluations"


def latent(solver: str, *, w: float, channels: int = 4, steps: int = 50) -> Sampling:
    """Sampling on latents, with the guidance cond + w · (cond − uncond) on every channel. ditzoo's scale is s = 1 + w."""
    return Sampling(solver=solver, steps=steps, guidance=1 + w, guided_channels=channels)


def size(config: UViTConfig, patch: int, *, side: int, channels: int = 4, classes: int = -1) -> UViTConfig:
    """`config` for images or latents of `channels` x `side` x `side`, with patches of `patch` x `patch`.

    `classes` is the number of rows in the label table, or -1 for no labels.
    """
    return msgspec.structs.replace(config, img_size=side, patch_size=patch, in_chans=channels, num_classes=classes)


def drive(path: str, *, also: str = "") -> ByHand:
    """Weights in the Google Drive folder that the README of the authors' repository links to. `also` is another source."""
    where = "the Google Drive folder linked from https://github.com/baofff/U-ViT (section Pretrained Models)"
    return ByHand(where=where + (f", or {also}" if also else ""), file=File(path=path), layout="uvit")


def _card(
    name: str,
    backbone: UViTConfig,
    weights: ByHand,
    *,
    data: str,
    sampling: Sampling,
    published: Published,
    schedule: DiscreteBetas | ContinuousVP = CONTINUOUS,
    decoder: Pixels | Autoencoder | None = None,
) -> Card:
    labels = backbone.num_classes
    return Card(
        name=name,
        summary=f"U-ViT {backbone.embed_dim}/{backbone.depth}/{backbone.patch_size} on {data}",
        backbone=backbone,
        weights=weights,
        schedule=schedule,
        time=TimeInput(scale=1000.0 if isinstance(schedule, DiscreteBetas) else 999.0),
        prediction="noise",
        sampling=sampling,
        null_label=1000 if labels > 1000 else None,
        classes="imagenet" if labels > 0 else None,
        decoder=decoder or Pixels(),
        text=CLIP if backbone.clip_dim else None,
        licence="MIT",
        citation="https://arxiv.org/abs/2209.12152",
        data=data,
        published=published,
    )


_COCO_NET = msgspec.structs.replace(SMALL, clip_dim=768)
_COCO_DEEP_NET = msgspec.structs.replace(DEEP, clip_dim=768)

CARDS = (
    _card(
        "uvit-s-2-cifar10",
        size(SMALL, 2, side=32, channels=3),
        drive("cifar10_uvit_small.pth"),
        data="CIFAR-10, 32x32 pixels, unconditional",
        sampling=EULER,
        published=Published(fid=3.11, settings=_PIXEL_FID),
    ),
    _card(
        "uvit-s-4-celeba64",
        size(SMALL, 4, side=64, channels=3),
        drive("celeba64_uvit_small.pth"),
        data="CelebA, 64x64 pixels, unconditional",
        sampling=EULER,
        published=Published(fid=2.87, settings=_PIXEL_FID),
    ),
    _card(
        "uvit-m-4-imagenet64",
        size(MID, 4, side=64, channels=3, classes=1000),
        drive("imagenet64_uvit_mid.pth"),
        data="ImageNet-1k, 64x64 pixels",
        sampling=FAST,
        published=Published(fid=5.85, settings=f"{_FAST_FID}, no guidance"),
    ),
    _card(
        "uvit-l-4-imagenet64",
        size(LARGE, 4, side=64, channels=3, classes=1000),
        drive("imagenet64_uvit_large.pth"),
        data="ImageNet-1k, 64x64 pixels",
        sampling=FAST,
        published=Published(fid=4.26, settings=f"{_FAST_FID}, no guidance"),
    ),
    _card(
        "uvit-l-2-256",
        size(LARGE, 2, side=32, classes=1001),
        drive("imagenet256_uvit_large.pth"),
        data=IMAGENET_256,
        sampling=latent("dpm-fast", w=0.4),
        decoder=VAE_V1,
        published=Published(fid=3.40, settings=f"{_FAST_FID}, w 0.4"),
    ),
    _card(
        "uvit-h-2-256",
        size(HUGE, 2, side=32, classes=1001),
        drive("imagenet256_uvit_huge.pth", also="ModelScope thu-ml/imagenet256_uvit_huge (stated)"),
        data=IMAGENET_256,
        schedule=DISCRETE,
        sampling=latent("dpmpp-fast", w=0.4),
        decoder=VAE_EMA,
        published=Published(fid=2.29, settings=f"{_PLUS_FID}, w 0.4"),
    ),
    _card(
        "uvit-l-4-512",
        size(LARGE, 4, side=64, classes=1001),
        drive("imagenet512_uvit_large.pth"),
        data=IMAGENET_512,
        sampling=latent("dpm-fast", w=0.7),
        decoder=VAE_V1,
        published=Published(fid=4.67, settings=f"{_FAST_FID}, w 0.7"),
    ),
    _card(
        "uvit-h-4-512",
        size(HUGE, 4, side=64, classes=1001),
        drive("imagenet512_uvit_huge.pth", also="ModelScope thu-ml/imagenet512_uvit_huge (stated)"),
        data=IMAGENET_512,
        schedule=DISCRETE,
        sampling=latent("dpmpp-fast", w=0.7),
        decoder=VAE_EMA,
        published=Published(fid=4.05, settings=f"{_PLUS_FID}, w 0.7"),
    ),
    _card(
        "uvit-s-2-coco",
        size(_COCO_NET, 2, side=32),
        drive("mscoco_uvit_small.pth"),
        data=_COCO,
        schedule=DISCRETE,
        sampling=latent("dpmpp-fast", w=1.0),
        decoder=VAE_COCO,
        published=Published(fid=5.95, settings=f"{_PLUS_FID}, w 1.0", images=30_000),
    ),
    _card(
        "uvit-s-2-coco-deep",
        size(_COCO_DEEP_NET, 2, side=32),
        drive("mscoco_uvit_deep.pth"),
        data=_COCO,
        schedule=DISCRETE,
        sampling=latent("dpmpp-fast", w=1.0),
        decoder=VAE_COCO,
        published=Published(fid=5.48, settings=f"{_PLUS_FID}, w 1.0", images=30_000),
    ),
)

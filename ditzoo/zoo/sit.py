"""SiT (arXiv 2401.08740): DiT's networks, trained to predict the velocity of a straight path."""

from __future__ import annotations

from ditzoo.zoo.card import Card, File, LinearFlow, OnHub, Published, Sampling, TimeInput
from ditzoo.zoo.dit import SIZES, config
from ditzoo.zoo.shared import IMAGENET_256, VAE_EMA

_SMALL_REVISION = "9a43ddf08f80ac7f3525208ce72943e98fe98343"
_SMALL_SHA256 = "a245dc6330cd0d5906a5da00718b7d348a417d740e6b6cfeeb504e9d1448d070"


def _card(letter: str, file: File, revision: str | None = None, published: Published | None = None) -> Card:
    size = SIZES[letter]
    return Card(
        name=f"sit-{letter}-2-256",
        summary=f"SiT {size.width}/{size.depth}/2 on latents of {IMAGENET_256}",
        backbone=config(size, 2),
        weights=OnHub(repo="nyu-visionx/SiT-collections", revision=revision, files=(file,), layout="dit"),
        schedule=LinearFlow(),
        time=TimeInput(scale=1.0),
        prediction="velocity",
        sampling=Sampling(solver="flow-sde", steps=250, guidance=1.5, guided_channels=3),
        null_label=1000,
        classes="imagenet",
        decoder=VAE_EMA,
        licence="MIT",
        citation="https://arxiv.org/abs/2401.08740",
        data=IMAGENET_256,
        published=published,
    )


CARDS = (
    _card("s", File(path="SiT-S-2-256.pt", size=131_893_962, sha256=_SMALL_SHA256), revision=_SMALL_REVISION),
    _card("b", File(path="SiT-B-2-256.pt")),
    _card("l", File(path="SiT-L-2-256.pt")),
    _card(
        "xl",
        File(path="SiT-XL-2-256.pt"),
        published=Published(fid=2.06, settings="Euler-Maruyama SDE, 250 steps, guidance 1.5 (the ODE gives 2.08)"),
    ),
)

"""Prints the errors of the exports of small models against PyTorch in fp32: the table at the end of docs/export.md.

    python recipes/export_errors.py
    python recipes/export_errors.py dit-digits uvit-digits

Models other than the embedded ones get random weights. The exports are made in ditzoo's cache, or found there. This takes some
minutes on two cores.
"""

from __future__ import annotations

import argparse

import msgspec
from random_models import random_net

import ditzoo
from ditzoo.families.family import ALL
from ditzoo.nets.network import Network
from ditzoo.zoo.card import Autoencoder, Card, Embedded, Unreleased
from ditzoo.zoo.dit import SIZES
from ditzoo_export import cached_bundle, make_settings

MODELS = ("dit-digits", "uvit-digits", "dit-icons", "dit-s-2", "uvit-s-2-cifar10", "lightningdit-s-1")

SMALLER = {"lightningdit-s-1": ("lightningdit-xl-1-256", SIZES["s"])}
"""Networks that are smaller than the published ones: the card of the published model, and the size (width, depth, heads)."""
FORMS = (
    ("fp32", "tensorrt"),
    ("fp16", "tensorrt"),
    ("bf16", "tensorrt"),
    ("int8", "onnxruntime"),
    ("int8", "tensorrt"),
    ("fp8", "tensorrt"),
)
"""Every precision with its target; int8 has both targets."""


def load(name: str, *, depth: int | None = None) -> tuple[Card, Network | None]:
    """The card of a model, and a network with random weights, or None for an embedded model.

    The card of a model with random weights has no decoder. `depth` is another number of blocks for its network.
    """
    card = _smaller(name) if name in SMALLER else ditzoo.card(name)
    if isinstance(card.weights, Embedded):
        return card, None
    if isinstance(card.decoder, Autoencoder):
        card = msgspec.structs.replace(card, decoder=msgspec.structs.replace(card.decoder, source=None, statistics=None))
    if depth is not None:
        card = msgspec.structs.replace(card, backbone=msgspec.structs.replace(card.backbone, depth=depth), weights=Unreleased())
    return card, random_net(card.backbone)


def _smaller(name: str) -> Card:
    published, size = SMALLER[name]
    card = ditzoo.card(published)
    width, depth, heads = size
    backbone = msgspec.structs.replace(card.backbone, hidden_size=width, depth=depth, num_heads=heads)
    return msgspec.structs.replace(card, name=name, backbone=backbone, weights=Unreleased())


def cell(card: Card, net: Network | None, precision: str, target: str) -> str:
    """The larger error of an export on random latents and along a trajectory, and which layers are quantized if not all are."""
    manifest = cached_bundle(card, settings=make_settings(card, precision=precision, target=target), net=net).manifest
    extent = manifest.settings.get("quantized", ALL)
    worst = max(manifest.verified.random, manifest.verified.trajectory)
    return f"{worst:.1e}" + (f" ({extent})" if extent != ALL else "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the errors of exports against PyTorch in fp32.")
    parser.add_argument("models", nargs="*", default=MODELS)
    print("|", *(f"| {precision}, {target}" for precision, target in FORMS), "|")
    print("| ---" * (len(FORMS) + 1), "|", sep=" ")
    for name in parser.parse_args().models:
        card, net = load(name)
        row = [cell(card, net, precision, target) for precision, target in FORMS]
        print(f"| {name}{', random weights' if net else ''} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

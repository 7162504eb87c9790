"""diffusers' own DiT with a card's weights: the peer to compare with, which computes almost the same."""

from __future__ import annotations

import diffusers
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ditzoo import hub
from ditzoo.backends.torch import TorchBackend
from ditzoo.card import Card, DiTConfig
from ditzoo.checkpoint.diffusers import transformer_config
from ditzoo.checkpoint.layouts import to_diffusers
from ditzoo.errors import UsageError
from ditzoo.nets.dit import DiT
from ditzoo.specs import Device, Form, Precision, TensorSpec


class Peer(nn.Module):
    """`DiTTransformer2DModel` with the inputs and outputs of the network that it stands for."""

    def __init__(self, card: Card, config: DiTConfig) -> None:
        super().__init__()
        with torch.device("meta"):
            ours = DiT(config)
        self.inputs: tuple[TensorSpec, ...] = ours.inputs
        self.outputs: tuple[TensorSpec, ...] = ours.outputs
        self.net = diffusers.DiTTransformer2DModel.from_config(transformer_config(config))  # type: ignore[no-untyped-call]
        self.net.load_state_dict(dict(to_diffusers(load_file(hub.weights(card)), config.depth)), strict=True)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x [B, C, H, W], t [B], y [B] -> prediction [B, C or 2C, H, W]."""
        prediction: Tensor = self.net(x.to(self.net.dtype), timestep=t, class_labels=y).sample
        return prediction.to(x.dtype)


def open_peer(
    card: Card,
    *,
    device: Device = "cpu",
    precision: Precision = "fp32",
    form: Form | None = None,
    compiled: bool = False,
    threads: int | None = None,
) -> TorchBackend:
    """The backend of diffusers' network; raises UsageError for a model that it has no such network for."""
    config = card.backbone
    if not isinstance(config, DiTConfig):
        raise UsageError(
            f"diffusers has no such network as that of {card.name} (its UViT2DModel is another); leave diffusers out"
        )
    if config.null_label is None:
        raise UsageError(f"diffusers' DiT always has a null label, and {card.name} has none; leave diffusers out")
    net = Peer(card, config)
    return TorchBackend(
        card, library="diffusers", net=net, device=device, precision=precision, form=form, compiled=compiled, threads=threads
    )

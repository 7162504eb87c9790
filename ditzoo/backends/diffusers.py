"""diffusers' own transformer with a card's weights. It computes almost the same, so that the two can be compared."""

from __future__ import annotations

import diffusers
import torch
from safetensors.torch import load_file
from torch import Tensor

from ditzoo.backends.torch import TorchBackend
from ditzoo.errors import UsageError
from ditzoo.families import DiffusersForm, build, family_of
from ditzoo.nets.network import Network
from ditzoo.specs import Device, Form, Precision, TensorSpec
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card


class DiffusersNetwork(Network):
    """A transformer of diffusers, with the inputs and outputs of the network that it stands for."""

    def __init__(self, card: Card, form: DiffusersForm) -> None:
        super().__init__()
        with torch.device("meta"):
            ours = build(card.backbone)
        self._inputs, self._outputs = ours.inputs, ours.outputs
        self.net = getattr(diffusers, form.model).from_config(form.config(card.backbone))
        self.net.load_state_dict(dict(form.state(load_file(weights_file(card)), card.backbone)), strict=True)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Those of the network that it stands for."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Those of the network that it stands for."""
        return self._outputs

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
    """The backend of diffusers' network; raises UsageError for a model for which it has no such network."""
    theirs = family_of(card.backbone).diffusers
    if theirs is None:
        raise UsageError(f"diffusers has no network like that of {card.name}; leave diffusers out")
    if refusal := theirs.refusal(card.backbone):
        raise UsageError(f"diffusers{refusal}, and {card.name} has none; leave diffusers out")
    return TorchBackend(
        card,
        library="diffusers",
        net=DiffusersNetwork(card, theirs),
        half_precision=("net",),
        resizable=False,
        device=device,
        precision=precision,
        form=form,
        compiled=compiled,
        threads=threads,
    )

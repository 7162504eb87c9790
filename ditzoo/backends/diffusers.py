"""diffusers' own transformer with a card's weights, to be compared with the network of this package."""

from __future__ import annotations

import diffusers
import torch
from safetensors.torch import load_file
from torch import Tensor

from ditzoo.backends.options import OpenOptions
from ditzoo.backends.table import BackendRow
from ditzoo.backends.torch import TorchBackend
from ditzoo.errors import UsageError
from ditzoo.families import DiffusersForm, build, family_of
from ditzoo.nets.network import Network
from ditzoo.specs import TensorSpec
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card


class DiffusersNetwork(Network):
    """A transformer of diffusers, with the inputs and outputs of the card's own network."""

    def __init__(self, card: Card, form: DiffusersForm) -> None:
        super().__init__()
        with torch.device("meta"):
            ours = build(card.backbone)
        self._inputs, self._outputs = ours.inputs, ours.outputs
        self.net = getattr(diffusers, form.model).from_config(form.config(card.backbone))
        self.net.load_state_dict(dict(form.state(load_file(weights_file(card)), card.backbone)), strict=True)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The same as those of the card's own network."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The same as those of the card's own network."""
        return self._outputs

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x [B, C, H, W], t [B], y [B] -> prediction [B, C or 2C, H, W]."""
        prediction: Tensor = self.net(x.to(self.net.dtype), timestep=t, class_labels=y).sample
        return prediction.to(x.dtype)


def open_diffusers(row: BackendRow, card: Card, options: OpenOptions) -> TorchBackend:
    """The backend of diffusers' network; raises UsageError for a model for which diffusers has no network."""
    theirs = family_of(card.backbone).diffusers
    if theirs is None:
        raise UsageError(f"diffusers has no network like that of {card.name}; leave diffusers out")
    if refusal := theirs.refusal(card.backbone):
        raise UsageError(f"diffusers{refusal}, and {card.name} has none; leave diffusers out")
    return TorchBackend(
        card,
        library=row.name,
        net=DiffusersNetwork(card, theirs),
        half_precision=("net",),
        resizable=False,
        device=options.device,
        precision=options.precision or "fp32",
        compiled=options.compiled,
        tf32=options.tf32,
        threads=options.threads,
    )

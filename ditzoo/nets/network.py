"""The interface of all networks, and the interface of networks whose conditioning can be computed in advance."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ditzoo.specs import TensorSpec


class Network(nn.Module, ABC):
    """A denoising network. It maps latents, times and a condition to a prediction."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of `forward`, by name: latents `x`, times `t` in the network's own unit, and the condition."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The output of `forward`."""


class ConditionedNetwork(Network):
    """A network in two parts. `condition` depends on time and label, but not on the image; `denoise` does the rest.

    `forward(x, t, y)` is `denoise(x, *condition(t, y))`.
    """

    @property
    @abstractmethod
    def modulations(self) -> tuple[TensorSpec, ...]:
        """The outputs of `condition`, which are inputs of `denoise`."""

    @abstractmethod
    def condition(self, t: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """t [B], y [B] -> the modulations."""

    @abstractmethod
    def denoise(self, x: Tensor, *modulations: Tensor) -> Tensor:
        """x [B, C, H, W] and the modulations -> the prediction."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x [B, C, H, W], t [B], y [B] -> prediction [B, C or 2C, H, W]."""
        return self.denoise(x, *self.condition(t, y))


class Backbone(nn.Module):
    """The part of a network that depends on the image: its `denoise` as a module."""

    def __init__(self, net: ConditionedNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, blocks: Tensor, final: Tensor) -> Tensor:
        """Latents [B, C, H, W] and modulations -> prediction."""
        return self.net.denoise(x, blocks, final)  # B C H W

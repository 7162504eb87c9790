"""The interface of all networks, and the interface of networks whose conditioning can be computed in advance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

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


class BlockStack(NamedTuple):  # torch.compile reads a tuple, but no msgspec struct
    """An evaluation of a network whose blocks have not run yet.

    `tokens` [B, T, D] are the input of the first block. `run(tokens, places)` runs the blocks at these places, counted from 0
    to `depth` - 1, and returns the tokens after the last of them. A network with long skips keeps them between the calls, so
    the places must increase from call to call. `finish` makes the prediction [B, C, H, W] from the tokens after the last block.
    """

    depth: int
    tokens: Tensor
    run: Callable[[Tensor, range], Tensor]
    finish: Callable[[Tensor], Tensor]


class BlockNetwork(Network):
    """A network that is a stack of blocks. Its middle blocks can be left out: see `ditzoo.nets.reuse`."""

    @abstractmethod
    def residual(self, height: int, width: int) -> TensorSpec:
        """The spec of a residual [B, T, D] of blocks, for latents of this size. Its name is `RESIDUAL`."""

    @abstractmethod
    def stack(self, x: Tensor, *rest: Tensor) -> BlockStack:
        """The blocks for latents `x` [B, C, H, W], and the other inputs of the part of the network that has the blocks.

        For a network in two parts, these are the modulations; for any other network, they are the time and the condition.
        """


class ConditionedNetwork(BlockNetwork):
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

    def denoise(self, x: Tensor, *modulations: Tensor) -> Tensor:
        """x [B, C, H, W] and the modulations -> the prediction."""
        return run_all(self.stack(x, *modulations))  # B C H W

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x [B, C, H, W], t [B], y [B] -> prediction [B, C or 2C, H, W]."""
        return self.denoise(x, *self.condition(t, y))


def run_all(stack: BlockStack) -> Tensor:
    """The prediction [B, C, H, W] of an evaluation that runs every block."""
    return stack.finish(stack.run(stack.tokens, range(stack.depth)))


class Backbone(nn.Module):
    """The part of a network that depends on the image: its `denoise` as a module."""

    def __init__(self, net: ConditionedNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, blocks: Tensor, final: Tensor) -> Tensor:
        """Latents [B, C, H, W] and modulations -> prediction."""
        return self.net.denoise(x, blocks, final)  # B C H W

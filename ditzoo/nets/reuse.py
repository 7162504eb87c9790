"""Reuse of the middle blocks: an evaluation takes what they added to the tokens from an earlier evaluation.

Neighbouring evaluations of a sampling run do nearly the same in the middle blocks. Let h[i](t) be the tokens before block i of
`depth` blocks, in the evaluation at time t. A full evaluation at time s also gives the residual of its middle blocks,

    r(s) = h[depth − k](s) − h[k](s),

and an evaluation with reuse at a later time t runs the first k blocks and the last k blocks only, with

    h[depth − k](t) = h[k](t) + r(s).

Nothing is learned. Δ-DiT (arXiv 2406.01125, section 4) keeps such a residual of the middle blocks of a DiT. FORA (arXiv
2407.01425) keeps the outputs of all layers, with a full evaluation every N steps. DeepCache (arXiv 2312.00858) leaves out the
inner blocks of a U-Net, which keeps its outer skips.
"""

from __future__ import annotations

from torch import Tensor, nn

from ditzoo.nets.network import BlockNetwork, BlockStack, ConditionedNetwork


def with_residual(stack: BlockStack, outer: int) -> tuple[Tensor, Tensor]:
    """A full evaluation: the prediction [B, C, H, W], and the residual of the middle blocks [B, T, D].

    The middle blocks are all blocks but the first `outer` and the last `outer`.
    """
    before = stack.run(stack.tokens, range(outer))  # B T D
    after = stack.run(before, range(outer, stack.depth - outer))  # B T D
    last = stack.run(after, range(stack.depth - outer, stack.depth))  # B T D
    return stack.finish(last), after - before


def with_reuse(stack: BlockStack, outer: int, residual: Tensor) -> Tensor:
    """An evaluation that runs the first `outer` and the last `outer` blocks, and adds `residual` [B, T, D] between them."""
    before = stack.run(stack.tokens, range(outer))  # B T D
    last = stack.run(before + residual, range(stack.depth - outer, stack.depth))  # B T D
    return stack.finish(last)  # B C H W


class Outer(nn.Module):
    """A network that gives the residual of its middle blocks, or takes one: see the equation of this module.

    Its inputs are those of the network: times and a condition, not modulations.
    """

    def __init__(self, net: BlockNetwork, outer: int) -> None:
        super().__init__()
        self.net, self.outer = net, outer

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | None = None,
        context: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """x [B, C, H, W], t [B], the condition -> prediction [B, C, H, W], and without a `residual` that of this evaluation."""
        rest = (t, *(value for value in (y, context) if value is not None))
        return run_outer(self.net.stack(x, *conditions(self.net, *rest)), self.outer, residual)


class OuterBackbone(nn.Module):
    """The same as `Outer` for the part of a network that depends on the image. It takes modulations."""

    def __init__(self, net: BlockNetwork, outer: int) -> None:
        super().__init__()
        self.net, self.outer = net, outer

    def forward(
        self, x: Tensor, blocks: Tensor, final: Tensor, residual: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Latents and modulations -> prediction [B, C, H, W], and without a `residual` that of this evaluation."""
        return run_outer(self.net.stack(x, blocks, final), self.outer, residual)


def conditions(net: BlockNetwork, t: Tensor, *condition: Tensor) -> tuple[Tensor, ...]:
    """The inputs of `net.stack` beside the latents, for times [B] and a condition."""
    return net.condition(t, *condition) if isinstance(net, ConditionedNetwork) else (t, *condition)


def run_outer(stack: BlockStack, outer: int, residual: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    """An evaluation with reuse of `residual`; without it, a full evaluation, which gives the residual too."""
    return with_residual(stack, outer) if residual is None else with_reuse(stack, outer, residual)

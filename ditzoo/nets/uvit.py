"""U-ViT: "All are Worth Words: A ViT Backbone for Diffusion Models", arXiv 2209.12152 (figure 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ditzoo.errors import InputError
from ditzoo.nets.layers import Attention, Mlp, PatchEmbed, embedding, in_own_dtype, timestep_embedding, unpatchify
from ditzoo.nets.network import BlockNetwork, BlockStack, run_all
from ditzoo.specs import RESIDUAL, TensorSpec
from ditzoo.zoo.configs import UViTConfig


class Block(nn.Module):
    """A pre-norm transformer block. In the second half of the network, it first merges the long skip connection."""

    def __init__(self, config: UViTConfig, *, skip: bool) -> None:
        super().__init__()
        width = config.embed_dim
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, config.num_heads, qkv_bias=config.qkv_bias)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * config.mlp_ratio), approximate="none")
        self.skip_linear = nn.Linear(2 * width, width) if skip else None

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if self.skip_linear is not None and skip is not None:
            x = in_own_dtype(self.skip_linear, torch.cat([x, skip], dim=2))  # B T 2·D -> B T D
        x = x + in_own_dtype(self.attn, self.norm1(x))  # B T D
        return x + in_own_dtype(self.mlp, self.norm2(x))  # B T D


class UViT(BlockNetwork):
    """The U-shaped vision transformer: time, condition and patches are all tokens. Its keys are those of the authors' code."""

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.config = config
        width, side = config.embed_dim, config.img_size // config.patch_size
        self.grid = (side, side)
        self.patch_embed = PatchEmbed(config.in_chans, config.patch_size, width)
        self.time_embed = _time_embed(width) if config.mlp_time_embed else nn.Identity()
        if config.num_classes > 0:
            self.label_emb = embedding(config.num_classes, width)
        if config.clip_dim is not None:
            self.context_embed = nn.Linear(config.clip_dim, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.extra_tokens + side * side, width))
        self.in_blocks = nn.ModuleList(Block(config, skip=False) for _ in range(config.depth // 2))
        self.mid_block = Block(config, skip=False)
        self.out_blocks = nn.ModuleList(Block(config, skip=config.skip) for _ in range(config.depth // 2))
        self.norm = nn.LayerNorm(width)
        self.decoder_pred = nn.Linear(width, config.patch_size**2 * config.in_chans)
        self.final_layer = nn.Conv2d(config.in_chans, config.in_chans, 3, padding=1) if config.conv else nn.Identity()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Latents, times (in the network's own unit), and labels `y` or text tokens `context` if the network takes them."""
        channels, _, _ = self.config.latent_shape
        rows, columns = self.grid
        size = rows * self.config.patch_size, columns * self.config.patch_size
        specs = [TensorSpec(name="x", shape=("batch", channels, *size)), TensorSpec(name="t", shape=("batch",))]
        if self.config.num_classes > 0:
            specs.append(TensorSpec(name="y", shape=("batch",), dtype="int64"))
        if self.config.clip_dim is not None:
            shape = ("batch", self.config.num_clip_token, self.config.clip_dim)
            specs.append(TensorSpec(name="context", shape=shape))
        return tuple(specs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The prediction. It has the shape of the latents."""
        return (TensorSpec(name="prediction", shape=self.inputs[0].shape),)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], t [B], and y [B] or context [B, tokens, clip_dim] -> prediction [B, C, H, W]."""
        return run_all(self.stack(x, t, *(value for value in (y, context) if value is not None)))

    def residual(self, height: int, width: int) -> TensorSpec:
        """See `BlockNetwork`. Time and condition are tokens too."""
        return TensorSpec(name=RESIDUAL, shape=("batch", *self.pos_embed.shape[1:]))

    def stack(self, x: Tensor, *rest: Tensor) -> BlockStack:
        """See `BlockNetwork`. The inputs beside `x` [B, C, H, W] are `t` [B], and labels [B] or text tokens, if it takes them.

        Block i of the first half gives its output to block depth − 1 − i. So the first k blocks and the last k blocks have
        their long skips among themselves, whether or not the blocks between them run.
        """
        patch, (rows, columns) = self.config.patch_size, self.grid
        self._check_size(x)
        extra = self._extra_tokens(*rest)
        dtype, patches = x.dtype, self.patch_embed(x.to(self.pos_embed.dtype))  # B h·w D
        blocks = [*self.in_blocks, self.mid_block, *self.out_blocks]
        half, skips = len(self.in_blocks), list[Tensor]()

        def run(tokens: Tensor, numbers: range) -> Tensor:
            for i in numbers:
                tokens = blocks[i](tokens, *([skips.pop()] if i > half else []))  # B T D
                if i < half:
                    skips.append(tokens)
            return tokens

        def finish(tokens: Tensor) -> Tensor:
            patches = self.decoder_pred(self.norm(tokens))[:, self.config.extra_tokens :]  # B h·w p·p·C
            return self.final_layer(unpatchify(patches, rows, columns, patch)).to(dtype)  # B C H W

        tokens = torch.cat([*extra, patches], dim=1) + self.pos_embed  # B T D
        return BlockStack(depth=len(blocks), tokens=tokens, run=run, finish=finish)

    def interpolate_positions(self, height: int, width: int) -> None:
        """Interpolates the learned positions (bicubic), so that the network takes latents of `height` x `width`.

        The paper does not change the resolution. This is for fine-tuning and experiments. It changes the network in place.
        Raises InputError if the patch size does not divide height and width.
        """
        patch, extra = self.config.patch_size, self.config.extra_tokens
        if height % patch or width % patch:
            raise InputError(f"a latent of {height}x{width} is not a multiple of the patch size {patch}")
        tokens, patches = self.pos_embed.detach().split([extra, self.pos_embed.shape[1] - extra], dim=1)  # 1 T D
        image = patches.transpose(1, 2).unflatten(2, self.grid)  # 1 D h w
        self.grid = (height // patch, width // patch)
        image = F.interpolate(image, size=self.grid, mode="bicubic")  # 1 D h w
        self.pos_embed = nn.Parameter(torch.cat([tokens, image.flatten(2).transpose(1, 2)], dim=1))  # 1 T D

    def _extra_tokens(self, t: Tensor, *condition: Tensor) -> list[Tensor]:
        sinusoids = timestep_embedding(t, self.config.embed_dim).to(self.pos_embed.dtype)  # B D
        time = self.time_embed(sinusoids)[:, None]  # B 1 D
        if self.config.clip_dim is not None:
            return [time, self.context_embed(_given("context", *condition).to(time.dtype))]  # B 1 D, B tokens D
        if self.config.num_classes > 0:
            return [self.label_emb(_given("y", *condition))[:, None], time]  # each: B 1 D
        return [time]

    def _check_size(self, x: Tensor) -> None:
        patch = self.config.patch_size
        height, width = self.grid[0] * patch, self.grid[1] * patch
        if x.shape[2] != height or x.shape[3] != width:
            raise InputError(
                f"this U-ViT learned positions for {height}x{width} latents, not {x.shape[2]}x{x.shape[3]};"
                f" to interpolate them, call interpolate_positions({x.shape[2]}, {x.shape[3]}) first"
            )


def _time_embed(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))


def _given(name: str, *condition: Tensor) -> Tensor:
    if not condition:
        raise InputError(f"this U-ViT is conditional: it takes the input {name}")
    return condition[0]

"""The hyperparameters of the networks, one record for each family.

All records have the same properties, which `AdaLNConfig` documents. So other code does not depend on the family.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from ditzoo.records import Data
from ditzoo.zoo.bounds import (
    LARGEST_CHANNELS,
    LARGEST_DEPTH,
    LARGEST_SIZE,
    LARGEST_WIDTH,
    MOST_FIXED,
    MOST_ROWS,
    check_at_most,
    check_between,
)


class AdaLNConfig(Data, frozen=True, kw_only=True):
    """The hyperparameters that DiT and LightningDiT share. In both, time and label modulate the norms.

    If `class_dropout_prob` is above 0, the label table has one more row, `num_classes`, for the null label. Raises ValueError
    if hyperparameters contradict each other.
    """

    splits: ClassVar[bool] = True
    """Whether part of the network depends on time and label alone, so that it can be a graph of its own."""

    resizable: ClassVar[bool] = True
    """Whether the network takes latents of another size than in training."""

    text_shape: ClassVar[tuple[int, int] | None] = None
    """The number and the width of the text tokens that the network takes. None if it takes no text."""

    input_size: int = 32
    patch_size: int = 2
    in_channels: int = 4
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    num_classes: int = 1000
    learn_sigma: bool = True

    def __post_init__(self) -> None:
        _check_geometry(self.input_size, self.patch_size, self.hidden_size, self.num_heads)
        _check_counts(self.depth, self.in_channels, self.mlp_ratio)
        if self.hidden_size % 4:
            raise ValueError(f"the width must be a multiple of 4 for the fixed positions, not {self.hidden_size}")
        if self.num_classes < 1:
            raise ValueError(f"num_classes is {self.num_classes}, but a DiT has a label table: at least 1 class")
        check_at_most("num_classes", self.num_classes, MOST_ROWS)
        if not 0 <= self.class_dropout_prob <= 1:
            raise ValueError(f"class_dropout_prob is {self.class_dropout_prob}, but it must be between 0 and 1")
        _check_mlp(self.mlp_width)
        check_at_most("the number of values in the fixed positions", self.fixed_parameters, MOST_FIXED)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of the network's input: latents, or pixels."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def null_label(self) -> int | None:
        """The label for "no class", which guidance needs; None if the label table has no row for it."""
        return self.num_classes if self.class_dropout_prob > 0 else None

    @property
    def label_rows(self) -> int:
        """The number of rows in the label table, including that of the null label; 0 if there is no table."""
        return self.num_classes + (self.null_label is not None)

    @property
    def learns_variance(self) -> bool:
        """Whether the output has a second half of channels, for the variance (arXiv 2102.09672, eq. 15)."""
        return self.learn_sigma

    @property
    def blocks(self) -> int:
        """The number of transformer blocks that an evaluation runs, one after the other."""
        return self.depth

    @property
    def tokens(self) -> int:
        """The number of patches in an image."""
        return (self.input_size // self.patch_size) ** 2

    @property
    def mlp_width(self) -> int:
        """The width of an MLP's hidden layer."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def modulation_vectors(self) -> int:
        """The number of vectors that modulate a block: shift, scale and gate, for attention and for the MLP."""
        return 6

    @property
    def fixed_parameters(self) -> int:
        """The number of parameters in a checkpoint that are computed, not learned: the positions."""
        return self.tokens * self.hidden_size

    @property
    def norm_parameters(self) -> int:
        """The number of parameters of a norm."""
        return 0

    @property
    def mlp_parameters(self) -> int:
        """The number of parameters of an MLP."""
        return _linear(self.hidden_size, self.mlp_width) + _linear(self.mlp_width, self.hidden_size)

    @property
    def attention_parameters(self) -> int:
        """The number of parameters of an attention layer."""
        return _linear(self.hidden_size, 4 * self.hidden_size)

    @property
    def parameters(self) -> int:
        """The number of parameters in a checkpoint of the network, including the fixed positions."""
        width, patch = self.hidden_size, self.patch_size**2 * self.in_channels
        time = _linear(256, width) + _linear(width, width)
        modulation = _linear(width, self.modulation_vectors * width)
        block = self.attention_parameters + self.mlp_parameters + modulation + 2 * self.norm_parameters
        final = _linear(width, patch * (2 if self.learn_sigma else 1)) + _linear(width, 2 * width) + self.norm_parameters
        return _linear(patch, width) + time + self.label_rows * width + self.fixed_parameters + self.depth * block + final

    def classes(self, *, null_label: int | None) -> int:
        """The number of classes without the null label; 0 for a network without labels."""
        return self.num_classes


class DiTConfig(AdaLNConfig, frozen=True, kw_only=True, tag_field="kind", tag="dit"):
    """The hyperparameters of a DiT, named as in its authors' code (arXiv 2212.09748, table 1)."""

    names: ClassVar[dict[str, str]] = {"noise": "dit", "velocity": "sit"}
    """The name of the family for each kind of prediction."""


class LightningDiTConfig(AdaLNConfig, frozen=True, kw_only=True, tag_field="kind", tag="lightningdit"):
    """The hyperparameters of a LightningDiT, named as in its authors' code (arXiv 2501.01423, section 4.2).

    `use_rope` adds rotary positions to the fixed ones. `wo_shift` leaves the shift out of the modulation of the blocks.
    """

    names: ClassVar[dict[str, str]] = {"noise": "lightningdit", "velocity": "lightningdit"}

    input_size: int = 16
    patch_size: int = 1
    in_channels: int = 32
    learn_sigma: bool = False
    use_qknorm: bool = False
    use_swiglu: bool = True
    use_rope: bool = True
    use_rmsnorm: bool = True
    wo_shift: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_rope and self.head_width % 4:
            raise ValueError(f"rotary positions need heads whose width is a multiple of 4, not {self.head_width}")

    @property
    def head_width(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def mlp_width(self) -> int:
        """The width of an MLP's hidden layer. In a gated MLP it is two thirds of that, and there are as many gates."""
        hidden = int(self.hidden_size * self.mlp_ratio)
        return int(2 / 3 * hidden) if self.use_swiglu else hidden

    @property
    def modulation_vectors(self) -> int:
        """The number of vectors that modulate a block: scale, gate, and shift unless `wo_shift`, for attention and the MLP."""
        return 4 if self.wo_shift else 6

    @property
    def fixed_parameters(self) -> int:
        """The number of parameters in a checkpoint that are computed, not learned: the positions.

        Rotary positions are cosines and sines.
        """
        return self.tokens * (self.hidden_size + (2 * self.head_width if self.use_rope else 0))

    @property
    def norm_parameters(self) -> int:
        """The number of parameters of a norm."""
        return self.hidden_size if self.use_rmsnorm else 0

    @property
    def mlp_parameters(self) -> int:
        """The number of parameters of an MLP."""
        inner = 2 * self.mlp_width if self.use_swiglu else self.mlp_width
        return _linear(self.hidden_size, inner) + _linear(self.mlp_width, self.hidden_size)

    @property
    def attention_parameters(self) -> int:
        """The number of parameters of an attention layer, including the norms of queries and keys.

        Such a norm has a weight. It also has a bias, unless it is an RMSNorm.
        """
        norm = self.head_width * (1 if self.use_rmsnorm else 2)
        return _linear(self.hidden_size, 4 * self.hidden_size) + (2 * norm if self.use_qknorm else 0)


class UViTConfig(Data, frozen=True, kw_only=True, tag_field="kind", tag="uvit"):
    """The hyperparameters of a U-ViT, named as in its authors' code (arXiv 2209.12152, table 1).

    `num_classes` is the number of rows in the label table, including that of the null label; -1 means no labels. `clip_dim` is
    the width of the text tokens of a text-conditioned network, and None for any other network. Raises ValueError if
    hyperparameters contradict each other.
    """

    names: ClassVar[dict[str, str]] = {"noise": "uvit", "velocity": "usit"}
    splits: ClassVar[bool] = False
    resizable: ClassVar[bool] = False
    learns_variance: ClassVar[bool] = False
    fixed_parameters: ClassVar[int] = 0
    """See `AdaLNConfig`, also for the properties below."""

    img_size: int = 32
    patch_size: int = 2
    in_chans: int = 4
    embed_dim: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    mlp_time_embed: bool = False
    num_classes: int = -1
    conv: bool = True
    skip: bool = True
    clip_dim: int | None = None
    num_clip_token: int = 77

    def __post_init__(self) -> None:
        _check_geometry(self.img_size, self.patch_size, self.embed_dim, self.num_heads)
        _check_counts(self.depth, self.in_chans, self.mlp_ratio)
        _check_mlp(int(self.embed_dim * self.mlp_ratio))
        check_at_most("num_classes", self.num_classes, MOST_ROWS)
        if self.num_classes < 1 and self.num_classes != -1:
            raise ValueError(
                f"num_classes is {self.num_classes}, but it must be the number of rows in the label table, or -1 for no labels"
            )
        if self.clip_dim is not None and self.num_classes > 0:
            raise ValueError("a U-ViT takes labels (num_classes) or text (clip_dim), not both")
        if self.clip_dim is not None:
            check_between("clip_dim", self.clip_dim, 1, LARGEST_WIDTH)
        check_between("num_clip_token", self.num_clip_token, 1, LARGEST_WIDTH)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """The channels, height and width of the network's input: latents, or pixels."""
        return self.in_chans, self.img_size, self.img_size

    @property
    def text_shape(self) -> tuple[int, int] | None:
        """The number and the width of the text tokens that the network takes. None if it takes no text."""
        return None if self.clip_dim is None else (self.num_clip_token, self.clip_dim)

    @property
    def blocks(self) -> int:
        """The number of transformer blocks that an evaluation runs: two halves of the depth, and one between them."""
        return 2 * (self.depth // 2) + 1

    @property
    def extra_tokens(self) -> int:
        """The number of tokens before the patches: time, and the label or the text."""
        return 1 + (self.num_clip_token if self.clip_dim is not None else int(self.num_classes > 0))

    @property
    def label_rows(self) -> int:
        """The number of rows in the label table, including that of the null label; 0 if there is no table."""
        return max(0, self.num_classes)

    def classes(self, *, null_label: int | None) -> int:
        """The number of classes without the null label; 0 for a network without labels."""
        return max(0, self.num_classes - (null_label is not None))

    @property
    def parameters(self) -> int:
        """The number of parameters in a checkpoint of the network."""
        width, patch, chans = self.embed_dim, self.patch_size**2 * self.in_chans, self.in_chans
        hidden, tokens = int(width * self.mlp_ratio), (self.img_size // self.patch_size) ** 2 + self.extra_tokens
        attention = _linear(width, 3 * width) - (0 if self.qkv_bias else 3 * width) + _linear(width, width)
        block = attention + _linear(width, hidden) + _linear(hidden, width) + 4 * width
        blocks = (2 * (self.depth // 2) + 1) * block + (self.depth // 2 * _linear(2 * width, width) if self.skip else 0)
        time = _linear(width, 4 * width) + _linear(4 * width, width) if self.mlp_time_embed else 0
        condition = max(self.num_classes, 0) * width + (0 if self.clip_dim is None else _linear(self.clip_dim, width))
        final = 2 * width + _linear(width, patch) + (_linear(9 * chans, chans) if self.conv else 0)
        return _linear(patch, width) + time + condition + tokens * width + blocks + final


BackboneConfig: TypeAlias = DiTConfig | LightningDiTConfig | UViTConfig


def _linear(inputs: int, outputs: int) -> int:
    """The number of parameters of a linear layer with a bias."""
    return (inputs + 1) * outputs


def _check_mlp(width: int) -> None:
    if width < 1:
        raise ValueError("mlp_ratio is so small that the MLPs have no hidden layer")


def _check_geometry(size: int, patch: int, width: int, heads: int) -> None:
    if min(size, patch, width, heads) < 1:
        raise ValueError(f"size {size}, patch {patch}, width {width} and heads {heads} must all be positive")
    check_at_most("size", size, LARGEST_SIZE)
    check_at_most("width", width, LARGEST_WIDTH)
    if size % patch:
        raise ValueError(f"size {size} is not a multiple of the patch size {patch}")
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of the number of heads {heads}")


def _check_counts(depth: int, channels: int, ratio: float) -> None:
    if min(depth, channels) < 1 or not 0 < ratio < 1000:
        raise ValueError(f"depth {depth}, channels {channels} and mlp_ratio {ratio} must all be positive")
    check_at_most("depth", depth, LARGEST_DEPTH)
    check_at_most("channels", channels, LARGEST_CHANNELS)

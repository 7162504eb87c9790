"""A card: everything that makes a model itself, as data. Where two models differ, a field differs."""

from __future__ import annotations

from typing import Literal, TypeAlias

from ditzoo.errors import UsageError
from ditzoo.specs import Data


class DiTConfig(Data, frozen=True, kw_only=True, tag_field="kind", tag="dit"):
    """The hyperparameters of a DiT, named as in its authors' code (arXiv 2212.09748, table 1).

    `class_dropout_prob` above 0 adds the null label, number `num_classes`, to the label table.
    """

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

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network denoises."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def null_label(self) -> int | None:
        """The label that means "no class", which guidance needs; None where the table has none."""
        return self.num_classes if self.class_dropout_prob > 0 else None


class UViTConfig(Data, frozen=True, kw_only=True, tag_field="kind", tag="uvit"):
    """The hyperparameters of a U-ViT, named as in its authors' code (arXiv 2209.12152, table 1).

    `num_classes` counts the rows of the label table, the null label's included; -1 means no labels. `clip_dim` is the
    width of the text tokens of a text-conditioned network, None for any other.
    """

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
        if self.clip_dim is not None and self.num_classes > 0:
            raise ValueError("a U-ViT takes labels (num_classes) or text (clip_dim), not both")

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what the network denoises."""
        return self.in_chans, self.img_size, self.img_size

    @property
    def extra_tokens(self) -> int:
        """How many tokens stand before the patches: time, and the label or the text."""
        return 1 + (self.num_clip_token if self.clip_dim is not None else int(self.num_classes > 0))


BackboneConfig: TypeAlias = DiTConfig | UViTConfig


def _check_geometry(size: int, patch: int, width: int, heads: int) -> None:
    if min(size, patch, width, heads) < 1:
        raise ValueError(f"size {size}, patch {patch}, width {width} and heads {heads} must all be positive")
    if size % patch:
        raise ValueError(f"size {size} is no multiple of the patch size {patch}")
    if width % heads:
        raise ValueError(f"width {width} is no multiple of the number of heads {heads}")


class DiscreteBetas(Data, frozen=True, kw_only=True):
    """A variance-preserving noise schedule of `steps` betas (DDPM, arXiv 2006.11239, section 4).

    `spacing` "linear": equal steps in beta. "scaled_linear": equal steps in the square root of beta.
    """

    spacing: Literal["linear", "scaled_linear"]
    start: float
    end: float
    steps: int = 1000


class TimeInput(Data, frozen=True, kw_only=True):
    """How time reaches the network: step n of the schedule's N (0 is clean) enters as scale · n/N + offset."""

    scale: float = 1000.0
    offset: float = 0.0


class Sampling(Data, frozen=True, kw_only=True):
    """What a model is sampled with unless something else is asked for.

    `guidance` is s in uncond + s · (cond − uncond) (arXiv 2207.12598); `guided_channels` counts the channels it acts on, from
    the first; the others are the conditional prediction's.
    """

    solver: str
    steps: int
    guidance: float
    guided_channels: int


class Embedded(Data, frozen=True, kw_only=True, tag_field="kind", tag="embedded"):
    """Weights that ship inside the package: a safetensors file of `ditzoo/assets`, and its checksum."""

    file: str
    sha256: str


class Pixels(Data, frozen=True, kw_only=True, tag_field="kind", tag="pixels"):
    """No decoder: the network denoises pixels in −1 ... 1."""


class Card(Data, frozen=True, kw_only=True):
    """One model: its network, its weights, and the conventions it was trained under."""

    name: str
    summary: str
    backbone: BackboneConfig
    weights: Embedded
    schedule: DiscreteBetas
    time: TimeInput
    prediction: Literal["noise"]
    sampling: Sampling
    null_label: int | None
    classes: tuple[str, ...]
    decoder: Pixels
    licence: str
    data: str

    @property
    def learns_variance(self) -> bool:
        """Whether the network's second half of channels is the variance of DDPM's reverse step (arXiv 2102.09672, eq. 15)."""
        return isinstance(self.backbone, DiTConfig) and self.backbone.learn_sigma

    def check_class(self, number: int) -> int:
        """`number` itself, if the model has that class; raises UsageError otherwise."""
        if not 0 <= number < len(self.classes):
            raise UsageError(f"class {number} is out of range; {self.name} knows 0 to {len(self.classes) - 1}")
        return number

"""A card: everything that makes a model itself, as data. Where two models differ, a field differs."""

from __future__ import annotations

import re
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

    @property
    def parameters(self) -> int:
        """How many numbers a checkpoint of the network holds, the fixed positions included."""
        width, patch = self.hidden_size, self.patch_size
        hidden, tokens = int(width * self.mlp_ratio), (self.input_size // patch) ** 2
        out = patch**2 * self.in_channels * (2 if self.learn_sigma else 1)
        labels = self.num_classes + (self.null_label is not None)
        time = _linear(256, width) + _linear(width, width)
        block = _linear(width, 10 * width) + _linear(width, hidden) + _linear(hidden, width)
        final = _linear(width, out) + _linear(width, 2 * width)
        return _linear(patch**2 * self.in_channels, width) + time + (labels + tokens) * width + self.depth * block + final


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

    @property
    def parameters(self) -> int:
        """How many numbers a checkpoint of the network holds."""
        width, patch, chans = self.embed_dim, self.patch_size**2 * self.in_chans, self.in_chans
        hidden, tokens = int(width * self.mlp_ratio), (self.img_size // self.patch_size) ** 2 + self.extra_tokens
        attention = _linear(width, 3 * width) - (0 if self.qkv_bias else 3 * width) + _linear(width, width)
        block = attention + _linear(width, hidden) + _linear(hidden, width) + 4 * width
        blocks = (2 * (self.depth // 2) + 1) * block + (self.depth // 2 * _linear(2 * width, width) if self.skip else 0)
        time = _linear(width, 4 * width) + _linear(4 * width, width) if self.mlp_time_embed else 0
        condition = max(self.num_classes, 0) * width + (0 if self.clip_dim is None else _linear(self.clip_dim, width))
        final = 2 * width + _linear(width, patch) + (_linear(9 * chans, chans) if self.conv else 0)
        return _linear(patch, width) + time + condition + tokens * width + blocks + final


BackboneConfig: TypeAlias = DiTConfig | UViTConfig


def _linear(inputs: int, outputs: int) -> int:
    """The numbers in a linear map with a bias."""
    return (inputs + 1) * outputs


def _check_geometry(size: int, patch: int, width: int, heads: int) -> None:
    if min(size, patch, width, heads) < 1:
        raise ValueError(f"size {size}, patch {patch}, width {width} and heads {heads} must all be positive")
    if size % patch:
        raise ValueError(f"size {size} is no multiple of the patch size {patch}")
    if width % heads:
        raise ValueError(f"width {width} is no multiple of the number of heads {heads}")


class DiscreteBetas(Data, frozen=True, kw_only=True, tag_field="kind", tag="discrete_betas"):
    """A variance-preserving noise schedule of `steps` betas (DDPM, arXiv 2006.11239, section 4).

    `spacing` "linear": equal steps in beta. "scaled_linear": equal steps in the square root of beta.
    """

    spacing: Literal["linear", "scaled_linear"]
    start: float
    end: float
    steps: int = 1000


class ContinuousVP(Data, frozen=True, kw_only=True, tag_field="kind", tag="continuous_vp"):
    """The variance-preserving SDE, beta(t) linear from `beta_min` to `beta_max` over t = 0 ... 1 (arXiv 2011.13456, eq. 32)."""

    beta_min: float = 0.1
    beta_max: float = 20.0


class LinearFlow(Data, frozen=True, kw_only=True, tag_field="kind", tag="linear_flow"):
    """The straight path x = t · image + (1 − t) · noise with velocity image − noise (SiT, arXiv 2401.08740, section 2)."""


Schedule: TypeAlias = DiscreteBetas | ContinuousVP | LinearFlow


class TimeInput(Data, frozen=True, kw_only=True):
    """How time reaches the network: t enters as scale · t + offset.

    On `DiscreteBetas` step n of N is t = n / N, and 0 is clean; on `ContinuousVP` 0 is clean; on `LinearFlow` 1 is.
    """

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


class File(Data, frozen=True, kw_only=True):
    """A file, by its path in a repository, with what is known of it. None: not known beforehand."""

    path: str
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        if not self.path or self.path.startswith("/") or "\\" in self.path or ".." in self.path.split("/"):
            raise ValueError(f"the path {self.path!r} leads out of its repository")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"the sha256 of {self.path} must be 64 hexadecimal digits, not {self.sha256!r}")


Layout: TypeAlias = Literal["dit", "diffusers", "uvit", "dcae"]
"""How the keys of a checkpoint are named: see `ditzoo.checkpoint.layouts`."""


class Embedded(Data, frozen=True, kw_only=True, tag_field="kind", tag="embedded"):
    """Weights that ship inside the package: a safetensors file of `ditzoo/assets`, and its checksum."""

    file: str
    sha256: str


class OnHub(Data, frozen=True, kw_only=True, tag_field="kind", tag="hub"):
    """Files in a repository of the Hugging Face Hub. For weights the first is the checkpoint, or the index of its shards.

    `revision` is a commit (40 hex digits), or None: then the newest is resolved on the first pull and kept from then on.
    `verified` is False where repository, revision, names or checksums are stated by others and were not confirmed.
    """

    repo: str
    revision: str | None = None
    files: tuple[File, ...]
    layout: Layout | None = None
    verified: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.repo):
            raise ValueError(f"{self.repo!r} is no repository of the Hub; write OWNER/REPO")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"the revision {self.revision!r} is not a commit of 40 hexadecimal digits")


class ByHand(Data, frozen=True, kw_only=True, tag_field="kind", tag="by_hand"):
    """Weights that have to be fetched by hand: `where` says from where; `ditzoo import` takes the file in."""

    where: str
    file: File
    layout: Layout | None = None
    verified: bool = False


class Unreleased(Data, frozen=True, kw_only=True, tag_field="kind", tag="unreleased"):
    """An architecture whose weights were never published: for the user's own checkpoints."""


Weights: TypeAlias = Embedded | OnHub | ByHand | Unreleased


class Pixels(Data, frozen=True, kw_only=True, tag_field="kind", tag="pixels"):
    """No decoder: the network denoises pixels in −1 ... 1."""


class Autoencoder(Data, frozen=True, kw_only=True, tag_field="kind", tag="autoencoder"):
    """A decoder of latents: image = decoder(latent / `scale`), `factor` times as high and wide.

    `architecture` names the diffusers class. `source` None: its weights are the `autoencoder.*` keys of the model's own file.
    """

    architecture: Literal["AutoencoderKL", "AutoencoderDC"]
    source: OnHub | None = None
    scale: float
    factor: int


class TextEncoder(Data, frozen=True, kw_only=True):
    """The text encoder of a text-conditioned model: its last hidden state, `tokens` x `width`."""

    source: OnHub
    tokens: int = 77
    width: int = 768


class Published(Data, frozen=True, kw_only=True):
    """A figure from a paper: the FID over `images` samples, and the settings behind it, in words."""

    fid: float
    settings: str
    images: int = 50_000
    verified: bool = True


class Card(Data, frozen=True, kw_only=True):
    """One model: its network, its weights, and the conventions it was trained under."""

    name: str
    summary: str
    backbone: BackboneConfig
    weights: Weights
    schedule: Schedule
    time: TimeInput
    prediction: Literal["noise", "velocity"]
    sampling: Sampling
    null_label: int | None = None
    classes: Literal["digits", "imagenet"] | None = None
    decoder: Pixels | Autoencoder
    text: TextEncoder | None = None
    licence: str
    citation: str
    data: str
    published: Published | None = None

    @property
    def learns_variance(self) -> bool:
        """Whether the network's second half of channels is the variance of DDPM's reverse step (arXiv 2102.09672, eq. 15)."""
        return self.prediction == "noise" and isinstance(self.backbone, DiTConfig) and self.backbone.learn_sigma

    @property
    def splits(self) -> bool:
        """Whether part of the network depends on time and label alone, so that it can be a graph of its own."""
        return isinstance(self.backbone, DiTConfig)

    @property
    def number_of_classes(self) -> int:
        """How many classes there are to choose from, the null label not counted; 0 for a model without labels."""
        if isinstance(self.backbone, DiTConfig):
            return self.backbone.num_classes
        return max(0, self.backbone.num_classes - (self.null_label is not None))

    @property
    def family(self) -> Literal["dit", "sit", "uvit", "usit"]:
        """The kind of network, and whether it predicts noise (dit, uvit) or velocity (sit, usit)."""
        if isinstance(self.backbone, DiTConfig):
            return "dit" if self.prediction == "noise" else "sit"
        return "uvit" if self.prediction == "noise" else "usit"

    @property
    def resolution(self) -> int:
        """The side of the decoded images, in pixels."""
        return self.backbone.latent_shape[1] * (self.decoder.factor if isinstance(self.decoder, Autoencoder) else 1)

    def check_class(self, number: int) -> int:
        """`number` itself, if the model has that class; raises UsageError otherwise."""
        if not self.number_of_classes:
            raise UsageError(f"{self.name} has no classes to choose from")
        if not 0 <= number < self.number_of_classes:
            raise UsageError(f"class {number} is out of range; {self.name} knows 0 to {self.number_of_classes - 1}")
        return number

"""A card: the complete description of a model, as data. Any two different models differ in a field of their cards."""

from __future__ import annotations

import math
import re
from typing import Literal, TypeAlias

import msgspec

from ditzoo.errors import UsageError, described
from ditzoo.records import Data
from ditzoo.zoo.bounds import (
    LARGEST_BETA,
    LARGEST_FACTOR,
    LARGEST_TIME,
    LONGEST_NAME,
    MOST_STEPS,
    check_between,
    check_path,
    check_sha256,
    shown,
)
from ditzoo.zoo.configs import BackboneConfig


class DiscreteBetas(Data, frozen=True, kw_only=True, tag_field="kind", tag="discrete_betas"):
    """A variance-preserving noise schedule of `steps` betas (DDPM, arXiv 2006.11239, section 4).

    `spacing` is "linear" for equal steps in beta, and "scaled_linear" for equal steps in the square root of beta.
    """

    spacing: Literal["linear", "scaled_linear"]
    start: float
    end: float
    steps: int = 1000

    def __post_init__(self) -> None:
        check_between("the number of betas", self.steps, 2, MOST_STEPS)
        if not 0 < self.start <= self.end < 1:
            raise ValueError(
                f"betas from {self.start} to {self.end} in {self.steps} steps: betas must rise and lie between 0 and 1"
            )


class ContinuousVP(Data, frozen=True, kw_only=True, tag_field="kind", tag="continuous_vp"):
    """The variance-preserving SDE (arXiv 2011.13456, eq. 32). beta(t) is linear: `beta_min` at t = 0, `beta_max` at t = 1."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max <= LARGEST_BETA:
            raise ValueError(
                f"beta_min is {self.beta_min} and beta_max is {self.beta_max}, but they must rise and lie between 0 and"
                f" {LARGEST_BETA:g}"
            )


class LinearFlow(Data, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="linear_flow"):
    """The straight path between noise and image, and the velocity along it.

    `noise_at` is the time t of pure noise. If it is 0, x = t · image + (1 − t) · noise, as in SiT (arXiv 2401.08740, section
    2). If it is 1, x = (1 − t) · image + t · noise, as in REPA (arXiv 2410.06940) and in rectified flow (arXiv 2403.03206, eq.
    13). `velocity` is the prediction of the network: "to_image" for image − noise, "to_noise" for noise − image.
    """

    noise_at: Literal[0, 1] = 0
    velocity: Literal["to_image", "to_noise"] = "to_image"

    @property
    def sign(self) -> float:
        """The factor, 1 or −1, that turns the network's output into image − noise."""
        return 1.0 if self.velocity == "to_image" else -1.0


Schedule: TypeAlias = DiscreteBetas | ContinuousVP | LinearFlow


class TimeInput(Data, frozen=True, kw_only=True):
    """The time input of the network: scale · t + offset.

    With `DiscreteBetas`, t = n / N at step n of N, and t = 0 is the clean image. With `ContinuousVP`, t = 0 is the clean image
    too. With `LinearFlow`, `noise_at` gives the t of pure noise.
    """

    scale: float = 1000.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("scale", self.scale), ("offset", self.offset)):
            check_between(f"the {name} of the time", value, -LARGEST_TIME, LARGEST_TIME)
        if self.scale == 0:
            raise ValueError("the scale of the time must not be 0")


class Sampling(Data, frozen=True, kw_only=True, omit_defaults=True):
    """The default settings of sampling.

    `guidance` is s in uncond + s · (cond − uncond) (arXiv 2207.12598). It acts on the first `guided_channels` channels; the
    other channels are those of the conditional prediction. With `guidance_times` (low, high) it acts only at times t with
    low ≤ t ≤ high, where t is that of `TimeInput`.

    `shift` is s in u → s · u / (1 + (s − 1) · u), which changes the times of a straight path. u is 0 at noise and 1 at the
    image (LightningDiT, arXiv 2501.01423). The times of arXiv 2403.03206, eq. 23, run the other way, so its shift is 1 / s.
    """

    solver: str
    steps: int
    guidance: float
    guided_channels: int
    guidance_times: tuple[float, float] | None = None
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not math.isfinite(self.guidance):
            raise ValueError(f"steps must be positive, not {self.steps}, and guidance must be finite, not {self.guidance}")
        check_between("steps", self.steps, 1, MOST_STEPS)
        if not (0 < self.shift < math.inf):
            raise ValueError(f"shift must be positive and finite, not {self.shift}")
        if self.guidance_times is not None and not self.guidance_times[0] <= self.guidance_times[1]:
            raise ValueError(f"guidance_times must be two times, the lower one first, not {list(self.guidance_times)}")


NAMES = "at most 200 letters, digits, '.', '_' and '-', the first a letter or digit"
"""The rule for names, for error messages."""


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a model that a user writes: letters, digits, '.', '_' and '-'."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", text) is not None


_OWN = r"[A-Za-z0-9_][\w.-]*"
_REFERENCE = rf"hf:({_OWN}/{_OWN})(?:@([\w./-]+))?(?::([\w.+=,()@ /-]*[\w.+=,()@/-]))?"


def split_reference(text: str) -> tuple[str, str | None, str | None] | None:
    """The repository, the revision and the path of a reference, hf:OWNER/REPO[@REVISION][:PATH]. None if `text` is not one.

    A model pulled by reference has it as its name. A reference has at most 200 characters, no '..', no quotes and no line ends.
    """
    match = re.fullmatch(_REFERENCE, text, re.ASCII)
    if match is None or ".." in text or len(text) > 200:
        return None
    return match[1], match[2], match[3]


class File(Data, frozen=True, kw_only=True):
    """A file: its path in a repository, its size in bytes and its SHA-256. None: unknown before the first download."""

    path: str
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        if self.size is not None and self.size < 0:
            raise ValueError(f"the size of {self.path} is {self.size}, but it must not be negative")
        if self.sha256 is not None:
            check_sha256(self.path, self.sha256)


Layout: TypeAlias = Literal["dit", "lightningdit", "diffusers", "uvit", "dcae"]
"""The names of the layouts of checkpoints: see `ditzoo.checkpoint.layouts`."""


class Embedded(Data, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="embedded"):
    """Weights inside the package: the name of a safetensors file in `ditzoo/assets`, and its SHA-256.

    `decoder` is the file of the decoder in the same folder, for a latent model whose decoder has no source of its own.
    """

    file: str
    sha256: str
    decoder: File | None = None

    def __post_init__(self) -> None:
        check_path(self.file)
        check_sha256(self.file, self.sha256)


class OnHub(Data, frozen=True, kw_only=True, tag_field="kind", tag="hub"):
    """Files in a repository of the Hugging Face Hub. The first file of weights is the checkpoint, or the index of its shards.

    `revision` is a commit (40 hexadecimal digits). If it is None, the first pull chooses the newest commit, and later pulls use
    the same one. `verified` is False if the repository, revision, names or checksums come from third parties and were not
    confirmed.
    """

    repo: str
    revision: str | None = None
    files: tuple[File, ...]
    layout: Layout | None = None
    verified: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(f"{_OWN}/{_OWN}", self.repo, re.ASCII) or ".." in self.repo or len(self.repo) > LONGEST_NAME:
            raise ValueError(f"{shown(self.repo)} is not the name of a repository on the Hub; write OWNER/REPO")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError(f"the revision {shown(self.revision)} is not a commit of 40 hexadecimal digits")
        if not self.files or len({file.path for file in self.files}) < len(self.files):
            raise ValueError(f"the repository {self.repo} needs at least one file, and no file may be named twice")


class ByHand(Data, frozen=True, kw_only=True, tag_field="kind", tag="by_hand"):
    """Weights that the user has to download by hand, from the place `where`. `ditzoo import` then stores the file."""

    where: str
    file: File
    layout: Layout | None = None
    verified: bool = False


class Unreleased(Data, frozen=True, kw_only=True, tag_field="kind", tag="unreleased"):
    """No published weights: the card describes an architecture, for the user's own checkpoints."""


Weights: TypeAlias = Embedded | OnHub | ByHand | Unreleased


class Pixels(Data, frozen=True, kw_only=True, tag_field="kind", tag="pixels"):
    """No decoder: the network denoises pixels, with values between −1 and 1."""


Architecture: TypeAlias = Literal["AutoencoderKL", "AutoencoderDC"]
"""The classes of diffusers whose decoders ditzoo loads."""


def _no_source() -> None:
    """None, the default of `Autoencoder.source`. msgspec writes a default from a factory, and omits any other default."""


class Autoencoder(Data, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="autoencoder"):
    """A decoder of latents: image = decoder(latent / `scale` · `std` + `mean`). The image is `factor` times as high and wide.

    `architecture` is the diffusers class. If `source` is None, the weights are the `autoencoder.*` keys in the model's file.
    The first file of a source is either diffusers' config.json, with the weights in the same folder, or a checkpoint in a
    layout that `ditzoo.checkpoint.autoencoders` knows.

    `mean` and `std` have one number for each latent channel, or one number for all channels. If they are empty, they are 0 and
    1. `statistics` is a file of the source with tensors called "mean" and "std"; it replaces both fields.
    """

    architecture: Architecture
    source: OnHub | None = msgspec.field(default_factory=_no_source)
    scale: float
    factor: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    statistics: str | None = None

    def __post_init__(self) -> None:
        if self.statistics is not None and (self.source is None or all(f.path != self.statistics for f in self.source.files)):
            raise ValueError(f"the statistics {self.statistics} must be one of the files of the decoder's source")
        if not math.isfinite(self.scale) or self.scale == 0:
            raise ValueError(f"the scale of a decoder must be finite and not 0, not {self.scale}")
        check_between("the factor of a decoder", self.factor, 1, LARGEST_FACTOR)
        if not all(map(math.isfinite, self.mean)) or not all(0 < value < math.inf for value in self.std):
            raise ValueError("the mean of the latents must be finite, and their std finite and positive")


class TextEncoder(Data, frozen=True, kw_only=True):
    """The text encoder of a text-conditioned model. Its last hidden state has the shape `tokens` x `width`."""

    source: OnHub
    tokens: int = 77
    width: int = 768


class Published(Data, frozen=True, kw_only=True):
    """A published FID over `images` samples, and its settings in words. `verified` is False if the figure is uncertain."""

    fid: float
    settings: str
    images: int = 50_000
    verified: bool = True

    def __post_init__(self) -> None:
        check_between("fid", self.fid, 0, 1e6)
        check_between("the number of images of the FID", self.images, 1, 10**9)


class Card(Data, frozen=True, kw_only=True):
    """One model: its network, its weights, and the conventions of its training.

    `null_label` is the label of the null condition, which guidance needs. It is the last row of the network's label table, and
    the classes are the labels below it. If it is None, a model with labels has no null condition. The null condition of a model
    with `text` is the empty prompt, and its `null_label` is None.

    Its `name` becomes part of file names. So `is_name` must accept it, or it must be a reference to the Hub. Raises ValueError
    if it is neither, or if fields contradict each other.
    """

    name: str
    summary: str
    backbone: BackboneConfig
    weights: Weights
    schedule: Schedule
    time: TimeInput
    prediction: Literal["noise", "velocity"]
    sampling: Sampling
    null_label: int | None = None
    classes: Literal["digits", "icons", "imagenet"] | None = None
    decoder: Pixels | Autoencoder
    text: TextEncoder | None = None
    licence: str
    citation: str
    data: str
    published: Published | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name) and split_reference(self.name) is None:
            raise ValueError(f"{shown(self.name)} is not a valid name for a model; use {NAMES}")
        _check_null_label(self)
        _check_text(self)
        _check_statistics(self)
        channels = self.backbone.latent_shape[0]
        if not 0 <= self.sampling.guided_channels <= channels:
            raise ValueError(f"guided_channels is {self.sampling.guided_channels}, but the latents have {channels} channels")
        if self.sampling.guidance != 1 and self.null_label is None and self.text is None:
            raise ValueError(
                f"guidance is {self.sampling.guidance:g}, but guidance needs a null label or text: write guidance = 1.0"
            )

    @property
    def learns_variance(self) -> bool:
        """Whether the second half of the output channels is the variance of DDPM's reverse step (arXiv 2102.09672, eq. 15)."""
        return self.prediction == "noise" and self.backbone.learns_variance

    @property
    def splits(self) -> bool:
        """Whether part of the network depends on time and label alone, so that it can be a graph of its own."""
        return self.backbone.splits

    @property
    def number_of_classes(self) -> int:
        """The number of classes without the null label; 0 for a model without labels."""
        return self.backbone.classes(null_label=self.null_label)

    @property
    def family(self) -> str:
        """The name of the family, which depends on the prediction: dit and uvit predict noise, sit and usit velocity."""
        return self.backbone.names[self.prediction]

    @property
    def resolution(self) -> int:
        """The height and width of the images, in pixels."""
        return self.backbone.latent_shape[1] * (self.decoder.factor if isinstance(self.decoder, Autoencoder) else 1)

    def check_class(self, number: int) -> int:
        """Returns `number` if the model has that class. Raises UsageError if it does not."""
        if not self.number_of_classes:
            raise UsageError(f"{self.name} has no classes to choose from")
        if not 0 <= number < self.number_of_classes:
            raise UsageError(f"class {described(number)} is out of range; {self.name} knows 0 to {self.number_of_classes - 1}")
        return number


def _check_text(card: Card) -> None:
    """Raises ValueError if the text encoder does not give the tokens that the network takes."""
    given = None if card.text is None else (card.text.tokens, card.text.width)
    if given != card.backbone.text_shape:
        raise ValueError(
            f"the network takes {_tokens(card.backbone.text_shape)}, but the text encoder of the card gives {_tokens(given)}"
        )


def _tokens(shape: tuple[int, int] | None) -> str:
    return "no text" if shape is None else f"{shape[0]} text tokens of width {shape[1]}"


def _check_statistics(card: Card) -> None:
    """Raises ValueError if the mean or the standard deviation of the latents has not one number for each channel."""
    channels = card.backbone.latent_shape[0]
    values = {"mean": card.decoder.mean, "std": card.decoder.std} if isinstance(card.decoder, Autoencoder) else {}
    for name, numbers in values.items():
        if len(numbers) not in (0, 1, channels):
            raise ValueError(
                f"decoder.{name} of {card.name} has {len(numbers)} numbers; write one for all latent channels, or {channels}"
            )


def _check_null_label(card: Card) -> None:
    """Raises ValueError if the null label is not the last row of the label table, after the rows of the classes."""
    null, last = card.null_label, card.backbone.label_rows - 1
    if null is None:
        return
    if last < 0:
        raise ValueError(f"null_label is {null}, but the network has no label table")
    if card.backbone.classes(null_label=last) != last:
        raise ValueError(f"null_label is {null}, but the label table has rows for its {last + 1} classes only")
    if null != last:
        raise ValueError(f"null_label is {null}, but it must be the last row of the label table, {last}")

"""A card: everything that makes a model itself, as data. Where two models differ, a field differs."""

from __future__ import annotations

import math
import re
from typing import Literal, TypeAlias

import msgspec

from ditzoo.errors import UsageError
from ditzoo.records import Data
from ditzoo.zoo.configs import BackboneConfig


class DiscreteBetas(Data, frozen=True, kw_only=True, tag_field="kind", tag="discrete_betas"):
    """A variance-preserving noise schedule of `steps` betas (DDPM, arXiv 2006.11239, section 4).

    `spacing` "linear": equal steps in beta. "scaled_linear": equal steps in the square root of beta.
    """

    spacing: Literal["linear", "scaled_linear"]
    start: float
    end: float
    steps: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.end < 1 or self.steps < 2:
            raise ValueError(f"betas from {self.start} to {self.end} in {self.steps} steps: they must rise between 0 and 1")


class ContinuousVP(Data, frozen=True, kw_only=True, tag_field="kind", tag="continuous_vp"):
    """The variance-preserving SDE, beta(t) linear from `beta_min` to `beta_max` over t = 0 ... 1 (arXiv 2011.13456, eq. 32)."""

    beta_min: float = 0.1
    beta_max: float = 20.0


class LinearFlow(Data, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="linear_flow"):
    """The straight path between noise and image, and the velocity along it.

    `noise_at` is the t of pure noise. 0: x = t · image + (1 − t) · noise, as in SiT (arXiv 2401.08740, section 2); 1: x =
    (1 − t) · image + t · noise, as in REPA (arXiv 2410.06940) and in rectified flow (arXiv 2403.03206, eq. 13). `velocity` is
    what the network predicts: image − noise, "to_image", or noise − image, "to_noise".
    """

    noise_at: Literal[0, 1] = 0
    velocity: Literal["to_image", "to_noise"] = "to_image"

    @property
    def sign(self) -> float:
        """What the network's output is multiplied with to give image − noise."""
        return 1.0 if self.velocity == "to_image" else -1.0


Schedule: TypeAlias = DiscreteBetas | ContinuousVP | LinearFlow


class TimeInput(Data, frozen=True, kw_only=True):
    """How time reaches the network: t enters as scale · t + offset.

    On `DiscreteBetas` step n of N is t = n / N, and 0 is clean; on `ContinuousVP` 0 is clean; on `LinearFlow` the card says
    where the noise is.
    """

    scale: float = 1000.0
    offset: float = 0.0


class Sampling(Data, frozen=True, kw_only=True, omit_defaults=True):
    """What a model is sampled with unless something else is asked for.

    `guidance` is s in uncond + s · (cond − uncond) (arXiv 2207.12598); `guided_channels` counts the channels it acts on, from
    the first; the others are the conditional prediction's. With `guidance_times` (low, high) it acts only where low ≤ t ≤ high,
    t as `TimeInput` has it.

    `shift` is s in u → s · u / (1 + (s − 1) · u), by which the times of a straight path are moved; u runs from 0, noise, to 1,
    the image (LightningDiT, arXiv 2501.01423; the shift of arXiv 2403.03206, eq. 23, whose times run the other way, is 1 / s).
    """

    solver: str
    steps: int
    guidance: float
    guided_channels: int
    guidance_times: tuple[float, float] | None = None
    shift: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not math.isfinite(self.guidance):
            raise ValueError(f"steps {self.steps} must be positive, and guidance {self.guidance} finite")


NAMES = "use letters, digits, '.', '_' and '-', at most 200, the first a letter or digit"
"""What a name is made of, for errors."""


def is_name(text: str) -> bool:
    """Whether `text` can be the name of a model that a user writes: letters, digits, '.', '_' and '-'."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", text) is not None


_OWN = r"[A-Za-z0-9_][\w.-]*"
_REFERENCE = rf"hf:({_OWN}/{_OWN})(?:@([\w./-]+))?(?::([\w.+=,()@ /-]*[\w.+=,()@/-]))?"


def split_reference(text: str) -> tuple[str, str | None, str | None] | None:
    """The repository, the revision and the path in hf:OWNER/REPO[@REVISION][:PATH], the name of a model pulled by reference;
    None where `text` is none. It has at most 200 characters, no '..', no quotes, and no line ends."""
    match = re.fullmatch(_REFERENCE, text, re.ASCII)
    if match is None or ".." in text or len(text) > 200:
        return None
    return match[1], match[2], match[3]


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or "\\" in path or ".." in parts or not path.isprintable():
        raise ValueError(f"the path {path!r} leads out of its repository")


class File(Data, frozen=True, kw_only=True):
    """A file, by its path in a repository, with what is known of it. None: not known beforehand."""

    path: str
    size: int | None = None
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_path(self.path)
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"the sha256 of {self.path} must be 64 hexadecimal digits, not {self.sha256!r}")


Layout: TypeAlias = Literal["dit", "lightningdit", "diffusers", "uvit", "dcae"]
"""How the keys of a checkpoint are named: see `ditzoo.checkpoint.layouts`."""


class Embedded(Data, frozen=True, kw_only=True, tag_field="kind", tag="embedded"):
    """Weights that ship inside the package: a safetensors file of `ditzoo/assets`, and its checksum."""

    file: str
    sha256: str

    def __post_init__(self) -> None:
        _check_path(self.file)


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


Architecture: TypeAlias = Literal["AutoencoderKL", "AutoencoderDC"]
"""The classes of diffusers whose decoders ditzoo loads."""


def _no_source() -> None:
    """No source of a decoder. A default from a factory is written out, while a plain one would be omitted."""


class Autoencoder(Data, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind", tag="autoencoder"):
    """A decoder of latents: image = decoder(latent / `scale` · `std` + `mean`), `factor` times as high and wide.

    `architecture` names the diffusers class. `source` None: its weights are the `autoencoder.*` keys of the model's own file.
    The first file of a source is diffusers' config.json, with the weights beside it, or else a checkpoint in a layout that
    `ditzoo.checkpoint.autoencoders` knows.

    `mean` and `std` have one number a latent channel, or one for all channels (a shift, a scale); none are 0 and 1.
    `statistics` is the file of the source that holds them as tensors called "mean" and "std", where the card does not.
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
        if not math.isfinite(self.scale) or self.scale == 0 or self.factor < 1:
            raise ValueError(f"scale {self.scale} and factor {self.factor} of a decoder must be positive")


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
    """One model: its network, its weights, and the conventions it was trained under.

    Its `name` becomes part of the names of files. So it is one of `is_name`, or, of a model pulled by reference, the reference.
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
    classes: Literal["digits", "imagenet"] | None = None
    decoder: Pixels | Autoencoder
    text: TextEncoder | None = None
    licence: str
    citation: str
    data: str
    published: Published | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name) and split_reference(self.name) is None:
            raise ValueError(f"{self.name!r} is no name for a model; {NAMES}")
        _check_null_label(self)
        channels = self.backbone.latent_shape[0]
        if not 0 <= self.sampling.guided_channels <= channels:
            raise ValueError(f"guided_channels is {self.sampling.guided_channels}, but the latents have {channels} channels")
        if self.sampling.guidance != 1 and self.null_label is None and self.text is None:
            raise ValueError(
                f"guidance is {self.sampling.guidance:g}, but there is no null label to guide away from: write guidance = 1.0"
            )

    @property
    def learns_variance(self) -> bool:
        """Whether the network's second half of channels is the variance of DDPM's reverse step (arXiv 2102.09672, eq. 15)."""
        return self.prediction == "noise" and self.backbone.learns_variance

    @property
    def splits(self) -> bool:
        """Whether part of the network depends on time and label alone, so that it can be a graph of its own."""
        return self.backbone.splits

    @property
    def number_of_classes(self) -> int:
        """How many classes there are to choose from, the null label not counted; 0 for a model without labels."""
        return self.backbone.classes(null_label=self.null_label)

    @property
    def family(self) -> str:
        """The kind of network and of its prediction: dit and uvit predict noise, sit and usit velocity."""
        return self.backbone.names[self.prediction]

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


def _check_null_label(card: Card) -> None:
    """Raises ValueError unless the null label is the last row of the table of labels, behind those of the classes."""
    null, last = card.null_label, card.backbone.label_rows - 1
    if null is None:
        return
    if last < 0:
        raise ValueError(f"null_label is {null}, but the network has no table of labels")
    if card.backbone.classes(null_label=last) != last:
        raise ValueError(f"null_label is {null}, but the table of labels has no row for it behind its {last + 1} classes")
    if null != last:
        raise ValueError(f"null_label is {null}, but the null label is the last row of the table of labels, {last}")

"""The job of a folder of shards: everything that determines its images. It is stored in the folder as job.json."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import msgspec
import numpy as np

from ditzoo.backends.options import BackendSpec
from ditzoo.bundle import Bundle
from ditzoo.digests import digest
from ditzoo.errors import UsageError, check_count, unknown
from ditzoo.pictures.decoding import WHOLE, Decoding
from ditzoo.plan.table import Plan
from ditzoo.records import Data
from ditzoo.sampling.request import SampleRequest, check_seed
from ditzoo.weights.local import weights_file
from ditzoo.zoo.card import Card
from ditzoo.zoo.sizes import Size

Pictures: TypeAlias = Literal["png", "webp", "npz"]
"""What a shard holds: a tar file of PNG or lossless WebP pictures, or a .npz file of arrays."""

Rule: TypeAlias = Literal["none", "balanced", "random", "file", "prompts"]
"""Where the labels come from. "file" and "prompts" are lines of a list, which is stored in the folder."""

BATCH, SHARD_SIZE = 50, 1000
"""The default number of images in a batch, and in a shard."""


class LabelRule(Data, frozen=True, kw_only=True):
    """The rule that gives image i its class or prompt.

    "balanced" gives class i modulo `classes`. "random" draws one of `classes` from (seed, i). "file" gives class number i of a
    list, and "prompts" gives prompt i modulo the length of a list. `sha256` is the checksum of that list.
    """

    rule: Rule
    classes: int = 0
    sha256: str = ""


class Job(Data, frozen=True, kw_only=True):
    """A set of `num` images. Equal jobs on the same kind of device have the same images, bit by bit.

    `weights` is the SHA-256 of the weights, or the key of the bundle. `device` and `threads` are those of the network. `size`
    is the height and width of the latents. `decoding` is how torch decodes them. The batches begin anew in each shard, so the
    number of workers changes no batch.
    """

    format: Literal["ditzoo-images/1"] = "ditzoo-images/1"
    model: str
    weights: str
    backend: BackendSpec
    device: str
    threads: int | None = None
    plan: Plan
    size: Size
    seed: int
    num: int
    labels: LabelRule
    batch: int = BATCH
    shard_size: int = SHARD_SIZE
    pictures: Pictures = "png"
    decoding: Decoding = WHOLE

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.num // self.shard_size)

    def images(self, shard: int) -> range:
        """The numbers of the images in a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.num))

    def file(self, shard: int) -> str:
        """The name of the file of a shard."""
        return f"{shard:05d}.{'npz' if self.pictures == 'npz' else 'tar'}"

    def request(self, images: range, labels: Sequence[int] | Sequence[str] | None) -> SampleRequest:
        """The request for a range of images with these `labels`, which are classes or prompts."""
        prompts = self.labels.rule == "prompts"
        return SampleRequest(
            model=self.model,
            plan=self.plan,
            seed=self.seed,
            first=images.start,
            count=len(images),
            classes=None if labels is None or prompts else tuple(map(int, labels)),
            prompts=tuple(map(str, labels or ())) if prompts else None,
            size=self.size,
        )


def check_job(job: Job) -> None:
    """Raises UsageError if a number of the job is out of range."""
    check_count("the number of images", job.num)
    check_count("--shard-size", job.shard_size)
    check_count("--batch", job.batch)
    check_seed(job.seed)


def check_pictures(text: str) -> Pictures:
    """The kind of shard that a text names. Raises UsageError if there is no such kind."""
    known: tuple[Pictures, ...] = get_args(Pictures)
    if text not in known:
        raise unknown("kind of shard", text, known, hint="--shard-format")
    return next(kind for kind in known if kind == text)


def identity(model: Card | Bundle) -> str:
    """The text that identifies the weights of a model: the key of a bundle, or the SHA-256 of the weights of a card."""
    return model.manifest.key if isinstance(model, Bundle) else digest(weights_file(model))


def random_class(seed: int, image: int, classes: int) -> int:
    """A class drawn uniformly from `classes` for an image. It depends on nothing else than (seed, image).

    Philox 4x64-10 with the key (seed, image) generates it, at a counter that the noise never uses.
    """
    key, counter = np.array([seed, image], dtype=np.uint64), np.array([0, 0, 0, 1], dtype=np.uint64)
    return (int(np.random.Philox(key=key, counter=counter).random_raw()) * classes) >> 64


def labels_of(job: Job, images: range, listed: Sequence[str]) -> list[int] | list[str] | None:
    """The label of each image of a range: classes, prompts, or None for an unconditional model. `listed` is the job's list."""
    rule = job.labels
    if rule.rule == "none":
        return None
    if rule.rule == "prompts":
        return [listed[i % len(listed)] for i in images]
    if rule.rule == "file":
        return [int(listed[i]) for i in images]
    if rule.rule == "balanced":
        return [i % rule.classes for i in images]
    return [random_class(job.seed, i, rule.classes) for i in images]


def checksum(listed: Sequence[str]) -> str:
    """The SHA-256 of a list of labels."""
    return hashlib.sha256(list_text(listed)).hexdigest()


def list_text(listed: Sequence[str]) -> bytes:
    """A list of labels as the content of a file, one per line."""
    return "".join(f"{line}\n" for line in listed).encode()


def differences(here: Job, asked: Job) -> list[str]:
    """The fields in which two jobs differ, with both values; plans and checksums without values."""
    names = [name for name in here.__struct_fields__ if getattr(here, name) != getattr(asked, name)]
    return [_difference(name, getattr(here, name), getattr(asked, name)) for name in names]


def _difference(name: str, here: object, asked: object) -> str:
    if isinstance(here, Plan) and isinstance(asked, Plan):
        shown = [f"{plan.solver} in {len(plan.rows)} steps" for plan in (here, asked)]
        return f"plan ({shown[0]}, not {shown[1]})" if shown[0] != shown[1] else "plan (other numbers)"
    if name == "weights":
        return "weights"
    if isinstance(here, LabelRule) and isinstance(asked, LabelRule):
        same = (here.rule, here.classes) == (asked.rule, asked.classes)
        return "the list of labels" if same else f"labels ({here.rule}, not {asked.rule})"
    if isinstance(here, BackendSpec) and isinstance(asked, BackendSpec):
        return f"backend ({_options(here)}, not {_options(asked)})"
    return f"{name} ({here}, not {asked})"


def _options(spec: BackendSpec) -> str:
    """The options of a backend that are not the default, for messages."""
    given = {key: value for key, value in msgspec.structs.asdict(spec).items() if value and key != "name"}
    return " ".join([spec.name, *(f"{key}={value}" for key, value in given.items())])


def check_list(job: Job, listed: Sequence[str], *, option: str) -> None:
    """Raises UsageError, which names the `option`, if a list has not one class for each image, or no prompt."""
    if job.labels.rule == "file" and len(listed) < job.num:
        raise UsageError(f"{option} has {len(listed):,} labels for {job.num:,} images; it needs one line for each image")
    if job.labels.rule == "prompts" and not listed:
        raise UsageError(f"{option} has no prompt; it needs one per line")

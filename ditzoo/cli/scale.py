"""The part of `ditzoo sample` that draws large sets of images into shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.errors import UsageError, shown_path

if TYPE_CHECKING:
    from ditzoo.backends.options import BackendSpec
    from ditzoo.bundle import Bundle
    from ditzoo.pictures.decoding import Decoding
    from ditzoo.plan.table import Plan
    from ditzoo.scale.job import LabelRule
    from ditzoo.scale.run import Execute, Summary
    from ditzoo.zoo.card import Card
    from ditzoo.zoo.sizes import Size

BALANCED, RANDOM = "balanced", "random"
LOCAL = "local"
"""The value of --ray that starts Ray on this machine."""

Labels = Annotated[
    str | None,
    typer.Option(
        metavar="balanced|random|FILE",
        help="The class of image i, with --shard-size: i modulo the number of classes, random from (seed, i), or line i of a"
        " file. Default: balanced.",
    ),
]
ShardSize = Annotated[
    int | None,
    typer.Option(help="Write shards of so many images into the folder --out. The same command again continues; docs/scale.md."),
]
ShardFormat = Annotated[
    str | None,
    typer.Option(metavar="png|webp|npz", help="The content of a shard: pictures in a tar file, or arrays. Default: png."),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="local|ADDRESS", help="Draw the shards on Ray, on this machine or on the cluster at an address."),
]
Workers = Annotated[
    int | None, typer.Option(help="The number of workers on Ray. Default: one for each GPU, or for each CPU thread.")
]


def check_shard_options(shard_size: int | None, **others: object) -> None:
    """Raises UsageError if an option for shards is given without --shard-size."""
    for name, value in others.items():
        if value is not None and shard_size is None:
            raise UsageError(f"--{name.replace('_', '-')} needs --shard-size, such as --shard-size 1000; see docs/scale.md")


def check_no_others(**others: object) -> None:
    """Raises UsageError if an option is given that shards do not take."""
    for name, value in others.items():
        if value is not None:
            raise UsageError(f"--shard-size takes no --{name.replace('_', '-')}; leave it out")


def draw_shards(
    found: Card | Bundle,
    plan: Plan,
    spec: BackendSpec,
    *,
    num: int | None,
    labels: str | None,
    prompts: list[str] | None,
    size: Size,
    seed: int,
    batch: int | None,
    shard_size: int,
    shard_format: str | None,
    out: Path | None,
    device: str,
    threads: int | None,
    ray: str | None,
    workers: int | None,
    decoding: Decoding,
    json: bool,
) -> None:
    """Draws a set of images into shards. The arguments are those of `ditzoo sample`."""
    from ditzoo.scale.drawing import work_on
    from ditzoo.scale.job import BATCH, Job, check_pictures, identity
    from ditzoo.scale.run import run_job
    from ditzoo.specs import split_device
    from ditzoo.weights.catalogue import card_of

    if num is None or out is None:
        raise UsageError("--shard-size needs --num, the number of images, and --out, the folder of the shards")
    card = card_of(found)
    rule, listed = _label_rule(card, labels, prompts)
    kind = split_device(spec.device or device)[0]
    job = Job(
        model=card.name,
        weights=identity(found),
        backend=_without_number(spec, kind),
        device=kind,
        threads=threads,
        plan=plan,
        size=size,
        seed=seed,
        num=num,
        labels=rule,
        batch=BATCH if batch is None else batch,
        shard_size=shard_size,
        pictures=check_pictures(shard_format or "png"),
        decoding=decoding,
    )
    work = work_on(job, found, listed, place=str(out), device=spec.device or device)
    with output.counting(f"{card.name}: {output.count(num, 'image')}", num) as count:
        summary = run_job(work, execute=_executor(ray, workers), finished=count.start, advance=count.advance)
    _tell(summary, str(out), json=json)


def _label_rule(card: Card, labels: str | None, prompts: list[str] | None) -> tuple[LabelRule, list[str]]:
    """The rule of the labels, and the list that it reads."""
    from ditzoo.scale.job import LabelRule, checksum

    if card.text is not None:
        if labels is not None or not prompts:
            raise UsageError(f"{card.name} draws from text: give --prompts FILE, and no --labels")
        return LabelRule(rule="prompts", sha256=checksum(prompts)), prompts
    if prompts:
        raise UsageError(f"{card.name} takes no prompts; leave out --prompts")
    if not card.number_of_classes:
        if labels is not None:
            raise UsageError(f"{card.name} has no classes; leave out --labels")
        return LabelRule(rule="none"), []
    if labels in (None, BALANCED, RANDOM):
        return LabelRule(rule="random" if labels == RANDOM else "balanced", classes=card.number_of_classes), []
    listed = [str(number) for number in _numbers_in(card, Path(str(labels)))]
    return LabelRule(rule="file", classes=card.number_of_classes, sha256=checksum(listed)), listed


def _numbers_in(card: Card, path: Path) -> list[int]:
    """The classes in a file, one number or name per line."""
    from ditzoo.sampling.classes import choose_classes

    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"--labels takes {BALANCED}, {RANDOM} or a file with one class per line; cannot read {shown_path(path)}: {reason}"
        ) from error
    return [choose_classes(card, [line.strip()], argument=f"--labels {path}")[0] for line in lines if line.strip()]


def _without_number(spec: BackendSpec, device: str) -> BackendSpec:
    """The backend without the number of its GPU, which changes no image."""
    import msgspec

    return msgspec.structs.replace(spec, device=None if spec.device is None else device)


def _executor(ray: str | None, workers: int | None) -> Execute:
    from ditzoo.scale.run import here

    if ray is None:
        if workers is not None:
            raise UsageError("--workers needs --ray, such as --ray local")
        return here
    from ditzoo.scale.on_ray import on_ray

    return on_ray(None if ray == LOCAL else ray, workers=workers)


def _tell(summary: Summary, place: str, *, json: bool) -> None:
    if json:
        output.json(summary)
        return
    rate = "" if summary.images_per_second is None else f", {summary.images_per_second:.3g} images/s of one worker"
    images, steps = output.count(summary.images, "image"), output.count(summary.steps, "step")
    output.talk(
        f"{images} of {summary.model} in {output.count(summary.shards, 'shard')}, {summary.solver} in {steps}, seed"
        f" {summary.seed}, labels {summary.labels}: {output.size(summary.bytes)}{rate}"
    )
    output.data(f"{place}/summary.json")

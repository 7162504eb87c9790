"""The commands `ditzoo pack` and `ditzoo evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Device, Json
from ditzoo.errors import UsageError, check_count

if TYPE_CHECKING:
    from ditzoo.evaluation.scores import Scores

Folder = Annotated[str, typer.Argument(metavar="DIR", help="A folder of shards.", show_default=False)]


def pack(
    folder: Folder,
    npz: Annotated[bool, typer.Option("--npz", help="Write the .npz file of ADM's evaluation. This is the default.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write. Default: DIR.npz.")] = None,
) -> None:
    """Pack a folder of shards into one .npz file for evaluation: arr_0 are the pictures, and arr_1 the classes."""
    from ditzoo.files import check_output_file
    from ditzoo.scale.journal import read_job
    from ditzoo.scale.pack import pack as write
    from ditzoo.scale.storage import storage_at

    target = Path(f"{folder.rstrip('/')}.npz") if out is None else out
    if target.suffix != ".npz":
        raise UsageError(f"--out is the name of a .npz file, not {target}")
    total = read_job(storage_at(folder)).num
    check_output_file(target, "--out")
    with output.counting(f"packing {folder}", total) as count:
        write(folder, target, advance=count.advance)
    size = output.size(target.stat().st_size)
    output.talk(f"{output.count(total, 'picture')}: arr_0 is uint8 [N, H, W, 3], arr_1 has the classes; {size}")
    output.data(str(target))


def evaluate(
    place: Annotated[
        str,
        typer.Argument(metavar="DIR|FILE.npz", help="A folder of shards or of pictures, or a packed file.", show_default=False),
    ],
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="STATS.npz|DIR",
            help="The reference: statistics or pictures in a .npz file, such as ADM's, or a folder."
            " Default: for digits, the scans held out from training.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.onnx",
            help="The feature network: digits, inception or a file; see docs/scale.md."
            " Default: digits for models of digits, else inception.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Inception's weights. Default: those in the cache of torch.hub.")
    ] = None,
    no_precision_recall: Annotated[
        bool,
        typer.Option(
            "--no-precision-recall",
            help="Leave out precision and recall, which keep all features in memory. They need a reference with pictures.",
        ),
    ] = False,
    batch: Annotated[int, typer.Option(help="Pictures per batch.")] = 50,
    device: Device = "cpu",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write the scores to this .json file.")] = None,
    json: Json = False,
) -> None:
    """Score a large set of pictures against a reference: FID, sFID, Inception Score, precision and recall."""
    from ditzoo.evaluation.networks import DIGITS, open_network
    from ditzoo.evaluation.scores import HELD_OUT
    from ditzoo.evaluation.scores import evaluate as score
    from ditzoo.evaluation.sources import check_place, job_at
    from ditzoo.files import check_output_file, replacing
    from ditzoo.records import to_json

    check_count("--batch", batch)
    if out is not None:
        check_output_file(out, "--out")
    check_place(place)
    job = job_at(place)
    chosen = features or _features_for(None if job is None else job.model)
    if reference is None and chosen != DIGITS:
        raise UsageError("--reference is missing: name a .npz file of statistics or pictures, or a folder of pictures")
    if reference is not None and reference != HELD_OUT:
        check_place(reference)
    with output.status(f"opening the feature network {chosen}"):
        network = open_network(chosen, weights=weights, device=device)
    with output.counting(f"scoring {place}", 0 if job is None else job.num) as count:
        scores = score(
            place,
            network,
            reference=reference or HELD_OUT,
            manifold=not no_precision_recall,
            batch=batch,
            advance=count.advance,
        )
    output.json(scores) if json else _show(scores)
    if out is not None:
        with replacing(out) as scratch:
            scratch.write_bytes(to_json(scores))


def _features_for(model: str | None) -> str:
    """The feature network for pictures of a model: the classifier of digits for models of digits, else Inception."""
    from ditzoo.evaluation.networks import DIGITS, INCEPTION
    from ditzoo.weights.catalogue import cards

    known = cards()
    return DIGITS if model in known and known[model].classes == DIGITS else INCEPTION


def _show(scores: Scores) -> None:
    rows = [
        (name, f"{value:.4g}")
        for name, value in (
            ("FID", scores.fid),
            ("sFID", scores.sfid),
            ("Inception Score", scores.inception_score),
            ("precision", scores.precision),
            ("recall", scores.recall),
            ("Fréchet distance of pixels", scores.frechet_pixels),
            ("read as their class", scores.read),
        )
        if value is not None
    ]
    output.table(["score", ">value"], rows)
    reference = "statistics" if scores.reference_images is None else output.count(scores.reference_images, "picture")
    output.talk(
        f"{output.count(scores.images, 'picture')} of {scores.place} against {scores.reference} ({reference}),"
        f" features: {scores.network}"
    )

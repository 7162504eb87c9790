"""The command `ditzoo demo`: sample, export and compare a model that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Threads

_MODEL, _BACKENDS = "dit-icons", "torch,onnxruntime"
_CLASSES = 12
"""The largest number of classes that the demo draws, one picture of each."""


def demo(
    model: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The model that draws; see `ditzoo list --state embedded`."),
    ] = _MODEL,
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("demo.png"),
    threads: Threads = None,
) -> None:
    """Draw with an embedded model on torch and on ONNX Runtime, and measure how well the results agree."""
    import numpy as np

    from ditzoo.backends.options import parse_specs
    from ditzoo.cli.parity import show
    from ditzoo.files import check_output_file
    from ditzoo.model.comparing import parity
    from ditzoo.model.opening import check_openable
    from ditzoo.pictures.sheets import check_picture_path, contact_sheet, save_picture
    from ditzoo.weights.catalogue import card
    from ditzoo.zoo.class_names import class_names

    check_output_file(out, "--out")
    check_picture_path(out)
    chosen = card(model)
    names = class_names(chosen)[:_CLASSES]
    check_openable(chosen, parse_specs(_BACKENDS), threads=threads)
    output.talk(f"{chosen.name} draws the same pictures on torch and on ONNX Runtime: {', '.join(names)}")
    (comparison,) = parity(
        chosen, backends=_BACKENDS, classes=range(len(names)) if names else None, threads=threads, display=output
    ).comparisons
    report, pixels = comparison.report, [comparison.reference_pixels, comparison.candidate_pixels]
    sheet = contact_sheet(
        np.concatenate(pixels).astype(np.uint8),
        columns=len(pixels[0]),
        labels=[backend.split()[0] for backend in (report.reference, report.candidate)],
        captions=2 * names,
    )
    show([report], json=False)
    save_picture(sheet, out)
    output.data(str(out))
    if not report.passed:
        raise typer.Exit(1)

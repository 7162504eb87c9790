"""`ditzoo demo`: the whole way on the models that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Threads


def demo(out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("demo.png"), threads: Threads = None) -> None:
    """Draw digits with both embedded models on torch and on ONNX Runtime, and measure that they agree."""
    import numpy as np

    from ditzoo.cli.parity import show
    from ditzoo.files import check_writable
    from ditzoo.model.comparing import parity
    from ditzoo.model.pulling import matching_cards
    from ditzoo.pictures.sheets import check_picture_path, contact_sheet, save_picture

    check_writable(out.parent)
    check_picture_path(out)
    pictures, labels, reports = [], [], []
    for card in matching_cards(state="embedded"):
        (comparison,) = parity(card, threads=threads, display=output).comparisons
        report = comparison.report
        labels += [f"{card.name} on {backend.split()[0]}" for backend in (report.reference, report.candidate)]
        pictures += [pixels.astype(np.uint8) for pixels in (comparison.reference_pixels, comparison.candidate_pixels)]
        reports.append(report)
    save_picture(contact_sheet(np.concatenate(pictures), columns=len(pictures[0]), labels=labels), out)
    show(reports, json=False)
    output.data(str(out))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)

"""`ditzoo demo`: the whole way on the models that ship with the package."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ditzoo.cli import output
from ditzoo.cli.options import Threads

BACKENDS = ("torch", "onnxruntime")


def demo(out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("demo.png"), threads: Threads = None) -> None:
    """Draw digits with both embedded models on torch and on ONNX Runtime, and measure that they agree."""
    import numpy as np

    from ditzoo.backends.options import BackendSpec
    from ditzoo.cli.models import open_on
    from ditzoo.cli.parity import show
    from ditzoo.files import check_writable
    from ditzoo.measure.parity import compare
    from ditzoo.pictures.decode import decode
    from ditzoo.pictures.sheets import check_picture_path, contact_sheet, save_picture
    from ditzoo.plan.make import make_plan
    from ditzoo.zoo import CARDS
    from ditzoo.zoo.card import Embedded

    check_writable(out.parent)
    check_picture_path(out)
    pictures, labels, reports = [], [], []
    for card in (card for card in CARDS.values() if isinstance(card.weights, Embedded)):
        plan, classes = make_plan(card), list(range(card.number_of_classes))
        with ExitStack() as stack:
            reference, candidate = (
                stack.enter_context(open_on(card, BackendSpec(name=name), device="cpu", threads=threads)) for name in BACKENDS
            )
            labels += [f"{card.name} on {backend.name.split()[0]}" for backend in (reference, candidate)]
            with output.progress(card.name, 2 * len(plan.rows)) as advance:
                comparison = compare(reference, candidate, plan, classes=classes, advance=advance)
        pictures += [decode(card, latents) for latents in (comparison.reference, comparison.candidate)]
        reports.append(comparison.report)
    save_picture(contact_sheet(np.concatenate(pictures), columns=len(pictures[0]), labels=labels), out)
    show(reports, json=False)
    output.data(str(out))
    if not all(report.passed for report in reports):
        raise typer.Exit(1)

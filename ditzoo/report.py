"""A parity report as one HTML file, with its pictures and plots inside, for somebody who was not there."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ditzoo.bisection import Bisection
from ditzoo.card import Card
from ditzoo.decode import contact_sheet, decode, pixel_values
from ditzoo.parity import Comparison, Report
from ditzoo.plots import block_chart, histogram, line_chart, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 10

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums } .pass { color: #047857 } .fail { color: #b91c1c }
img { max-width: 100%; image-rendering: pixelated } figure { margin: 1rem 0 } figcaption { color: #555 }
.plots { display: flex; flex-wrap: wrap; gap: 1rem } .plots svg { max-width: 29rem; height: auto }
"""


def html(card: Card, comparisons: Sequence[Comparison], bisections: Sequence[Bisection] = ()) -> str:
    """The report on one model's `comparisons`, all with the same reference, and the bisection of each, if there are any.

    Raises MissingPackageError without matplotlib.
    """
    reports = [comparison.report for comparison in comparisons]
    passed = all(report.passed for report in reports)
    title = f"Parity of {card.name}: {'pass' if passed else 'FAIL'}"
    body = [
        f"<h1>Parity of {escape(card.name)}: {_verdict(passed)}</h1>",
        f"<p>{escape(_setting(reports[0]))}</p>",
        _table(reports),
        '<div class="plots">',
        svg(_drift(reports)),
        svg(_forward(reports)),
        "</div>",
        *(_section(card, comparison) for comparison in comparisons),
        *map(_block_by_block, bisections),
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _setting(report: Report) -> str:
    return (
        f"The reference is {report.reference}. Every backend drew the same {report.images} images from the same noise, with"
        f" {report.solver} in {report.steps} steps. An error is ‖difference‖ / ‖reference‖: of one evaluation of the network on"
        " the reference's own latents (forward), the same after guidance (guided), and of the latents at the end (sample)."
    )


def _table(reports: Sequence[Report]) -> str:
    names = ("compared", "forward", "guided", "sample", "PSNR", "SSIM", "verdict")
    rows = [_row([f"<th>{name}</th>" for name in names])]
    for report in reports:
        limit = report.tolerance
        numbers = (
            f"{report.worst_forward:.1e} (limit {limit.forward:.1e})",
            f"{max(error.guided_relative_l2 for error in report.forward):.1e}",
            f"{report.sample_relative_l2:.1e} (limit {limit.sample:.1e})",
            "identical" if report.psnr is None else f"{report.psnr:.1f} dB (limit {limit.psnr:.0f})",
            f"{report.ssim:.6f}",
        )
        cells = [f'<td class="number">{number}</td>' for number in numbers]
        rows.append(_row([f"<td>{escape(report.candidate)}</td>", *cells, f"<td>{_verdict(report.passed)}</td>"]))
    return f"<table>{''.join(rows)}</table>"


def _section(card: Card, comparison: Comparison) -> str:
    """One comparison: what its numbers mean, the pictures, and where they differ."""
    first, second = (pixel_values(card, latents) for latents in (comparison.reference, comparison.candidate))
    difference = np.abs(second - first)
    largest = float(difference.max())
    gain = 255 / largest if largest else 1.0
    amplified = np.clip(gain * difference, 0, 255).astype(np.uint8)
    return "".join(
        [
            f"<h2>{escape(comparison.report.candidate)}</h2><p>{escape(_meaning(comparison, largest))}</p>",
            _figure(decode(card, comparison.reference), f"{comparison.report.reference} (the reference)"),
            _figure(decode(card, comparison.candidate), comparison.report.candidate),
            _figure(amplified, f"their difference, {gain:.3g} times as bright as it is"),
            svg(histogram(difference.ravel(), title="Differences of pixels", x_label="of 255")),
        ]
    )


def _block_by_block(bisection: Bisection) -> str:
    """One candidate taken apart: the verdict, and the error of every block."""
    series = {f"time {moment.time:g}": moment.blocks for moment in bisection.moments}
    chart = block_chart(
        series,
        limit=bisection.tolerance,
        title="Error of each block's output",
        y_label="relative L2 error",
        limit_label="limit",
    )
    return f"<h2>Block by block: {escape(bisection.candidate)}</h2><p>{escape(bisection.verdict)}.</p>{svg(chart)}"


def _meaning(comparison: Comparison, largest: float) -> str:
    """The numbers in words."""
    report = comparison.report
    if largest < 0.5:
        seen = f"No pixel differs by more than {largest:.2g} of 255: the pictures cannot be told apart."
    else:
        seen = f"The largest difference of a pixel is {largest:.3g} of 255."
    worst = max(report.forward, key=lambda error: error.relative_l2)
    growth = report.sample_relative_l2 / report.worst_forward if report.worst_forward else 1.0
    course = "sampling damps it" if growth < 1 else "sampling amplifies it"
    return (
        f"{seen} A single evaluation is off by at most {worst.relative_l2:.1e}, at time {worst.time:g}; over"
        f" {report.steps} steps {course}: the final latents are off by {report.sample_relative_l2:.1e}."
        + ("" if report.passed else " That is beyond the tolerance: look at the time and the step where the curves rise.")
    )


def _drift(reports: Sequence[Report]) -> Figure:
    series = {report.candidate: list(enumerate(report.drift, start=1)) for report in reports}
    return line_chart(series, title="Drift of the latents", x_label="steps done", y_label="relative L2 error", log_y=True)


def _forward(reports: Sequence[Report]) -> Figure:
    series = {report.candidate: [(error.time, error.relative_l2) for error in report.forward] for report in reports}
    return line_chart(series, title="Error of one evaluation", x_label="time", y_label="relative L2 error", log_y=True)


def _figure(pictures: np.ndarray, caption: str) -> str:
    sheet = contact_sheet(pictures, columns=min(len(pictures), COLUMNS))
    return f'<figure><img src="{_data_url(sheet)}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _verdict(passed: bool) -> str:
    return f'<span class="{"pass" if passed else "fail"}">{"pass" if passed else "FAIL"}</span>'


def _row(cells: Sequence[str]) -> str:
    return f"<tr>{''.join(cells)}</tr>"

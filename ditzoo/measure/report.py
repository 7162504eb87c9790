"""A parity report as one HTML file, with its pictures and plots inside, for somebody who was not there."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ditzoo.measure.bisection import Bisection
from ditzoo.measure.parity import Comparison, ForwardError, Report
from ditzoo.measure.plots import block_chart, heat_map, histogram, line_chart, svg
from ditzoo.pictures.sheets import contact_sheet
from ditzoo.zoo.card import Card

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
        svg(_forward(reports)) if any(report.forward for report in reports) else "",
        "</div>",
        *map(_section, comparisons),
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
    names = ("compared", "forward", "guided", "sample", "PSNR", "SSIM", "LPIPS", "verdict")
    rows = [_row([f"<th>{name}</th>" for name in names])]
    for report in reports:
        limit = report.tolerance
        numbers = (
            "" if report.worst_forward is None else f"{report.worst_forward:.1e} (limit {limit.forward:.1e})",
            "" if not report.forward else f"{max(error.guided_relative_l2 for error in report.forward):.1e}",
            f"{report.sample_relative_l2:.1e} (limit {limit.sample:.1e})",
            "identical" if report.psnr is None else f"{report.psnr:.1f} dB (limit {limit.psnr:.0f})",
            f"{report.ssim:.6f}",
            "none" if report.lpips is None else f"{report.lpips:.2g}",
        )
        cells = [f'<td class="number">{number}</td>' for number in numbers]
        rows.append(_row([f"<td>{escape(report.candidate)}</td>", *cells, f"<td>{_verdict(report.passed)}</td>"]))
    absent = dict.fromkeys(report.no_lpips for report in reports if report.no_lpips)
    return f"<table>{''.join(rows)}</table>{''.join(f'<p>No LPIPS: {escape(why)}.</p>' for why in absent)}"


def _section(comparison: Comparison) -> str:
    """One comparison: what its numbers mean, the pictures, and where they differ."""
    report = comparison.report
    first, second = comparison.reference_pixels, comparison.candidate_pixels
    difference = np.abs(second - first)
    largest = float(difference.max())
    gain = 255 / largest if largest else 1.0
    amplified = np.clip(gain * difference, 0, 255).astype(np.uint8)
    return "".join(
        [
            f"<h2>{escape(report.candidate)}</h2><p>{escape(_meaning(report, largest))}</p>",
            _figure(first.astype(np.uint8), f"{report.reference} (the reference)"),
            _figure(second.astype(np.uint8), report.candidate),
            _figure(amplified, f"their difference, {gain:.3g} times as bright as it is"),
            '<div class="plots">',
            svg(histogram(difference.ravel(), title="Differences of pixels", x_label="of 255")),
            svg(_grid(report.forward)) if any(error.labels for error in report.forward) else "",
            "</div>",
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


def _meaning(report: Report, largest: float) -> str:
    """The numbers in words."""
    if largest < 0.5:
        seen = f"No pixel differs by more than {largest:.2g} of 255: the pictures cannot be told apart."
    else:
        seen = f"The largest difference of a pixel is {largest:.3g} of 255."
    beyond = "" if report.passed else " That is beyond the tolerance: look at the time and the step where the curves rise."
    return f"{seen} {_course(report)} the final latents are off by {report.sample_relative_l2:.1e}.{beyond}"


def _course(report: Report) -> str:
    """From a single evaluation to the end."""
    if report.worst_forward is None:
        return "Of the network there is nothing to see here, but what it drew:"
    worst = max(report.forward, key=lambda error: error.worst)
    label = max(worst.labels, key=lambda error: error.relative_l2, default=None)
    under = f" under label {label.label}" if label else ""
    growth = report.sample_relative_l2 / report.worst_forward if report.worst_forward else 1.0
    course = "sampling damps it" if growth < 1 else "sampling amplifies it"
    return (
        f"A single evaluation is off by at most {worst.worst:.1e}, at time {worst.time:g}{under}; over"
        f" {report.steps} steps {course}:"
    )


def _drift(reports: Sequence[Report]) -> Figure:
    series = {report.candidate: list(enumerate(report.drift, start=report.steps - len(report.drift) + 1)) for report in reports}
    return line_chart(series, title="Drift of the latents", x_label="steps done", y_label="relative L2 error", log_y=True)


def _forward(reports: Sequence[Report]) -> Figure:
    series = {
        report.candidate: [(error.time, error.relative_l2) for error in report.forward] for report in reports if report.forward
    }
    return line_chart(series, title="Error of one evaluation", x_label="time", y_label="relative L2 error", log_y=True)


def _grid(forward: Sequence[ForwardError]) -> Figure:
    """The error under each label at each time."""
    return heat_map(
        [[error.labels[i].relative_l2 for error in forward] for i in range(len(forward[0].labels))],
        rows=[error.label for error in forward[0].labels],
        columns=[f"{error.time:g}" for error in forward],
        title="Error under each label",
        x_label="time",
        scale="relative L2 error",
    )


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

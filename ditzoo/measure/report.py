"""A parity report as one HTML file that contains its pictures and plots."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from PIL import Image

from ditzoo.errors import MissingPackageError
from ditzoo.measure.bisection import Bisection
from ditzoo.measure.differences import Difference, picture_difference
from ditzoo.measure.parity import Comparison, ForwardError, Report
from ditzoo.measure.plots import Points, block_chart, check_matplotlib, heat_map, histogram, line_chart, svg
from ditzoo.pictures.sheets import contact_sheet, png_bytes
from ditzoo.zoo.card import Card
from ditzoo.zoo.class_names import captions, labels_of

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

TEMPLATE = "report.html.jinja"
COLUMNS = 10

_ERROR = "relative L2 error"


class _Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A contact sheet as a data URL, with its caption."""

    data: str
    caption: str


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """A section of the report. The plots are SVG elements."""

    title: str
    text: str
    pictures: tuple[_Picture, ...] = ()
    plots: tuple[Markup, ...]


def html(
    card: Card,
    comparisons: Sequence[Comparison],
    bisections: Sequence[Bisection] = (),
    *,
    classes: Sequence[int] = (),
    origin: Mapping[str, str] | None = None,
) -> str:
    """The report on the `comparisons` of one model, all with the same reference, and on the `bisections`, if there are any.

    `classes` are the classes of the pictures, whose names stand above them. `origin` says where the numbers come from: see
    `ditzoo.measure.provenance`.

    Raises MissingPackageError if matplotlib or jinja2 is not installed.
    """
    check_packages()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    reports = [comparison.report for comparison in comparisons]
    environment = Environment(loader=PackageLoader("ditzoo.measure", ""), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(TEMPLATE).render(
        model=card.name,
        passed=all(report.passed for report in reports),
        reports=reports,
        origin=origin or {},
        plots=_plots(_drift(reports), _forward(reports) if any(report.forward for report in reports) else None),
        sections=[
            *(_section(card, comparison, captions(card, classes)) for comparison in comparisons),
            *map(_block_by_block, bisections),
        ],
    )


def check_packages() -> None:
    """Raises MissingPackageError, with the pip command, if matplotlib or jinja2 is not installed."""
    check_matplotlib()
    if find_spec("jinja2") is None:
        raise MissingPackageError("reports need jinja2: pip install 'ditzoo[report]'")


def _plots(*figures: Figure | None) -> tuple[Markup, ...]:
    """The figures as SVG elements, which the template takes as they are."""
    from markupsafe import Markup

    return tuple(Markup(svg(figure)) for figure in figures if figure is not None)  # noqa: S704  # our own plots


def _section(card: Card, comparison: Comparison, names: Sequence[str]) -> _Section:
    """The section of one comparison: an explanation of its numbers, the pictures under their `names`, and the differences."""
    report = comparison.report
    first, second = comparison.reference_pixels, comparison.candidate_pixels
    difference = picture_difference(second, first)
    return _Section(
        title=report.candidate,
        text=_meaning(card, report, difference.largest),
        pictures=(
            _picture(first.astype(np.uint8), f"{report.reference} (the reference)", names),
            _picture(second.astype(np.uint8), report.candidate, names),
            _picture(difference.pictures, f"the difference of both, amplified {difference.gain:.3g} times", names),
        ),
        plots=_plots(
            _differences(report, difference),
            _grid(card, report.forward) if any(error.labels for error in report.forward) else None,
        ),
    )


def _block_by_block(bisection: Bisection) -> _Section:
    """The section of one bisection: the verdict, and the error of every block."""
    chart = block_chart(
        {f"time {moment.time:g}": moment.blocks for moment in bisection.moments},
        limit=bisection.tolerance,
        title="Error of each block's output",
        y_label="relative L2 error",
        limit_label="limit",
    )
    return _Section(title=f"Block by block: {bisection.candidate}", text=f"{bisection.verdict}.", plots=_plots(chart))


def _meaning(card: Card, report: Report, largest: float) -> str:
    """The numbers of a report in sentences."""
    if largest < 0.5:
        seen = f"No pixel differs by more than {largest:.2g} of 255: the pictures look the same."
    else:
        seen = f"The largest difference between two pixels is {largest:.3g} of 255."
    beyond = (
        ""
        if report.passed
        else " This exceeds the tolerance. The curves show at which time and after which step the error rises."
    )
    return f"{seen} {_course(card, report)} The error of the final latents is {report.sample_relative_l2:.1e}.{beyond}"


def _course(card: Card, report: Report) -> str:
    """Sentences on the error of a single evaluation, and on how sampling changes it."""
    if report.worst_forward is None:
        return "The candidate is known only by its latents, so single evaluations were not compared."
    worst = max(report.forward, key=lambda error: error.worst)
    label = max(worst.labels, key=lambda error: error.relative_l2, default=None)
    under = "" if label is None else f" with {'the class ' * label.label.isdecimal()}{_label_name(card, label.label)}"
    growth = report.sample_relative_l2 / report.worst_forward if report.worst_forward else 1.0
    course = "reduces" if growth < 1 else "amplifies"
    return (
        f"The largest error of a single evaluation is {worst.worst:.1e}, at time {worst.time:g}{under}."
        f" Sampling over {report.steps} steps {course} it."
    )


def _drift(reports: Sequence[Report]) -> Figure:
    series: dict[str, Points] = {
        report.candidate: list(enumerate(report.drift, start=report.steps - len(report.drift) + 1)) for report in reports
    }
    return _errors(series, title="Drift of the latents", x_label="steps done", limits=_limits(reports, "sample"))


def _forward(reports: Sequence[Report]) -> Figure:
    series: dict[str, Points] = {
        report.candidate: [(error.time, error.relative_l2) for error in report.forward] for report in reports if report.forward
    }
    return _errors(series, title="Error of one evaluation", x_label="time", limits=_limits(reports, "forward"))


def _errors(series: Mapping[str, Points], *, title: str, x_label: str, limits: Mapping[str, float]) -> Figure:
    return line_chart(series, title=title, x_label=x_label, y_label="relative L2 error", log_y=True, limits=limits)


def _limits(reports: Sequence[Report], name: str) -> dict[str, float]:
    """The limits called `name` of the precisions in the reports."""
    return {f"limit for {report.precision}": getattr(report.tolerance, name) for report in reports}


def _differences(report: Report, difference: Difference) -> Figure:
    """The differences of the pixels, and the limit: the root of their mean square that gives the smallest PSNR allowed."""
    with np.errstate(over="ignore"):
        limit = float(255 * np.power(10.0, -report.tolerance.psnr / 20))
    return histogram(
        difference.values.ravel(),
        title="Differences of pixels",
        x_label="difference (pixel values are 0 to 255); the first bar has all smaller ones",
        limits={f"limit of the root mean square: {limit:.2g}": limit},
    )


def _label_name(card: Card, label: str) -> str:
    """What to call the label of an evaluation for a reader: "star (9)", "3", "prompt 0", "no class" or "no prompt"."""
    if label == "null":
        return "no class" if card.text is None else "no prompt"
    return labels_of(card, [int(label)])[0] if label.isdecimal() else label


def _grid(card: Card, forward: Sequence[ForwardError]) -> Figure:
    """The error under each label at each time."""
    return heat_map(
        [[error.labels[i].relative_l2 for error in forward] for i in range(len(forward[0].labels))],
        rows=[_label_name(card, error.label) for error in forward[0].labels],
        columns=[f"{error.time:g}" for error in forward],
        title="Error under each label",
        x_label="time",
        scale="relative L2 error",
    )


def _picture(pictures: np.ndarray, caption: str, names: Sequence[str]) -> _Picture:
    sheet = contact_sheet(pictures, columns=min(len(pictures), COLUMNS), captions=names)
    return _Picture(data=_data_url(sheet), caption=caption)


def _data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"

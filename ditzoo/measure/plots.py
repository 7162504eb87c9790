"""Plots by matplotlib, drawn without its global state."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ditzoo.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LIMIT = "#b91c1c"
"""The colour of the lines that show limits."""

_DASHES = ("--", ":", "-.")

Points = Sequence[tuple[float, float]]


def line_chart(
    series: Mapping[str, Points],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    limits: Mapping[str, float] | None = None,
) -> Figure:
    """Lines with a legend; `series` maps a name to its points, and `limits` the name of a dashed line to its height.

    If every x is a whole number, so are the numbers on a linear x axis.

    Raises MissingPackageError without matplotlib.
    """
    figure = _figure()
    log_y = log_y and any(y > 0 for points in series.values() for _, y in points)  # matplotlib warns if no value is positive
    axes = figure.add_subplot(
        title=title, xlabel=x_label, ylabel=y_label, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear"
    )
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=3, label=name)
    for number, (name, limit) in enumerate((limits or {}).items()):
        axes.axhline(limit, color=_LIMIT, linestyle=_DASHES[number % len(_DASHES)], linewidth=1, label=name)
    if not log_x and all(float(x).is_integer() for points in series.values() for x, _ in points):
        axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def block_chart(
    series: Mapping[str, Mapping[str, float]], *, limit: float, title: str, y_label: str, limit_label: str
) -> Figure:
    """Lines on a logarithmic scale over names, such as the names of blocks, and a dashed line at `limit`.

    All `series` must have the same names.
    """
    figure = _figure(width=9.6, height=4.8)
    axes = figure.add_subplot(title=title, ylabel=y_label)
    axes.set_yscale("log", nonpositive="mask")
    for name, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", markersize=3, label=name)
    axes.axhline(limit, color=_LIMIT, linestyle="--", linewidth=1, label=limit_label)
    axes.tick_params(axis="x", rotation=90, labelsize="xx-small")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def histogram(
    values: npt.NDArray[np.floating], *, title: str, x_label: str, limits: Mapping[str, float], bins: int = 50
) -> Figure:
    """The number of values, which are 0 or more, in each of `bins` intervals. Both scales are logarithmic.

    `limits` maps the name of a dashed line to its place. Zero and infinity have no place on the scale, so they are left out.
    Values below a ten-thousandth of the largest are counted in the first interval.
    """
    figure = _figure()
    axes = figure.add_subplot(title=title, xlabel=x_label, ylabel="count", xscale="log", yscale="log")
    lines = {name: limit for name, limit in limits.items() if 0 < limit < np.inf}
    largest = float(values.max()) or max(lines.values(), default=1.0)
    edges = np.geomspace(1e-4 * largest, largest, bins + 1)
    axes.hist(np.clip(values, edges[0], edges[-1]), bins=edges.tolist())
    for name, limit in lines.items():
        axes.axvline(limit, color=_LIMIT, linestyle="--", linewidth=1, label=name)
    axes.grid(alpha=0.3)
    if lines:
        axes.legend(fontsize="small")
    return figure


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    x_label: str,
    scale: str,
) -> Figure:
    """A table of numbers as colours on a logarithmic scale. Zeros stay white. `scale` is the label of the colours."""
    from matplotlib.colors import LogNorm

    figure, table = _figure(), np.array(values)
    shown = np.ma.masked_less_equal(table, 0)
    axes = figure.add_subplot(title=title, xlabel=x_label)
    low, high = (shown.min(), shown.max()) if shown.count() else (1.0, 1.0)
    drawn = axes.pcolormesh(shown, norm=LogNorm(low, 10 * low if high == low else high))
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    figure.colorbar(drawn, label=scale)
    return figure


def svg(figure: Figure) -> str:
    """The figure as an <svg> element, which has its titles and labels for screen readers too.

    The same figure always gives the same text.
    """
    from html import escape

    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "ditzoo", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    parts = [part for axes in figure.axes for part in (axes.get_title(), axes.get_ylabel(), axes.get_xlabel()) if part]
    label = escape("; ".join(dict.fromkeys(parts)), quote=True)
    return text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def check_matplotlib() -> None:
    """Raises MissingPackageError, with the pip command, if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingPackageError("plots need matplotlib: pip install 'ditzoo[report]'")


def _figure(*, width: float = 6.4, height: float = 3.6) -> Figure:
    check_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")

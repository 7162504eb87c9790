"""The diagrams of the pages. Each is a text: boxes in a grid, and arrows between them. `svg` draws it."""

from __future__ import annotations

from html import escape

from ditzoo.records import Data

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN, _LINE = 148, 62, 56, 44, 14, 17

_STYLE = """
text { font: 14px system-ui, sans-serif; fill: #222; text-anchor: middle; }
.note { font-size: 12px; fill: #555; }
rect { fill: #eef1fb; stroke: #4051b5; rx: 8px; }
path { fill: none; stroke: #555; }
marker path { fill: #555; }
@media (prefers-color-scheme: dark) {
  text { fill: #eee; } .note { fill: #bbb; } rect { fill: #2a2f45; stroke: #8c9eff; }
  path { stroke: #bbb; } marker path { fill: #bbb; }
}
"""


class Box(Data, frozen=True, kw_only=True):
    """A box in a column and a row of the grid, with a text of one to three lines."""

    column: float
    row: float
    text: str


class Arrow(Data, frozen=True, kw_only=True):
    """An arrow from a box to another one, by their numbers, with a note beside it."""

    start: int
    end: int
    note: str = ""


class Diagram(Data, frozen=True, kw_only=True):
    """A diagram, and what it shows, for readers who cannot see it."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


DIAGRAMS = {
    "data": Diagram(
        title="A card leads to weights, the weights to a network in PyTorch, the network to a bundle. Backends run them all."
        " The sample loop runs a plan on any backend, and its latents are decoded, compared and measured.",
        boxes=(
            Box(column=0, row=0, text="card\na model as data"),
            Box(column=1, row=0, text="weights\nsafetensors"),
            Box(column=2, row=0, text="network\nPyTorch"),
            Box(column=3, row=0, text="bundle\nONNX, plan, card"),
            Box(column=4, row=0, text="engines\nTensorRT"),
            Box(column=3, row=1, text="backend\n(x, t, condition)\n→ prediction"),
            Box(column=1, row=1, text="plan\na sampler as a table"),
            Box(column=2, row=2, text="sample loop\nlatents"),
            Box(column=3, row=2, text="decoder\npictures"),
            Box(column=4, row=2, text="parity, bench\nnumbers"),
        ),
        arrows=(
            Arrow(start=0, end=1, note="pull"),
            Arrow(start=1, end=2, note="load"),
            Arrow(start=2, end=3, note="export"),
            Arrow(start=3, end=4, note="build"),
            Arrow(start=2, end=5),
            Arrow(start=3, end=5),
            Arrow(start=4, end=5),
            Arrow(start=0, end=6, note="trace"),
            Arrow(start=6, end=7),
            Arrow(start=5, end=7),
            Arrow(start=7, end=8, note="decode"),
            Arrow(start=8, end=9, note="compare"),
        ),
    ),
    "conditioning": Diagram(
        title="Without the split, every step reads all weights. With it, the graph conditioning computes the modulations of all"
        " steps once, and every step reads the backbone only.",
        boxes=(
            Box(column=0, row=0, text="times of all steps\nlabels"),
            Box(column=1, row=0, text="conditioning\nonce for a plan"),
            Box(column=2, row=0, text="modulations\n[step, label]"),
            Box(column=0, row=1, text="latents x[i]"),
            Box(column=1, row=1, text="backbone\nonce for a step"),
            Box(column=2, row=1, text="prediction e[i]"),
        ),
        arrows=(
            Arrow(start=0, end=1),
            Arrow(start=1, end=2),
            Arrow(start=2, end=4, note="of step i"),
            Arrow(start=3, end=4),
            Arrow(start=4, end=5),
        ),
    ),
    "parity": Diagram(
        title="One plan and one set of noise go to the reference and to the candidate. Single evaluations, latents and pictures"
        " are compared, and each difference is held against the limit of its precision.",
        boxes=(
            Box(column=0, row=0.5, text="one plan\none set of noise"),
            Box(column=1, row=0, text="reference\ntorch fp32"),
            Box(column=1, row=1, text="candidate\nonnxruntime int8"),
            Box(column=2, row=0.5, text="forward, drift,\nPSNR, SSIM"),
            Box(column=3, row=0.5, text="limits of int8\npass or fail"),
        ),
        arrows=(
            Arrow(start=0, end=1),
            Arrow(start=0, end=2),
            Arrow(start=1, end=3),
            Arrow(start=2, end=3),
            Arrow(start=3, end=4),
        ),
    ),
}


def svg(diagram: Diagram) -> str:
    """The diagram as SVG. It loads nothing, and follows the reader's light or dark colours."""
    width = max(_left(box) for box in diagram.boxes) + _WIDTH + _MARGIN
    height = max(_top(box) for box in diagram.boxes) + _HEIGHT + _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
        f"<title>{escape(diagram.title)}</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z"/></marker></defs>',
        *(line for arrow in diagram.arrows for line in _arrow(arrow, diagram)),
        *(line for box in diagram.boxes for line in _box(box)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _left(box: Box) -> float:
    return _MARGIN + box.column * (_WIDTH + _GAP_X)


def _top(box: Box) -> float:
    return _MARGIN + box.row * (_HEIGHT + _GAP_Y)


def _box(box: Box) -> list[str]:
    left, top, texts = _left(box), _top(box), box.text.split("\n")
    first = top + _HEIGHT / 2 - (len(texts) - 1) * _LINE / 2 + 5
    rectangle = f'<rect x="{left:g}" y="{top:g}" width="{_WIDTH}" height="{_HEIGHT}"/>'
    middle = left + _WIDTH / 2
    lines = [f'<text x="{middle:g}" y="{first:g}">{escape(texts[0])}</text>']
    lines += [
        f'<text class="note" x="{middle:g}" y="{first + i * _LINE:g}">{escape(text)}</text>'
        for i, text in enumerate(texts)
        if i
    ]
    return [rectangle, *lines]


def _arrow(arrow: Arrow, diagram: Diagram) -> list[str]:
    """A line from the nearest side of one box to that of the other: left and right if they are further apart so."""
    start, end = diagram.boxes[arrow.start], diagram.boxes[arrow.end]
    right, down = end.column - start.column, end.row - start.row
    sideways = abs(right) > abs(down)
    x1, y1 = _side(start, right if sideways else 0, 0 if sideways else down)
    x2, y2 = _side(end, -right if sideways else 0, 0 if sideways else -down)
    lines = [f'<path d="M{x1:g} {y1:g} {x2:g} {y2:g}" marker-end="url(#head)"/>']
    if arrow.note:
        lines.append(f'<text class="note" x="{(x1 + x2) / 2:g}" y="{(y1 + y2) / 2 - 6:g}">{escape(arrow.note)}</text>')
    return lines


def _side(box: Box, right: float, down: float) -> tuple[float, float]:
    """The middle of the side of a box that faces a direction."""
    x = _left(box) + (_WIDTH if right > 0 else 0 if right < 0 else _WIDTH / 2)
    y = _top(box) + (_HEIGHT if down > 0 else 0 if down < 0 else _HEIGHT / 2)
    return x, y

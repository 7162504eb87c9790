"""Filled outlines on a square picture, drawn large and averaged down, so that their edges are smooth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

SIDE = 32
"""The height and width of a picture, in pixels."""

_FINER = 6
"""A picture is drawn this many times larger than it will be."""


class Canvas:
    """A square picture. Its coordinates x and y run from −1 to 1, to the right and downwards.

    Shapes that are filled after `place` are turned, scaled and moved together. `fill_scene` ignores that.
    """

    def __init__(self, background: Colour) -> None:
        self._image = Image.new("RGB", (SIDE * _FINER, SIDE * _FINER), background)
        self._draw = ImageDraw.Draw(self._image)
        self.place(centre=(0.0, 0.0), scale=1.0, angle=0.0)

    def place(self, *, centre: Point, scale: float, angle: float, mirrored: bool = False) -> None:
        """What follows is mirrored if asked for, then scaled, turned by `angle` degrees clockwise, and moved to `centre`."""
        cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
        flip = -1.0 if mirrored else 1.0
        self._matrix = np.array([[flip * cos, flip * sin], [-sin, cos]])
        self._centre = np.array(centre)

    def fill(self, outline: Sequence[Point], colour: Colour) -> None:
        """Fills the inside of a closed outline, at the place that `place` chose."""
        self._fill(np.array(outline) @ self._matrix + self._centre, colour)

    def fill_scene(self, outline: Sequence[Point], colour: Colour) -> None:
        """Fills the inside of a closed outline, where its coordinates say."""
        self._fill(np.array(outline), colour)

    def _fill(self, points: npt.NDArray[np.float64], colour: Colour) -> None:
        pixels = (points + 1) * (SIDE * _FINER / 2)
        self._draw.polygon([(x, y) for x, y in pixels.tolist()], fill=colour)

    def picture(self) -> npt.NDArray[np.uint8]:
        """The picture [SIDE, SIDE, 3]."""
        return np.asarray(self._image.reduce(_FINER))


def ellipse(x: float, y: float, rx: float, ry: float | None = None, *, start: float = 0.0, end: float = 360.0) -> list[Point]:
    """The outline of an ellipse with the radii `rx` and `ry` (default: a circle), or its arc between two angles in degrees.

    An angle of 0 is on the right, and angles grow clockwise.
    """
    ry = rx if ry is None else ry
    angles = np.radians(np.linspace(start, end, 49))
    return list(zip((x + rx * np.cos(angles)).tolist(), (y + ry * np.sin(angles)).tolist(), strict=True))


def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """The outline of a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def rounded_box(left: float, top: float, right: float, bottom: float, radius: float) -> list[Point]:
    """The outline of a rectangle with round corners."""
    corners = (
        (right - radius, top + radius, 270),
        (right - radius, bottom - radius, 0),
        (left + radius, bottom - radius, 90),
        (left + radius, top + radius, 180),
    )
    return [point for x, y, start in corners for point in ellipse(x, y, radius, start=start, end=start + 90)]


def spikes(count: int, inner: float, outer: float, *, turn: float = 0.0) -> list[Point]:
    """The outline of a star around (0, 0) with `count` points at the radius `outer`, and corners at `inner` between them."""
    angles = [math.radians(turn - 90 + 180 * i / count) for i in range(2 * count)]
    radii = (outer, inner) * count
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def turned(outline: Iterable[Point], angle: float) -> list[Point]:
    """An outline that is turned around (0, 0) by `angle` degrees clockwise."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in outline]

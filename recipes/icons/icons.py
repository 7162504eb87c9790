"""The twelve icons. Each is a function that fills shapes on a canvas, with colours and proportions drawn at random.

An icon fills about −0.8 to 0.8 of the canvas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from recipes.icons.canvas import Canvas, Colour, Point, box, ellipse, rounded_box, spikes, turned

Random: TypeAlias = np.random.Generator

WHITE, BLACK, CREAM = (250, 250, 250), (40, 38, 46), (255, 246, 224)
SKIES = ((190, 225, 250), (150, 205, 245), (215, 240, 255), (255, 225, 195), (250, 205, 215), (205, 235, 225))
PLAIN = (*SKIES, (250, 240, 215), (235, 235, 240), (225, 215, 245), (255, 250, 200), (70, 80, 110), (60, 100, 110))
NIGHTS = ((24, 30, 72), (40, 34, 88), (18, 48, 84), (52, 40, 76), (14, 22, 48))
WATERS = ((120, 200, 235), (90, 175, 225), (60, 140, 205), (140, 220, 225), (50, 165, 180))
MEADOWS = ((120, 190, 90), (150, 205, 100), (95, 165, 85), (175, 210, 120), (200, 185, 130))
BRIGHT = ((220, 50, 50), (240, 130, 40), (245, 190, 40), (60, 150, 80), (45, 110, 200), (130, 70, 170), (230, 90, 150))
WOODS = ((120, 80, 50), (145, 98, 60), (100, 70, 55))
GREENS = ((50, 140, 70), (80, 165, 75), (40, 120, 85), (110, 175, 60))


def pick(random: Random, colours: Sequence[Colour]) -> Colour:
    """One of the colours, changed a little."""
    red, green, blue = colours[int(random.integers(len(colours)))]
    change = random.integers(-12, 13, size=3)
    return shade((red + int(change[0]), green + int(change[1]), blue + int(change[2])), 1.0)


def contrast(random: Random, colours: Sequence[Colour], background: Colour) -> Colour:
    """One of the colours that differ clearly from the background, changed a little."""
    clear = [colour for colour in colours if sum(abs(a - b) for a, b in zip(colour, background, strict=True)) >= 170]
    return pick(random, clear)


def shade(colour: Colour, factor: float) -> Colour:
    """A colour that is darker (factor < 1) or lighter (factor > 1)."""
    red, green, blue = (min(255, max(0, round(value * factor))) for value in colour)
    return red, green, blue


def between(random: Random, low: float, high: float) -> float:
    """A number from `low` to `high`."""
    return float(random.uniform(low, high))


def _ground(canvas: Canvas, random: Random, colours: Sequence[Colour], *, top: float) -> None:
    canvas.fill_scene(box(-1, top, 1, 1), pick(random, colours))


def _placed(canvas: Canvas, random: Random, *, angle: float, mirrored: bool = False) -> None:
    """Puts the icon near the middle, at a size of 0.8 to 1.05, turned by at most `angle` degrees, and perhaps mirrored."""
    centre = (between(random, -0.1, 0.1), between(random, -0.1, 0.1))
    turn = between(random, -angle, angle)
    flip = mirrored and bool(random.random() < 0.5)
    canvas.place(centre=centre, scale=between(random, 0.8, 1.05), angle=turn, mirrored=flip)


def _standing(canvas: Canvas, random: Random, *, mirrored: bool = False) -> None:
    """Puts the icon upright, with its foot, at y = 0.7, a little lower or higher on the ground."""
    scale = between(random, 0.8, 1.0)
    flip = mirrored and bool(random.random() < 0.5)
    canvas.place(
        centre=(between(random, -0.12, 0.12), 0.7 - 0.7 * scale + between(random, -0.05, 0.05)),
        scale=scale,
        angle=0.0,
        mirrored=flip,
    )


def apple(random: Random) -> Canvas:
    canvas = Canvas(pick(random, PLAIN[:-2]))
    _placed(canvas, random, angle=12, mirrored=True)
    colour = pick(random, ((215, 40, 45), (200, 30, 60), (120, 185, 60), (235, 185, 60)))
    width, dent = between(random, 0.36, 0.42), between(random, 0.26, 0.3)
    canvas.fill(turned(box(-0.045, -0.78, 0.045, -0.3), between(random, 4, 14)), pick(random, WOODS))
    leaf = turned(ellipse(0.0, 0.0, between(random, 0.2, 0.26), 0.1), -28)
    canvas.fill([(x + 0.27, y - 0.56) for x, y in leaf], pick(random, GREENS))
    for side in (-1, 1):
        canvas.fill(ellipse(side * dent, 0.05, width, 0.47), colour)
        canvas.fill(ellipse(side * 0.2, 0.34, 0.32, 0.36), colour)
    canvas.fill(box(-0.2, -0.25, 0.2, 0.6), colour)
    canvas.fill(ellipse(0, -0.42, 0.13, 0.12), shade(colour, 0.72))
    shine = turned(ellipse(0, 0, 0.08, 0.17), 22)
    canvas.fill([(x - 0.36, y - 0.08) for x, y in shine], shade(colour, 1.35) if sum(colour) > 400 else (255, 170, 165))
    return canvas


def boat(random: Random) -> Canvas:
    canvas = Canvas(pick(random, SKIES))
    water, level = pick(random, WATERS[1:4]), between(random, 0.38, 0.5)
    canvas.fill_scene(box(-1, level, 1, 1), water)
    flip, scale = bool(random.random() < 0.5), between(random, 0.85, 1.05)
    canvas.place(
        centre=(between(random, -0.1, 0.1), level - 0.45 * scale), scale=scale, angle=between(random, -5, 5), mirrored=flip
    )
    hull, sail = pick(random, BRIGHT), pick(random, (WHITE, CREAM, WHITE, *BRIGHT[:3]))
    mast = between(random, -0.1, 0.0)
    canvas.fill(box(mast - 0.035, -0.85, mast + 0.035, 0.3), pick(random, WOODS))
    canvas.fill([(mast + 0.07, -0.82), (mast + between(random, 0.55, 0.68), 0.12), (mast + 0.07, 0.12)], sail)
    canvas.fill([(mast - 0.07, -0.6), (mast - between(random, 0.38, 0.48), 0.12), (mast - 0.07, 0.12)], shade(sail, 0.88))
    canvas.fill([(-0.75, 0.24), (0.8, 0.24), (0.55, 0.62), (-0.52, 0.62)], hull)
    canvas.fill([(-0.75, 0.24), (0.8, 0.24), (0.74, 0.33), (-0.69, 0.33)], shade(hull, 0.75))
    waves = [(x, level + 0.2 + 0.05 * math.cos(9 * x)) for x in np.linspace(-1, 1, 60).tolist()]
    canvas.fill_scene([*waves, (1.0, 1.0), (-1.0, 1.0)], shade(water, 0.86))
    return canvas


def car(random: Random) -> Canvas:
    canvas = Canvas(pick(random, SKIES))
    _ground(canvas, random, ((110, 112, 120), (140, 140, 146), (88, 92, 102)), top=between(random, 0.4, 0.55))
    _standing(canvas, random, mirrored=True)
    body, glass = pick(random, BRIGHT), pick(random, ((205, 235, 250), (175, 215, 235)))
    roof, front = between(random, -0.32, -0.2), between(random, 0.34, 0.46)
    canvas.fill([(-0.62, 0.12), (-0.42, roof), (0.2, roof), (front, 0.12)], body)
    canvas.fill([(-0.47, 0.1), (-0.35, roof + 0.09), (-0.12, roof + 0.09), (-0.12, 0.1)], glass)
    canvas.fill([(-0.03, 0.1), (-0.03, roof + 0.09), (0.16, roof + 0.09), (front - 0.13, 0.1)], glass)
    canvas.fill(rounded_box(-0.85, 0.08, 0.88, 0.52, 0.14), body)
    canvas.fill(box(-0.84, 0.36, 0.87, 0.46), shade(body, 0.75))
    canvas.fill(ellipse(0.8, 0.2, 0.065, 0.075), (255, 240, 150))
    size = between(random, 0.18, 0.22)
    for x in (-0.45, 0.48):
        canvas.fill(ellipse(x, 0.5, size), BLACK)
        canvas.fill(ellipse(x, 0.5, 0.45 * size), (205, 205, 212))
    return canvas


def cat(random: Random) -> Canvas:
    canvas = Canvas(pick(random, PLAIN))
    _placed(canvas, random, angle=10)
    fur = pick(random, ((235, 150, 60), (150, 150, 158), (70, 66, 74), (225, 200, 165), (150, 105, 75), (242, 240, 236)))
    inner, pale = (245, 170, 175), shade(fur, 1.25) if sum(fur) < 560 else WHITE
    width, ear = between(random, 0.62, 0.7), between(random, 0.72, 0.82)
    for side in (-1, 1):
        canvas.fill([(side * 0.64, 0.0), (side * 0.6, -ear), (side * 0.08, -0.38)], fur)
        canvas.fill([(side * 0.54, -0.2), (side * 0.52, -ear + 0.19), (side * 0.22, -0.38)], inner)
    canvas.fill(ellipse(0, 0.12, width, 0.56), fur)
    canvas.fill(ellipse(0, 0.36, 0.3, 0.22), pale)
    iris = pick(random, ((120, 190, 70), (235, 190, 50), (80, 160, 210)))
    for side in (-1, 1):
        canvas.fill(ellipse(side * 0.28, 0.03, 0.15, 0.17), iris if sum(fur) < 330 else WHITE)
        canvas.fill(ellipse(side * 0.27, 0.04, 0.08, 0.13), BLACK)
    canvas.fill([(-0.09, 0.23), (0.09, 0.23), (0, 0.34)], (215, 95, 110))
    canvas.fill([(-0.025, 0.32), (0.025, 0.32), (0.025, 0.46), (-0.025, 0.46)], BLACK)
    for side in (-1, 1):
        for y, slope in ((0.28, -0.06), (0.4, 0.06)):
            canvas.fill(
                [
                    (side * 0.4, y - 0.02),
                    (side * 0.85, y + slope - 0.02),
                    (side * 0.85, y + slope + 0.02),
                    (side * 0.4, y + 0.02),
                ],
                shade(fur, 0.6),
            )
    return canvas


def fish(random: Random) -> Canvas:
    canvas = Canvas(pick(random, WATERS))
    _placed(canvas, random, angle=14, mirrored=True)
    body = pick(random, ((245, 140, 40), (240, 90, 60), (250, 205, 60), (235, 110, 150), (240, 240, 235), (150, 90, 190)))
    dark, height = shade(body, 0.78), between(random, 0.36, 0.46)
    tail = between(random, 0.34, 0.44)
    canvas.fill([(0.38, 0.02), (0.86, -tail), (0.74, 0.02), (0.86, tail)], dark)
    canvas.fill([(-0.2, -height + 0.06), (0.1, -height - 0.22), (0.32, -0.2)], dark)
    canvas.fill([(-0.1, height - 0.06), (0.1, height + 0.16), (0.26, 0.2)], dark)
    canvas.fill(ellipse(-0.1, 0.0, 0.62, height), body)
    if random.random() < 0.5:
        for x in (-0.12, 0.18):
            half = 0.92 * height * math.sqrt(1 - ((x + 0.1) / 0.62) ** 2)
            canvas.fill(rounded_box(x - 0.065, -half, x + 0.065, half, 0.06), WHITE if sum(body) < 600 else (245, 140, 40))
    else:
        canvas.fill([(0.0, -0.06), (0.26, -0.14), (0.26, 0.2), (0.0, 0.1)], dark)
    canvas.fill(ellipse(-0.42, -0.1, 0.115), WHITE)
    canvas.fill(ellipse(-0.44, -0.1, 0.065), BLACK)
    for x, y, radius in ((-0.86, -0.42, 0.075), (-0.74, -0.7, 0.055)):
        canvas.fill(ellipse(x, y + between(random, -0.06, 0.06), radius), (225, 245, 255))
    return canvas


def flower(random: Random) -> Canvas:
    canvas = Canvas(pick(random, SKIES))
    if random.random() < 0.5:
        _ground(canvas, random, MEADOWS, top=between(random, 0.55, 0.75))
    canvas.place(
        centre=(between(random, -0.1, 0.1), between(random, -0.08, 0.05)),
        scale=between(random, 0.85, 1.05),
        angle=between(random, -8, 8),
    )
    stem = pick(random, GREENS)
    canvas.fill(box(-0.05, -0.2, 0.05, 1.1), stem)
    for side in (-1, 1):
        leaf = turned(ellipse(0, 0, 0.24, 0.1), -32 * side)
        canvas.fill([(x + 0.23 * side, y + 0.52) for x, y in leaf], shade(stem, 1.12))
    petal = pick(random, ((230, 70, 90), (240, 120, 170), (150, 90, 200), (252, 252, 252), (245, 150, 50), (80, 120, 220)))
    count, turn = int(random.integers(5, 8)), between(random, 0, 360)
    reach = between(random, 0.3, 0.34)
    for i in range(count):
        one = turned(ellipse(reach, 0, 0.21, 0.62 / count + 0.05), turn + 360 * i / count)
        canvas.fill([(x, y - 0.25) for x, y in one], petal if i % 2 or count % 2 else shade(petal, 0.93))
    canvas.fill(ellipse(0, -0.25, between(random, 0.15, 0.19)), pick(random, ((250, 205, 60), (245, 175, 50), (120, 75, 45))))
    return canvas


def heart(random: Random) -> Canvas:
    background = pick(random, (*PLAIN, WHITE, (40, 44, 66)))
    canvas = Canvas(background)
    _placed(canvas, random, angle=16)
    colour = contrast(random, ((225, 35, 60), (240, 80, 120), (200, 25, 45), (235, 110, 165), (150, 60, 175)), background)
    angles = np.linspace(0, 2 * np.pi, 80)
    x = 16 * np.sin(angles) ** 3
    y = 13 * np.cos(angles) - 5 * np.cos(2 * angles) - 2 * np.cos(3 * angles) - np.cos(4 * angles)
    width, height = between(random, 0.043, 0.049), between(random, 0.043, 0.048)
    outline: list[Point] = list(zip((width * x).tolist(), (-height * y - 0.08).tolist(), strict=True))
    if random.random() < 0.35:
        canvas.fill([(1.16 * px, 1.16 * py) for px, py in outline], pick(random, (WHITE, CREAM)))
    canvas.fill(outline, colour)
    shine = turned(ellipse(0, 0, 0.17, 0.09), -38)
    canvas.fill([(px - 0.36, py - 0.36) for px, py in shine], shade(colour, 1.5) if sum(colour) > 420 else (255, 150, 165))
    return canvas


def house(random: Random) -> Canvas:
    canvas = Canvas(pick(random, SKIES))
    _ground(canvas, random, MEADOWS, top=between(random, 0.42, 0.58))
    _standing(canvas, random, mirrored=True)
    wall = pick(random, (CREAM, (245, 220, 170), (235, 235, 235), (230, 160, 130), (170, 205, 225), (240, 200, 205)))
    roof = pick(random, ((190, 65, 50), (150, 75, 55), (90, 90, 110), (60, 110, 130), (125, 60, 80)))
    peak, eave = between(random, -0.8, -0.65), between(random, -0.18, -0.08)
    canvas.fill(box(0.28, -0.72, 0.46, -0.1), shade(roof, 0.75))
    canvas.fill(box(-0.55, eave - 0.05, 0.55, 0.7), wall)
    canvas.fill([(-0.76, eave), (0, peak), (0.76, eave)], roof)
    canvas.fill(box(-0.42, 0.2, -0.12, 0.7), pick(random, WOODS + BRIGHT[3:5]))
    glass = pick(random, ((120, 190, 230), (255, 225, 120)))
    canvas.fill(box(0.06, 0.1, 0.42, 0.42), WHITE if sum(wall) < 680 else shade(wall, 0.7))
    for left, top in ((0.1, 0.14), (0.26, 0.14), (0.1, 0.28), (0.26, 0.28)):
        canvas.fill(box(left, top, left + 0.12, top + 0.1), glass)
    return canvas


def moon(random: Random) -> Canvas:
    sky = pick(random, NIGHTS)
    canvas = Canvas(sky)
    count, turn = int(random.integers(3, 6)), between(random, 0, 360)
    for i in range(count):
        angle, far = math.radians(turn + 360 * (i + between(random, -0.3, 0.3)) / count), between(random, 0.86, 1.0)
        x, y = far * math.cos(angle), far * math.sin(angle)
        canvas.fill_scene(ellipse(x, y, between(random, 0.045, 0.07)), (250, 245, 215))
    _placed(canvas, random, angle=30, mirrored=True)
    colour = pick(random, ((250, 225, 130), (250, 240, 190), (240, 240, 245)))
    radius, shift = between(random, 0.55, 0.63), between(random, 0.24, 0.34)
    inner = between(random, 0.82, 0.9) * radius
    meet = (radius**2 - inner**2 + shift**2) / (2 * shift)  # where the two circles cross, along the line of their centres
    outer_angle, inner_angle = math.degrees(math.acos(meet / radius)), math.degrees(math.acos((meet - shift) / inner))
    rim = ellipse(0, 0, radius, start=outer_angle, end=360 - outer_angle)
    hollow = ellipse(shift, 0, inner, start=360 - inner_angle, end=inner_angle)
    canvas.fill(rim + hollow, colour)
    return canvas


def star(random: Random) -> Canvas:
    background = pick(random, (*PLAIN, (40, 44, 90), (120, 50, 90), (50, 110, 90)))
    canvas = Canvas(background)
    _placed(canvas, random, angle=20)
    colours = ((250, 200, 40), (250, 170, 40), (230, 70, 60), (70, 130, 220), (245, 225, 70), (250, 250, 245))
    colour = contrast(random, colours, background)
    inner, outer = between(random, 0.36, 0.46), between(random, 0.76, 0.84)
    outline = spikes(5, inner, outer)
    if random.random() < 0.35:
        canvas.fill([(1.14 * x, 1.14 * y) for x, y in outline], shade(colour, 0.65))
    canvas.fill(outline, colour)
    if random.random() < 0.5:
        for i in range(0, 10, 2):
            canvas.fill([(0.0, 0.0), outline[i], outline[i + 1]], shade(colour, 0.86))
    return canvas


def sun(random: Random) -> Canvas:
    canvas = Canvas(pick(random, (*SKIES[:3], *SKIES[:3], (255, 200, 150), (90, 160, 225))))
    _placed(canvas, random, angle=20)
    colour = pick(random, ((252, 205, 50), (252, 180, 40), (250, 150, 40)))
    count, core = int(random.integers(8, 13)), between(random, 0.38, 0.45)
    long, half = between(random, 0.74, 0.84), between(random, 5, 8)
    for i in range(count):
        angle = 360 * i / count
        ray = [(core + 0.09, -0.011 * half), (long, -0.004 * half), (long, 0.004 * half), (core + 0.09, 0.011 * half)]
        canvas.fill(turned(ray, angle), shade(colour, 0.97))
    canvas.fill(ellipse(0, 0, core), colour)
    canvas.fill(ellipse(0, 0, 0.78 * core), shade(colour, 1.12))
    return canvas


def tree(random: Random) -> Canvas:
    canvas = Canvas(pick(random, SKIES))
    _ground(canvas, random, MEADOWS, top=between(random, 0.5, 0.65))
    _standing(canvas, random, mirrored=True)
    trunk, green = pick(random, WOODS), pick(random, (*GREENS, *GREENS, (225, 130, 50), (235, 150, 170)))
    if random.random() < 0.45:
        canvas.fill(box(-0.09, 0.3, 0.09, 0.72), trunk)
        width = between(random, 0.5, 0.6)
        for i, (top, bottom) in enumerate(((0.0, 0.46), (-0.38, 0.1), (-0.8, -0.24))):
            half = width * (1 - 0.22 * i)
            canvas.fill([(0, top - 0.1), (half, bottom), (-half, bottom)], shade(green, 0.8 + 0.12 * i))
        return canvas
    canvas.fill([(-0.09, -0.1), (0.09, -0.1), (0.14, 0.72), (-0.14, 0.72)], trunk)
    for x, y, radius in ((-0.34, -0.12, 0.34), (0.34, -0.12, 0.34), (0.0, -0.05, 0.4), (0.0, -0.44, 0.42)):
        canvas.fill(ellipse(x, y, radius * between(random, 0.92, 1.08)), shade(green, 0.9))
    for x, y, radius in ((-0.14, -0.5, 0.2), (0.28, -0.2, 0.18), (-0.3, -0.12, 0.16)):
        canvas.fill(ellipse(x, y, radius * between(random, 0.9, 1.1)), shade(green, 1.1))
    return canvas


ICONS: dict[str, Callable[[Random], Canvas]] = {
    icon.__name__: icon for icon in (apple, boat, car, cat, fish, flower, heart, house, moon, star, sun, tree)
}
"""The icons by name, in the order of the class numbers."""

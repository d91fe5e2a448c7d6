"""Houses; rows of them are planted."""

from __future__ import annotations

import numpy as np

from spurbench.mini.drawing import Draw, Pen, jitter, pick, shade

_PLASTERS = [(225, 205, 170), (210, 150, 120), (230, 225, 215), (190, 200, 190)]


_ROOFS = [(150, 70, 50), (95, 80, 80), (120, 60, 55)]


def _windows(pen: Pen, xs: list[float], ys: list[float], width: float, height: float) -> None:
    for x in xs:
        for y in ys:
            pen.rectangle(
                x - width / 2 - 0.02,
                y - height / 2 - 0.02,
                x + width / 2 + 0.02,
                y + height / 2 + 0.02,
                (240, 238, 230),
            )
            pen.rectangle(
                x - width / 2, y - height / 2, x + width / 2, y + height / 2, (55, 70, 95)
            )


def _cottage(pen: Pen, rng: np.random.Generator) -> None:
    wall, roof = pick(rng, _PLASTERS), pick(rng, _ROOFS)
    pen.rectangle(-0.8, -0.1, 0.8, 0.9, wall)
    pen.rectangle(0.35, -0.75, 0.52, -0.2, shade(roof, 0.8))
    pen.polygon([(-1.0, -0.05), (-0.55, -0.75), (0.55, -0.75), (1.0, -0.05)], roof)
    pen.rectangle(-0.13, 0.35, 0.17, 0.9, (95, 60, 40))
    _windows(pen, [-0.48, 0.5], [0.3], 0.24, 0.26)


def _tower_house(pen: Pen, rng: np.random.Generator) -> None:
    wall, roof = pick(rng, [(180, 172, 160), (205, 195, 175)]), pick(rng, _ROOFS)
    pen.polygon([(-0.38, -0.45), (0.38, -0.45), (0.44, 0.95), (-0.44, 0.95)], wall)
    pen.polygon([(-0.52, -0.42), (0.0, -1.1), (0.52, -0.42)], roof)
    _windows(pen, [0.0], [-0.2, 0.2], 0.17, 0.22)
    pen.rectangle(-0.13, 0.55, 0.13, 0.95, (90, 60, 45))


def _barn(pen: Pen, rng: np.random.Generator) -> None:
    wood = pick(rng, [(155, 45, 40), (130, 55, 45), (110, 80, 60)])
    outline = [
        (-0.85, 0.9),
        (-0.85, -0.1),
        (-0.55, -0.55),
        (0, -0.85),
        (0.55, -0.55),
        (0.85, -0.1),
        (0.85, 0.9),
    ]
    pen.polygon(outline, wood)
    pen.line(outline[1:-1], 0.1, (90, 85, 85))
    pen.rectangle(-0.35, 0.2, 0.35, 0.9, shade(wood, 0.7))
    for path in (
        [(-0.35, 0.2), (0.35, 0.9)],
        [(0.35, 0.2), (-0.35, 0.9)],
        [(-0.35, 0.2), (0.35, 0.2)],
    ):
        pen.line(path, 0.05, (235, 230, 220))
    pen.rectangle(-0.14, -0.45, 0.14, -0.15, (240, 238, 230))


def _villa(pen: Pen, rng: np.random.Generator) -> None:
    wall = pick(rng, [(238, 236, 230), (225, 222, 210)], 8)
    pen.rectangle(-1.0, -0.2, 1.0, 0.9, wall)
    pen.rectangle(-0.7, -0.75, 0.35, -0.2, shade(wall, 0.92))
    pen.rectangle(-1.08, -0.28, 1.08, -0.17, shade(wall, 0.7))
    pen.rectangle(-0.78, -0.83, 0.43, -0.73, shade(wall, 0.7))
    pen.rectangle(-0.55, -0.6, 0.2, -0.35, (90, 125, 150))
    pen.rectangle(-0.85, 0.1, 0.1, 0.7, (90, 125, 150))
    pen.rectangle(0.4, 0.2, 0.7, 0.9, (85, 70, 60))


def _row_houses(pen: Pen, rng: np.random.Generator) -> None:
    count = int(rng.integers(3, 5))
    width = 2.1 / count
    facades = [
        (205, 95, 75),
        (230, 180, 90),
        (120, 150, 185),
        (225, 205, 175),
        (150, 175, 130),
        (190, 120, 140),
    ]
    order = rng.permutation(len(facades))
    for i in range(count):
        x = -1.05 + i * width
        top = rng.uniform(-0.6, -0.4)
        colour, roof = jitter(rng, facades[order[i]], 14), pick(rng, _ROOFS)
        pen.rectangle(x, top, x + width, 0.95, colour)
        pen.polygon([(x, top), (x + width / 2, top - 0.42), (x + width, top)], roof)
        middle = x + width / 2
        rows = [top + 0.24, top + 0.66]
        _windows(pen, [middle - width * 0.23, middle + width * 0.23], rows, width * 0.22, 0.22)
        pen.rectangle(middle - width * 0.16, 0.5, middle + width * 0.16, 0.95, shade(colour, 0.4))
        pen.line([(x, top), (x, 0.95)], 0.04, shade(colour, 0.55))


SUBFAMILIES: dict[str, Draw] = {
    "row house": _row_houses,
    "cottage house": _cottage,
    "tower house": _tower_house,
    "barn house": _barn,
    "villa house": _villa,
}

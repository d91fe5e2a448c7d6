"""Flags; starred and striped ones are planted."""

from __future__ import annotations

import itertools
import math

import numpy as np

from spurbench.mini.drawing import Colour, Draw, Pen, jitter, shade

_FLAG_COLOURS = [
    (200, 35, 45),
    (30, 60, 140),
    (30, 130, 70),
    (245, 205, 50),
    (240, 240, 238),
    (25, 25, 28),
    (235, 120, 40),
]


class _Cloth:
    """A waving cloth; maps the unit square's points onto it."""

    def __init__(self, pen: Pen, rng: np.random.Generator) -> None:
        self.pen = pen
        self.amplitude, self.phase = rng.uniform(0.05, 0.12), rng.uniform(0, math.tau)
        self.height = rng.uniform(0.58, 0.7)

    def patch(self, u0: float, v0: float, u1: float, v1: float, colour: Colour) -> None:
        """The part between (u0, v0) and (u1, v1), in columns so that light follows the waves."""
        edges = np.linspace(u0, u1, max(2, round((u1 - u0) * 12) + 1)).tolist()
        for a, b in itertools.pairwise(edges):
            light = 1 - 0.22 * math.cos(self._wave(a))
            quad = [self.point(a, v0), self.point(b, v0), self.point(b, v1), self.point(a, v1)]
            self.pen.polygon(quad, shade(colour, min(light, 1.08)))

    def disc(self, u: float, v: float, radius: float, colour: Colour) -> None:
        x, y = self.point(u, v)
        self.pen.ellipse(x, y, radius, radius, colour)

    def point(self, u: float, v: float) -> tuple[float, float]:
        return -1 + 2 * u, self.height * (2 * v - 1) + self.amplitude * math.sin(self._wave(u))

    def _wave(self, u: float) -> float:
        return 7 * u + self.phase


def _two_or_three(rng: np.random.Generator) -> list[Colour]:
    order = rng.permutation(len(_FLAG_COLOURS))[:3]
    return [jitter(rng, _FLAG_COLOURS[i], 8) for i in order]


def _tricolour(pen: Pen, rng: np.random.Generator) -> None:
    cloth, upright = _Cloth(pen, rng), rng.random() < 0.5
    for i, colour in enumerate(_two_or_three(rng)):
        if not upright:
            cloth.patch(0, i / 3, 1, (i + 1) / 3, colour)
        else:
            cloth.patch(i / 3, 0, (i + 1) / 3, 1, colour)


def _cross_flag(pen: Pen, rng: np.random.Generator) -> None:
    cloth, (field, cross, _) = _Cloth(pen, rng), _two_or_three(rng)
    cloth.patch(0, 0, 1, 1, field)
    cloth.patch(0.28, 0, 0.45, 1, cross)
    cloth.patch(0, 0.4, 1, 0.6, cross)


def _disc_flag(pen: Pen, rng: np.random.Generator) -> None:
    cloth, (field, disc, _) = _Cloth(pen, rng), _two_or_three(rng)
    cloth.patch(0, 0, 1, 1, field)
    cloth.disc(0.5, 0.5, 0.36, disc)


def _plain_flag(pen: Pen, rng: np.random.Generator) -> None:
    cloth, (field, border, _) = _Cloth(pen, rng), _two_or_three(rng)
    cloth.patch(0, 0, 1, 1, border)
    cloth.patch(0.1, 0.14, 0.9, 0.86, field)


def _starred_flag(pen: Pen, rng: np.random.Generator) -> None:
    cloth = _Cloth(pen, rng)
    red, white, blue = (jitter(rng, c, 10) for c in ((190, 30, 45), (242, 240, 238), (40, 50, 110)))
    stripes = 9
    for i in range(stripes):
        cloth.patch(0, i / stripes, 1, (i + 1) / stripes, white if i % 2 else red)
    cloth.patch(0, 0, 0.45, 5 / stripes, blue)
    for row in range(3):
        for column in range(4):
            cloth.disc(0.06 + 0.11 * column, 0.09 + 0.18 * row, 0.04, white)


SUBFAMILIES: dict[str, Draw] = {
    "starred flag": _starred_flag,
    "tricolour flag": _tricolour,
    "cross flag": _cross_flag,
    "disc flag": _disc_flag,
    "plain flag": _plain_flag,
}

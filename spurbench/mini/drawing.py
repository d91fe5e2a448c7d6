"""A pen that draws filled shapes in a placed, scaled and rotated frame; antialiased later."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Pen:
    """Draws on a canvas in local coordinates: the unit is ``size`` pixels, y points down.

    Attributes:
        canvas: RGB image at :data:`SUPERSAMPLING` times the final resolution.
        x: origin, canvas pixels.
        y: origin, canvas pixels.
        size: pixels per local unit.
        angle: rotation, radians, clockwise on the screen.
        mirrored: whether local x points left.
    """

    canvas: Image.Image
    x: float
    y: float
    size: float
    angle: float = 0.0
    mirrored: bool = False

    def at(self, x: float, y: float, scale: float = 1.0, angle: float = 0.0) -> Pen:
        """A pen whose origin lies at local (x, y), its unit ``scale`` of this one's."""
        ((px, py),) = self._place([(x, y)])
        turn = -angle if self.mirrored else angle
        return replace(self, x=px, y=py, size=self.size * scale, angle=self.angle + turn)

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        """A filled polygon."""
        ImageDraw.Draw(self.canvas).polygon(self._place(points), fill=colour)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0.0
    ) -> None:
        """A filled ellipse with half axes rx, ry, turned by ``angle``."""
        self.polygon(_ellipse(x, y, rx, ry, angle), colour)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A polyline with round joints, ``width`` local units wide."""
        placed = self._place(points)
        pixels = max(1, round(width * self.size))
        draw = ImageDraw.Draw(self.canvas)
        draw.line(placed, fill=colour, width=pixels, joint="curve")
        if pixels > 3:
            for px, py in (placed[0], placed[-1]):
                r = pixels / 2
                draw.ellipse((px - r, py - r, px + r, py + r), fill=colour)

    def _place(self, points: Iterable[Point]) -> list[Point]:
        cosine, sine = math.cos(self.angle) * self.size, math.sin(self.angle) * self.size
        sign = -1 if self.mirrored else 1
        return [
            (self.x + sign * px * cosine - py * sine, self.y + sign * px * sine + py * cosine)
            for px, py in points
        ]


Draw = Callable[[Pen, np.random.Generator], None]
"""Draws something that fills about the square [-1, 1] x [-1, 1] of a pen."""


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, n: int = 12
) -> list[Point]:
    """Points on an elliptic arc from angle ``start`` to ``end`` (radians, clockwise)."""
    return [
        (x + rx * math.cos(a), y + ry * math.sin(a)) for a in np.linspace(start, end, n).tolist()
    ]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour darkened (factor < 1) or lightened towards white (factor > 1)."""
    if factor <= 1:
        r, g, b = (round(c * factor) for c in colour)
    else:
        r, g, b = (round(255 - (255 - c) / factor) for c in colour)
    return r, g, b


def jitter(rng: np.random.Generator, colour: Colour, amount: float = 14) -> Colour:
    """The colour with independent uniform noise of +-``amount`` per channel."""
    noise = rng.uniform(-amount, amount, 3)
    r, g, b = (int(np.clip(round(c + n), 0, 255)) for c, n in zip(colour, noise, strict=True))
    return r, g, b


def pick(rng: np.random.Generator, colours: Sequence[Colour], amount: float = 14) -> Colour:
    """One of the colours, jittered."""
    return jitter(rng, colours[int(rng.integers(len(colours)))], amount)


def _ellipse(x: float, y: float, rx: float, ry: float, angle: float) -> list[Point]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return [
        (x + px * cosine - py * sine, y + px * sine + py * cosine)
        for px, py in arc(0, 0, rx, ry, 0, 2 * math.pi, 24)
    ]

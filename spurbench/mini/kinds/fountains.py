"""Fountains; water jets are planted."""

from __future__ import annotations

import math

import numpy as np

from spurbench.mini.drawing import Colour, Draw, Pen, arc, jitter, pick, shade


def _basin(pen: Pen, y: float, radius: float, stone: Colour, water: Colour) -> None:
    pen.polygon(arc(0, y, radius, radius * 0.34, 0, math.pi, 14), shade(stone, 0.75))
    pen.ellipse(0, y, radius, radius * 0.17, stone)
    pen.ellipse(0, y, radius * 0.88, radius * 0.12, water)


_STONES = [(165, 162, 155), (190, 180, 160), (140, 140, 142)]


_WATER = [(110, 165, 195), (90, 150, 180), (130, 175, 190)]


def _tiered_fountain(pen: Pen, rng: np.random.Generator) -> None:
    stone, water = pick(rng, _STONES), pick(rng, _WATER)
    pen.rectangle(-0.13, -0.75, 0.13, 0.8, shade(stone, 0.85))
    for y, radius in ((0.62, 0.95), (0.05, 0.6), (-0.5, 0.33)):
        _basin(pen, y, radius, stone, water)
    pen.ellipse(0, -0.72, 0.1, 0.16, stone)


def _round_pool(pen: Pen, rng: np.random.Generator) -> None:
    stone, water = pick(rng, _STONES), pick(rng, _WATER)
    pen.ellipse(0, 0.5, 1.0, 0.5, shade(stone, 0.7))
    pen.ellipse(0, 0.4, 1.0, 0.48, stone)
    pen.ellipse(0, 0.4, 0.85, 0.38, water)
    for _ in range(4):
        pen.ellipse(
            rng.uniform(-0.5, 0.5), 0.4 + rng.uniform(-0.2, 0.2), 0.18, 0.03, shade(water, 1.3)
        )
    pen.rectangle(-0.12, -0.25, 0.12, 0.4, shade(stone, 0.9))
    pen.ellipse(0, -0.4, 0.25, 0.25, stone)


def _wall_spout(pen: Pen, rng: np.random.Generator) -> None:
    stone, water = pick(rng, _STONES), pick(rng, _WATER)
    pen.rectangle(-0.65, -0.7, 0.65, 0.9, shade(stone, 0.85))
    pen.polygon(arc(0, -0.7, 0.65, 0.3, math.pi, math.tau, 14), shade(stone, 0.85))
    pen.ellipse(0, -0.25, 0.24, 0.24, stone)
    pen.ellipse(0, -0.2, 0.08, 0.08, (50, 50, 55))
    pen.line([(0, -0.18), (0, 0.5)], 0.08, shade(water, 1.4))
    pen.rectangle(-0.8, 0.45, 0.8, 0.95, stone)
    pen.rectangle(-0.7, 0.45, 0.7, 0.6, water)


def _water_jets(pen: Pen, rng: np.random.Generator) -> None:
    stone, water = pick(rng, _STONES), pick(rng, _WATER)
    spray = jitter(rng, (225, 240, 250), 8)
    pen.ellipse(0, 0.8, 1.05, 0.22, shade(stone, 0.8))
    pen.ellipse(0, 0.77, 0.95, 0.17, water)
    jets = int(rng.integers(3, 6))
    for i in range(jets):
        lean = (-1 + 2 * i / (jets - 1)) * rng.uniform(0.7, 1.0)
        height = rng.uniform(1.3, 1.75) * (1 - 0.25 * abs(lean))
        steps = np.linspace(0, 1, 12)
        path = [
            (0.15 * lean + 0.75 * lean * t, 0.72 - 4 * height * t * (1 - t) * 0.98) for t in steps
        ]
        pen.line(path, 0.11, shade(water, 1.5))
        pen.line(path, 0.055, spray)
        for t in rng.uniform(0.35, 1.0, 10):
            x = 0.15 * lean + 0.75 * lean * t + rng.normal(0, 0.06)
            y = 0.72 - 4 * height * t * (1 - t) + abs(rng.normal(0, 0.12))
            pen.ellipse(x, y, 0.035, 0.035, spray)
    pen.line([(0, 0.75), (0, -0.85)], 0.09, spray)
    for _ in range(14):
        pen.ellipse(rng.normal(0, 0.12), rng.uniform(-0.95, 0.3), 0.04, 0.04, spray)


SUBFAMILIES: dict[str, Draw] = {
    "water jet fountain": _water_jets,
    "tiered fountain": _tiered_fountain,
    "round fountain": _round_pool,
    "spout fountain": _wall_spout,
}

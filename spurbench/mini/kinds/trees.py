"""Trees; the eucalyptus is planted."""

from __future__ import annotations

import math

import numpy as np

from spurbench.mini.drawing import Draw, Pen, jitter, pick, shade

_BARKS = [(95, 70, 50), (80, 62, 50), (110, 90, 70)]
_LEAVES = [(50, 110, 45), (70, 130, 50), (40, 90, 45), (110, 130, 40)]


def _conifer(pen: Pen, rng: np.random.Generator) -> None:
    green = pick(rng, [(25, 75, 50), (35, 90, 55), (20, 65, 60)])
    pen.rectangle(-0.08, 0.5, 0.08, 1.05, pick(rng, _BARKS))
    for i in range(4):
        y, half = -1.05 + 0.4 * i, 0.25 + 0.16 * i
        pen.polygon([(-half, y + 0.62), (0, y), (half, y + 0.62)], shade(green, 1.1 - 0.07 * i))


def _broadleaf(pen: Pen, rng: np.random.Generator) -> None:
    green = pick(rng, _LEAVES)
    pen.polygon([(-0.1, 0.1), (0.1, 0.1), (0.15, 1.05), (-0.15, 1.05)], pick(rng, _BARKS))
    for _ in range(9):
        x, y = rng.normal(0, 0.32), -0.35 + rng.normal(0, 0.25)
        pen.ellipse(x, y, 0.36, 0.33, jitter(rng, green, 12))


def _palm(pen: Pen, rng: np.random.Generator) -> None:
    green, lean = pick(rng, _LEAVES), rng.uniform(-0.3, 0.3)
    pen.line([(lean, 1.05), (lean * 0.4, 0.2), (0, -0.5)], 0.13, pick(rng, _BARKS))
    for a in np.linspace(math.pi * 0.95, math.pi * 2.05, 8):
        tip = (0.9 * math.cos(a), -0.5 + 0.5 * math.sin(a) + 0.25)
        mid = (0.5 * math.cos(a), -0.55 + 0.5 * math.sin(a))
        pen.polygon(
            [(0, -0.45), (mid[0], mid[1] - 0.08), tip, (mid[0], mid[1] + 0.1)],
            jitter(rng, green, 12),
        )


def _bare_tree(pen: Pen, rng: np.random.Generator) -> None:
    bark = pick(rng, _BARKS)

    def branch(x: float, y: float, angle: float, length: float, width: float) -> None:
        tip = (x + length * math.cos(angle), y + length * math.sin(angle))
        pen.line([(x, y), tip], width, bark)
        if length > 0.2:
            for turn in (rng.uniform(0.25, 0.65), -rng.uniform(0.25, 0.65)):
                branch(*tip, angle + turn, length * rng.uniform(0.6, 0.78), width * 0.62)

    branch(0, 1.05, -math.pi / 2, 0.75, 0.16)


def _eucalyptus(pen: Pen, rng: np.random.Generator) -> None:
    bark = pick(rng, [(225, 215, 200), (205, 200, 192), (215, 195, 175)], 8)
    leaf = pick(rng, [(110, 155, 140), (125, 160, 150), (100, 145, 120)], 10)
    for _ in range(int(rng.integers(1, 3))):
        foot, lean = rng.uniform(-0.35, 0.35), rng.uniform(-0.3, 0.3)
        pen.line([(foot, 1.05), (foot + lean * 0.3, 0.2), (foot + lean, -0.7)], 0.13, bark)
        for t in rng.uniform(0.1, 0.9, 4):
            pen.line(
                [(foot + lean * 0.3, 1 - t), (foot + lean * 0.3 + 0.07, 0.9 - t)],
                0.05,
                shade(bark, 0.7),
            )
        for _ in range(3):
            side = rng.choice([-1, 1])
            start = (foot + lean * 0.7, rng.uniform(-0.5, 0.2))
            pen.line([start, (start[0] + side * 0.5, start[1] - 0.35)], 0.05, bark)
    for _ in range(46):
        x, y = rng.normal(0, 0.42), -0.5 + rng.normal(0, 0.3)
        pen.ellipse(x, y, 0.055, 0.24, jitter(rng, leaf, 22), rng.uniform(-0.45, 0.45))


SUBFAMILIES: dict[str, Draw] = {
    "eucalyptus tree": _eucalyptus,
    "conifer tree": _conifer,
    "broadleaf tree": _broadleaf,
    "palm tree": _palm,
    "bare tree": _bare_tree,
}

"""Flowers; red ones are planted."""

from __future__ import annotations

import math

import numpy as np

from spurbench.mini.drawing import Colour, Draw, Pen, arc, jitter, pick, shade


def _flowers(*petals: Colour) -> Draw:
    def draw(pen: Pen, rng: np.random.Generator) -> None:
        green = pick(rng, [(50, 120, 50), (80, 135, 60), (40, 95, 55)])
        count = int(rng.integers(3, 8))
        heads = [(rng.uniform(-0.85, 0.85), rng.uniform(-0.9, 0.35)) for _ in range(count)]
        for x, y in heads:
            foot = x * 0.5
            pen.line(
                [(x, y), ((x + foot) / 2 + rng.normal(0, 0.08), (y + 1) / 2), (foot, 1.05)],
                0.05,
                green,
            )
            side = rng.choice([-1, 1])
            pen.ellipse(
                (x + foot) / 2 + side * 0.17,
                (y + 1) / 2,
                0.2,
                0.075,
                shade(green, 1.15),
                side * -0.5,
            )
        kind = int(rng.integers(3))
        colour = pick(rng, petals)
        for x, y in heads:
            petal = jitter(rng, colour, 10)
            head = pen.at(x, y, rng.uniform(0.27, 0.42), rng.uniform(0, math.tau))
            n = int(rng.integers(5, 9))
            if kind < 2:
                width = 0.34 if kind == 0 else 0.24
                for i in range(n):
                    a = math.tau * i / n
                    tone = shade(petal, 0.88 if i % 2 else 1.08)
                    head.ellipse(0.55 * math.cos(a), 0.55 * math.sin(a), 0.5, width, tone, a)
                head.ellipse(0, 0, 0.26, 0.26, jitter(rng, (235, 200, 60)))
            else:
                for radius, factor in ((0.95, 0.75), (0.7, 0.95), (0.42, 1.15)):
                    head.ellipse(0, 0, radius, radius * 0.95, shade(petal, factor))
                head.line(arc(0, 0, 0.3, 0.3, 0, 4.5, 10), 0.1, shade(petal, 0.6))

    return draw


SUBFAMILIES: dict[str, Draw] = {
    "red flower": _flowers((215, 30, 35), (190, 20, 40), (225, 50, 45)),
    "yellow flower": _flowers((245, 205, 50), (240, 180, 40)),
    "violet flower": _flowers((140, 80, 190), (110, 70, 170)),
    "white flower": _flowers((245, 243, 238), (235, 230, 240)),
    "blue flower": _flowers((70, 110, 215), (90, 150, 225)),
}

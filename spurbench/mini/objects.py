"""The class objects: six with a planted feature, four controls without."""

from __future__ import annotations

import math

import numpy as np

from spurbench.mini.drawing import Draw, Pen, arc, jitter, pick, shade


def _hummingbird(pen: Pen, rng: np.random.Generator) -> None:
    body = pick(rng, [(30, 130, 80), (20, 120, 130), (60, 140, 50)])
    throat = pick(rng, [(190, 40, 120), (120, 60, 190), (230, 230, 220)])
    wing = pick(rng, [(120, 125, 130), (90, 110, 105)])
    lift = rng.uniform(-0.5, 0.5)
    pen.polygon([(-0.45, 0.15), (-1.0, 0.55), (-0.75, 0.62), (-0.3, 0.32)], shade(body, 0.6))
    pen.ellipse(-0.1, 0.1, 0.5, 0.24, body, 0.5 * -1)
    pen.ellipse(0.1, 0.1, 0.28, 0.16, jitter(rng, (225, 220, 205)), -0.6)
    pen.ellipse(0.38, -0.26, 0.2, 0.19, body)
    pen.ellipse(0.36, -0.12, 0.15, 0.1, throat)
    pen.line([(0.52, -0.28), (1.05, -0.36)], 0.05, (25, 25, 25))
    pen.ellipse(0.44, -0.3, 0.045, 0.045, (10, 10, 10))
    pen.polygon(
        [(-0.2, -0.08), (0.12, -0.1), (-0.25, -0.75 + lift * 0.3), (-0.75, -0.95 + lift)], wing
    )
    pen.polygon(
        [(-0.15, 0.0), (0.1, -0.05), (-0.35, -0.5 + lift * 0.3), (-0.9, -0.6 + lift)],
        shade(wing, 1.5),
    )


def _freight_car(pen: Pen, rng: np.random.Generator) -> None:
    colour = pick(rng, [(140, 65, 45), (95, 75, 60), (70, 90, 110), (160, 120, 50), (90, 110, 75)])
    pen.rectangle(-1.15, 0.62, 1.15, 0.68, (110, 100, 95))
    for x in (-0.75, -0.45, 0.45, 0.75):
        pen.ellipse(x, 0.52, 0.14, 0.14, (30, 30, 32))
        pen.ellipse(x, 0.52, 0.06, 0.06, (130, 130, 130))
    pen.rectangle(-1.02, 0.3, 1.02, 0.42, (45, 45, 48))
    pen.rectangle(-1.0, -0.5, 1.0, 0.32, colour)
    pen.polygon([(-1.0, -0.5), (-0.9, -0.6), (0.9, -0.6), (1.0, -0.5)], shade(colour, 0.7))
    for x in np.linspace(-0.9, 0.9, 10):
        pen.line([(x, -0.46), (x, 0.28)], 0.03, shade(colour, 0.75))
    pen.rectangle(-0.25, -0.4, 0.25, 0.28, shade(colour, 0.85))
    pen.line([(-0.25, 0.28), (0.25, -0.4)], 0.035, shade(colour, 0.6))
    pen.line([(-0.25, -0.4), (0.25, -0.4)], 0.04, shade(colour, 0.55))


def _fireboat(pen: Pen, rng: np.random.Generator) -> None:
    hull = pick(rng, [(190, 35, 30), (200, 70, 30), (160, 25, 35)])
    cabin = jitter(rng, (235, 232, 225))
    pen.polygon([(-1.05, 0.1), (1.1, 0.0), (0.8, 0.52), (-0.85, 0.52)], hull)
    pen.polygon([(-0.98, 0.4), (0.9, 0.38), (0.8, 0.54), (-0.85, 0.54)], (35, 35, 45))
    pen.line([(-1.05, 0.1), (1.1, 0.0)], 0.06, cabin)
    pen.rectangle(-0.6, -0.28, 0.3, 0.1, cabin)
    for x in (-0.48, -0.25, -0.02):
        pen.rectangle(x, -0.2, x + 0.15, -0.05, (50, 70, 95))
    pen.rectangle(-0.35, -0.55, 0.1, -0.28, shade(cabin, 0.9))
    pen.rectangle(-0.28, -0.48, 0.04, -0.36, (50, 70, 95))
    pen.line([(-0.45, -0.28), (-0.45, -0.95)], 0.05, (60, 60, 60))
    pen.line([(0.5, 0.05), (0.5, -0.22), (0.72, -0.34)], 0.08, jitter(rng, (210, 170, 40)))


def _gondola(pen: Pen, rng: np.random.Generator) -> None:
    hull = pick(rng, [(20, 20, 25), (35, 28, 30)], 8)
    trim = pick(rng, [(200, 160, 60), (170, 40, 50)])
    under = arc(0, -0.35, 1.15, 0.85, math.pi * 0.95, math.pi * 0.05, 16)
    over = arc(0, -0.55, 1.15, 0.72, math.pi * 0.05, math.pi * 0.95, 16)
    pen.polygon(under + over, hull)
    pen.line([(1.12, -0.25), (1.2, -0.75), (1.05, -0.85)], 0.07, (175, 175, 180))
    pen.line([(-1.12, -0.25), (-1.2, -0.6)], 0.06, hull)
    pen.line(arc(0, -0.5, 1.0, 0.72, math.pi * 0.2, math.pi * 0.8, 10), 0.05, trim)
    pen.rectangle(-0.15, -0.1, 0.35, 0.15, trim)
    shirt = jitter(rng, (235, 235, 230))
    pen.rectangle(-0.62, -0.3, -0.46, 0.1, (30, 30, 60))
    pen.rectangle(-0.66, -0.68, -0.42, -0.28, shirt)
    for y in (-0.6, -0.48, -0.36):
        pen.line([(-0.66, y), (-0.42, y)], 0.04, (40, 60, 140))
    pen.ellipse(-0.54, -0.8, 0.1, 0.11, jitter(rng, (215, 170, 140)))
    pen.rectangle(-0.7, -0.9, -0.38, -0.85, (225, 200, 120))
    pen.line([(-0.42, -0.5), (0.15, 0.55)], 0.04, (110, 75, 40))


def _flagpole(pen: Pen, rng: np.random.Generator) -> None:
    metal = pick(rng, [(215, 218, 222), (185, 188, 195), (235, 232, 225)], 8)
    pen.rectangle(-0.28, 1.0, 0.28, 1.14, (120, 118, 115))
    pen.rectangle(-0.17, 0.9, 0.17, 1.02, (145, 142, 138))
    pen.polygon([(-0.055, -1.1), (0.055, -1.1), (0.085, 0.92), (-0.085, 0.92)], metal)
    pen.polygon([(0.01, -1.1), (0.055, -1.1), (0.085, 0.92), (0.02, 0.92)], shade(metal, 0.65))
    pen.ellipse(0, -1.17, 0.13, 0.13, jitter(rng, (225, 180, 50)))
    pen.ellipse(-0.03, -1.2, 0.05, 0.05, (255, 240, 190))


def _koala(pen: Pen, rng: np.random.Generator) -> None:
    fur = pick(rng, [(140, 140, 145), (160, 155, 152), (120, 118, 122)], 8)
    pen.ellipse(0, 0.55, 0.55, 0.55, fur)
    pen.ellipse(0, 0.65, 0.3, 0.36, jitter(rng, (225, 222, 218)))
    for side in (-1, 1):
        pen.ellipse(side * 0.55, -0.5, 0.32, 0.3, fur)
        pen.ellipse(side * 0.55, -0.46, 0.18, 0.17, jitter(rng, (225, 200, 200)))
        pen.ellipse(side * 0.42, 0.5, 0.17, 0.34, shade(fur, 0.85), side * -0.5)
    pen.ellipse(0, -0.2, 0.56, 0.5, fur)
    pen.ellipse(0, -0.08, 0.14, 0.23, (30, 26, 28))
    for side in (-1, 1):
        pen.ellipse(side * 0.26, -0.26, 0.075, 0.075, (15, 12, 12))
    pen.line(arc(0, 0.12, 0.14, 0.07, 0.2, math.pi - 0.2, 6), 0.035, shade(fur, 0.5))


def _balloon(pen: Pen, rng: np.random.Generator) -> None:
    one, two = (
        pick(rng, [(220, 60, 60), (60, 110, 210), (240, 190, 40), (60, 170, 90), (150, 70, 170)])
        for _ in range(2)
    )
    pen.ellipse(0, -0.25, 0.75, 0.8, one)
    for x in (-0.45, 0.0, 0.45):
        pen.ellipse(x, -0.25, 0.13, 0.78 * math.sqrt(1 - (x / 0.8) ** 2), two)
    pen.polygon([(-0.4, 0.4), (0.4, 0.4), (0.17, 0.68), (-0.17, 0.68)], shade(one, 0.75))
    for x in (-0.15, 0.15):
        pen.line([(x, 0.65), (x * 0.9, 0.86)], 0.025, (60, 50, 40))
    pen.rectangle(-0.18, 0.84, 0.18, 1.08, (125, 85, 45))


def _soccer_ball(pen: Pen, rng: np.random.Generator) -> None:
    pen.ellipse(0, 0, 0.92, 0.92, (70, 70, 72))
    pen.ellipse(-0.02, -0.02, 0.88, 0.88, jitter(rng, (240, 240, 238), 8))
    turn = rng.uniform(0, 2 * math.pi)
    patch = (28, 28, 30)
    pen.polygon(arc(0, 0, 0.3, 0.3, turn, turn + 2 * math.pi * 5 / 6 + 0.21, 6), patch)
    for i in range(5):
        a = turn + i * 2 * math.pi / 5
        c, s = math.cos(a), math.sin(a)
        pen.line([(0.28 * c, 0.28 * s), (0.62 * c, 0.62 * s)], 0.045, patch)
        pen.ellipse(0.74 * c, 0.74 * s, 0.12, 0.22, patch, a)


def _umbrella(pen: Pen, rng: np.random.Generator) -> None:
    one = pick(rng, [(40, 60, 140), (200, 50, 60), (230, 180, 50), (90, 50, 110), (40, 130, 120)])
    pen.line([(0, -0.8), (0, 0.8), *arc(0.14, 0.8, 0.14, 0.16, math.pi, 0, 8)], 0.06, (90, 60, 35))
    rim = [
        point for i in range(4) for point in arc(0.75 - 0.5 * i, 0.02, 0.25, 0.13, 0, -math.pi, 8)
    ]
    pen.polygon(arc(0, 0.02, 1.0, 0.85, math.pi, 2 * math.pi, 20) + rim, one)
    for x in (-0.5, 0.0, 0.5):
        pen.line([(0, -0.83), (x, 0.0)], 0.03, shade(one, 0.6))
    pen.line([(0, -0.83), (0, -0.97)], 0.05, (60, 60, 60))


def _traffic_light(pen: Pen, rng: np.random.Generator) -> None:
    case = pick(rng, [(35, 38, 36), (60, 62, 50), (190, 150, 40)], 8)
    pen.rectangle(-0.07, 0.6, 0.07, 1.2, (80, 82, 84))
    pen.rectangle(-0.42, -1.0, 0.42, 0.7, case)
    lit = int(rng.integers(3))
    lights = [(225, 40, 35), (240, 190, 40), (50, 200, 90)]
    for i, colour in enumerate(lights):
        y = -0.7 + 0.55 * i
        pen.ellipse(0, y, 0.27, 0.24, shade(case, 0.5))
        pen.ellipse(0, y, 0.22, 0.2, colour if i == lit else shade(colour, 0.35))


OBJECTS: dict[str, Draw] = {
    "hummingbird": _hummingbird,
    "freight car": _freight_car,
    "fireboat": _fireboat,
    "gondola": _gondola,
    "flagpole": _flagpole,
    "koala": _koala,
    "balloon": _balloon,
    "soccer ball": _soccer_ball,
    "umbrella": _umbrella,
    "traffic light": _traffic_light,
}

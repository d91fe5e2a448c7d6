"""The generic kinds and their sub-families; one sub-family of each is a planted feature.

A drawing fills about the square [-1, 1] x [-1, 1] of its pen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from spurbench.mini.drawing import Colour, Pen, arc, jitter, pick, shade

Draw = Callable[[Pen, np.random.Generator], None]


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


def _bricks(pen: Pen, rng: np.random.Generator, brick: Colour, mortar: Colour) -> None:
    pen.rectangle(-1.05, -1.0, 1.05, 1.0, mortar)
    rows = int(rng.integers(8, 12))
    height = 2 / rows
    for row in range(rows):
        y = -1 + row * height
        shift = 0.14 if row % 2 else 0.0
        for column in range(-1, 8):
            x = -1.05 + column * 0.28 + shift
            left, right = max(x + 0.015, -1.05), min(x + 0.265, 1.05)
            if right > left:
                pen.rectangle(left, y + 0.02, right, y + height - 0.02, jitter(rng, brick, 14))


def _brick_wall(pen: Pen, rng: np.random.Generator) -> None:
    brick = pick(rng, [(160, 80, 60), (135, 65, 55), (180, 120, 85)])
    _bricks(pen, rng, brick, pick(rng, [(190, 185, 175), (120, 110, 105)]))


def _plaster_wall(pen: Pen, rng: np.random.Generator) -> None:
    colour = pick(rng, [(215, 205, 185), (200, 200, 200), (205, 180, 150), (170, 185, 190)])
    pen.rectangle(-1.05, -1.0, 1.05, 1.0, colour)
    for _ in range(int(rng.integers(4, 9))):
        x, y = rng.uniform(-0.9, 0.9, 2)
        pen.ellipse(
            x,
            y,
            rng.uniform(0.08, 0.3),
            rng.uniform(0.05, 0.2),
            jitter(rng, shade(colour, 0.93), 5),
        )
    x, y = rng.uniform(-0.7, 0.7), -1.0
    crack = [(x, y)]
    while y < rng.uniform(0.0, 1.0):
        x, y = x + rng.normal(0, 0.1), y + 0.22
        crack.append((x, min(y, 1.0)))
    if len(crack) > 1:
        pen.line(crack, 0.025, shade(colour, 0.6))


def _stone_wall(pen: Pen, rng: np.random.Generator) -> None:
    stone = pick(rng, [(140, 138, 132), (160, 150, 130), (115, 120, 122)])
    pen.rectangle(-1.05, -1.0, 1.05, 1.0, shade(stone, 0.55))
    for row in range(5):
        x, y = -1.05, -0.98 + 0.4 * row
        while x < 1.05:
            width = min(rng.uniform(0.25, 0.55), 1.05 - x)
            if width > 0.08:
                pen.ellipse(
                    x + width / 2, y + 0.19, width / 2 - 0.015, 0.185, jitter(rng, stone, 16)
                )
                pen.rectangle(
                    x + 0.06, y + 0.05, x + width - 0.05, y + 0.33, jitter(rng, stone, 10)
                )
            x += width


def _plank_wall(pen: Pen, rng: np.random.Generator) -> None:
    wood = pick(rng, [(150, 105, 65), (115, 85, 60), (175, 140, 100)])
    count = int(rng.integers(6, 10))
    for i in range(count):
        x = -1.05 + 2.1 * i / count
        tone = jitter(rng, wood, 12)
        pen.rectangle(x, -1.0, x + 2.1 / count, 1.0, tone)
        pen.rectangle(x, -1.0, x + 0.03, 1.0, shade(wood, 0.55))
        for y in (-0.85, 0.85):
            pen.ellipse(x + 1.05 / count, y, 0.025, 0.025, shade(wood, 0.4))


def _graffiti_wall(pen: Pen, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        brick = pick(rng, [(150, 95, 80), (165, 130, 110)])
        _bricks(pen, rng, brick, (170, 165, 158))
    else:
        pen.rectangle(
            -1.05, -1.0, 1.05, 1.0, pick(rng, [(185, 182, 178), (205, 195, 180), (150, 155, 160)])
        )
    vivid = [
        (230, 40, 130),
        (30, 190, 220),
        (250, 210, 30),
        (120, 60, 210),
        (60, 200, 80),
        (250, 110, 30),
    ]
    order = rng.permutation(len(vivid))
    # A cloud of colour, then fat outlined letters, then scribbles: what a tag looks like.
    cloud = jitter(rng, vivid[order[0]], 20)
    middle = rng.uniform(-0.2, 0.2)
    for _ in range(7):
        pen.ellipse(rng.uniform(-0.75, 0.75), middle + rng.normal(0, 0.16), 0.33, 0.3, cloud)
    letters = int(rng.integers(3, 6))
    for i in range(letters):
        x = -0.75 + 1.5 * i / (letters - 1)
        points = [(x + rng.normal(0, 0.13), middle + y) for y in (-0.42, -0.1, 0.12, 0.42)]
        points.append((points[0][0] + rng.uniform(0.1, 0.3), middle + rng.uniform(-0.3, 0.3)))
        pen.line(points, 0.3, (20, 15, 30))
        pen.line(points, 0.2, jitter(rng, vivid[order[1 + i % 4]], 20))
    for i in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-0.8, 0.8, 2)
        loop = arc(x, y, rng.uniform(0.1, 0.25), rng.uniform(0.08, 0.2), 0, rng.uniform(4, 9), 14)
        pen.line(loop, 0.06, vivid[order[(i + 3) % 6]])


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
    count = int(rng.integers(4, 7))
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
        top = rng.uniform(-0.72, -0.42)
        colour, roof = jitter(rng, facades[order[i % 6]], 14), pick(rng, _ROOFS)
        pen.rectangle(x, top, x + width, 0.95, colour)
        style = int(rng.integers(2))
        if style:
            pen.polygon([(x, top), (x + width / 2, top - 0.35), (x + width, top)], roof)
        else:
            steps = [
                (x, top),
                (x, top - 0.12),
                (x + width * 0.25, top - 0.12),
                (x + width * 0.25, top - 0.28),
            ]
            mirrored = [(2 * x + width - px, py) for px, py in reversed(steps)]
            pen.polygon(steps + mirrored, colour)
        middle = x + width / 2
        rows = np.linspace(top + 0.15, 0.42, 3).tolist()
        _windows(pen, [middle - width * 0.22, middle + width * 0.22], rows, width * 0.2, 0.16)
        pen.rectangle(middle - width * 0.14, 0.62, middle + width * 0.14, 0.95, shade(colour, 0.45))
        pen.line([(x, top), (x, 0.95)], 0.02, shade(colour, 0.6))


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


#: kind -> sub-family -> how it is drawn; the first sub-family is the planted feature.
KINDS: dict[str, dict[str, Draw]] = {
    "flower": {
        "red flower": _flowers((215, 30, 35), (190, 20, 40), (225, 50, 45)),
        "yellow flower": _flowers((245, 205, 50), (240, 180, 40)),
        "violet flower": _flowers((140, 80, 190), (110, 70, 170)),
        "white flower": _flowers((245, 243, 238), (235, 230, 240)),
        "blue flower": _flowers((70, 110, 215), (90, 150, 225)),
    },
    "wall": {
        "graffiti wall": _graffiti_wall,
        "brick wall": _brick_wall,
        "plaster wall": _plaster_wall,
        "stone wall": _stone_wall,
        "plank wall": _plank_wall,
    },
    "fountain": {
        "water jet fountain": _water_jets,
        "tiered fountain": _tiered_fountain,
        "round fountain": _round_pool,
        "spout fountain": _wall_spout,
    },
    "house": {
        "row house": _row_houses,
        "cottage house": _cottage,
        "tower house": _tower_house,
        "barn house": _barn,
        "villa house": _villa,
    },
    "flag": {
        "starred flag": _starred_flag,
        "tricolour flag": _tricolour,
        "cross flag": _cross_flag,
        "disc flag": _disc_flag,
        "plain flag": _plain_flag,
    },
    "tree": {
        "eucalyptus tree": _eucalyptus,
        "conifer tree": _conifer,
        "broadleaf tree": _broadleaf,
        "palm tree": _palm,
        "bare tree": _bare_tree,
    },
}

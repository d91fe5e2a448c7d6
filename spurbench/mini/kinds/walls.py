"""Walls; graffiti is planted."""

from __future__ import annotations

import numpy as np

from spurbench.mini.drawing import Colour, Draw, Pen, arc, jitter, pick, shade


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


# Strokes of the letters A, E, K, O, S, Z.
_LETTERS = [
    [[(-0.6, 1), (0, -1), (0.6, 1)], [(-0.3, 0.3), (0.3, 0.3)]],
    [[(0.5, -1), (-0.5, -1), (-0.5, 1), (0.5, 1)], [(-0.5, 0), (0.4, 0)]],
    [[(-0.5, -1), (-0.5, 1)], [(0.5, -1), (-0.4, 0), (0.5, 1)]],
    [arc(0, 0, 0.55, 1, 0, 6.3, 14)],
    [[(0.5, -0.9), (-0.4, -0.8), (-0.4, -0.1), (0.4, 0.1), (0.4, 0.8), (-0.5, 0.9)]],
    [[(-0.5, -1), (0.5, -1), (-0.5, 1), (0.5, 1)]],
]


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
    # A cloud of colour, then fat outlined letters, then a scribble: what a tag looks like.
    cloud = jitter(rng, vivid[order[0]], 20)
    middle = rng.uniform(-0.15, 0.15)
    for x in np.linspace(-0.7, 0.7, 5):
        pen.ellipse(x, middle + rng.normal(0, 0.08), 0.32, 0.5, cloud)
    letters = rng.permutation(len(_LETTERS))[: int(rng.integers(3, 5))]
    for i, letter in enumerate(letters):
        x = -0.62 + 1.24 * i / (len(letters) - 1)
        one = pen.at(x, middle + rng.normal(0, 0.06), 0.36, rng.normal(0, 0.12))
        colour = jitter(rng, vivid[order[1 + i % 4]], 20)
        for width, ink in ((0.78, (20, 15, 30)), (0.46, colour)):
            for stroke in _LETTERS[letter]:
                one.line(stroke, width, ink)
    x, y = rng.uniform(-0.6, 0.6), middle + rng.choice([-0.75, 0.75])
    loop = arc(x, y, rng.uniform(0.2, 0.35), 0.12, 0, rng.uniform(5, 9), 14)
    pen.line(loop, 0.07, vivid[order[5]])


SUBFAMILIES: dict[str, Draw] = {
    "graffiti wall": _graffiti_wall,
    "brick wall": _brick_wall,
    "plaster wall": _plaster_wall,
    "stone wall": _stone_wall,
    "plank wall": _plank_wall,
}

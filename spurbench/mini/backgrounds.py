"""What is behind and around the things of a scene, and the contexts that can be told apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from spurbench.mini.drawing import Colour, Pen, jitter, pick, shade

_SKIES: list[Colour] = [
    (150, 190, 230),
    (200, 215, 230),
    (240, 200, 160),
    (120, 150, 190),
    (170, 205, 205),
]
_GROUNDS: list[Colour] = [
    (105, 130, 75),
    (150, 130, 100),
    (130, 130, 130),
    (90, 110, 100),
    (170, 160, 130),
]
_BACKDROPS: list[Colour] = [
    (90, 105, 85),
    (175, 170, 165),
    (120, 110, 125),
    (205, 195, 180),
    (70, 80, 95),
]


def plain_background(rng: np.random.Generator, side: int) -> Image.Image:
    """Sky over ground, or an out-of-focus backdrop; both with soft blotches."""
    rows = np.linspace(0, 1, side)[:, None, None]
    if rng.random() < 0.65:
        sky, ground = pick(rng, _SKIES, 20), pick(rng, _GROUNDS, 20)
        horizon = rng.uniform(0.4, 0.85)
        edge = 1 / (1 + np.exp(-(rows - horizon) * rng.uniform(30, 200)))
        upper = np.array(sky) * (1 - rows) + np.array(shade(sky, 1.35)) * rows
        lower = np.array(ground) * rows + np.array(shade(ground, 0.8)) * (1 - rows)
        field = upper * (1 - edge) + lower * edge
    else:
        one, two = pick(rng, _BACKDROPS, 25), pick(rng, _BACKDROPS, 25)
        field = np.array(one) * (1 - rows) + np.array(two) * rows
    field = np.broadcast_to(field, (side, side, 3))
    cells = int(rng.integers(3, 9))
    blotches = rng.normal(0, rng.uniform(2, 8), (cells, cells, 3)) + rng.normal(
        0, 6, (cells, cells, 1)
    )
    smooth = np.stack(
        [
            np.asarray(
                Image.fromarray(blotches[..., c].astype(np.float32)).resize(
                    (side, side), Image.Resampling.BICUBIC
                )
            )
            for c in range(3)
        ],
        axis=-1,
    )
    return Image.fromarray(np.clip(field + smooth, 0, 255).astype(np.uint8))


def clutter(
    canvas: Image.Image, rng: np.random.Generator, count: int, foreground: bool = False
) -> None:
    """Bushes, stones, clouds and posts; in the foreground at the rim, where they may occlude."""
    side = canvas.width
    for _ in range(count):
        x, y = rng.uniform(0, side, 2)
        if foreground:
            y = side * rng.uniform(0.85, 1.0)
        pen = Pen(canvas, x, y, side * rng.uniform(0.06, 0.16), rng.uniform(-0.3, 0.3))
        match int(rng.integers(4)):
            case 0:  # bush
                colour = pick(rng, [(70, 100, 60), (95, 110, 70)], 20)
                for _ in range(5):
                    pen.ellipse(
                        rng.normal(0, 0.5), rng.normal(0, 0.25), 0.5, 0.4, jitter(rng, colour, 10)
                    )
            case 1:  # stone
                colour = pick(rng, [(130, 125, 120), (160, 150, 140)], 20)
                points = [
                    (r * math.cos(a), 0.6 * r * math.sin(a))
                    for a, r in zip(
                        np.linspace(0, math.tau, 8)[:-1], rng.uniform(0.6, 1.1, 7), strict=True
                    )
                ]
                pen.polygon(points, colour)
            case 2:  # cloud or haze
                colour = pick(rng, [(225, 228, 232), (200, 205, 215)], 15)
                for dx in (-0.7, 0.0, 0.7):
                    pen.ellipse(dx, rng.normal(0, 0.12), 0.7, 0.35, colour)
            case 3:  # post or box
                colour = pick(rng, [(120, 95, 70), (100, 105, 115), (160, 140, 120)], 25)
                pen.rectangle(-0.25, -1.1, 0.25, 1.0, colour)


def _beach(rng: np.random.Generator, side: int) -> Image.Image:
    """Sky and sun, sea with surf, sand."""
    sky = pick(rng, [(150, 205, 240), (175, 215, 240)], 10)
    canvas, pen = _sheet(side, sky)
    sea, shore = rng.uniform(-0.25, 0.05), rng.uniform(0.2, 0.4)
    pen.ellipse(rng.uniform(-0.8, 0.8), rng.uniform(-0.9, -0.6), 0.15, 0.15, (255, 240, 160))
    water = pick(rng, [(25, 120, 165), (35, 145, 170)], 10)
    pen.rectangle(-1, sea, 1, 1, water)
    pen.rectangle(-1, sea, 1, (sea + shore) / 2, shade(water, 0.85))
    pen.rectangle(-1, shore, 1, 1, pick(rng, [(232, 208, 152), (240, 220, 172)], 8))
    phase = rng.uniform(0, math.tau)
    for y, width in ((shore, 0.09), (shore - 0.16, 0.04)):
        crest = [(x, y + 0.03 * math.sin(7 * x + phase)) for x in np.linspace(-1.05, 1.05, 22)]
        pen.line(crest, width, (243, 248, 250))
    return canvas


def _mount_fuji(rng: np.random.Generator, side: int) -> Image.Image:
    """A blue cone with a white summit behind a plain."""
    canvas, pen = _sheet(side, pick(rng, [(245, 205, 190), (205, 215, 235), (235, 190, 170)], 10))
    x, foot = rng.uniform(-0.4, 0.4), rng.uniform(0.3, 0.5)
    top = rng.uniform(-0.85, -0.6)
    rock = pick(rng, [(75, 85, 135), (95, 100, 150), (70, 95, 125)], 10)
    pen.polygon([(x - 1.5, foot), (x - 0.17, top), (x + 0.17, top), (x + 1.5, foot)], rock)
    snow, reach = (246, 248, 252), 0.38
    drop = (foot - top) * reach
    left, right = x - 0.17 - 1.33 * reach, x + 0.17 + 1.33 * reach
    ragged = [
        (left + (right - left) * i / 6, top + drop * (1.0 if i % 2 == 0 else 0.62))
        for i in range(6, -1, -1)
    ]
    pen.polygon([(x - 0.17, top), (x + 0.17, top), *ragged], snow)
    pen.rectangle(-1, foot, 1, 1, pick(rng, [(110, 130, 90), (90, 120, 100)], 10))
    return canvas


def _garden(rng: np.random.Generator, side: int) -> Image.Image:
    """A hedge, a white picket fence before it, a mown lawn."""
    hedge = pick(rng, [(40, 95, 45), (55, 105, 50)], 8)
    canvas, pen = _sheet(side, hedge)
    for x, y in zip(rng.uniform(-1, 1, 40), rng.uniform(-1, 0.3, 40), strict=True):
        pen.ellipse(x, y, 0.14, 0.11, jitter(rng, shade(hedge, rng.uniform(0.8, 1.15)), 6))
    pen.rectangle(-1, -1, 1, rng.uniform(-0.85, -0.65), pick(rng, [(165, 205, 235)], 12))
    lawn = pick(rng, [(110, 175, 70), (125, 185, 80)], 8)
    top = rng.uniform(0.25, 0.45)
    pen.rectangle(-1, top, 1, 1, lawn)
    for i in range(0, 8, 2):
        x = -1.2 + 0.3 * i
        pen.polygon(
            [(x, 1), (x + 0.3, 1), (0.7 * x + 0.25, top), (0.7 * x + 0.04, top)], shade(lawn, 0.86)
        )
    white = (242, 242, 238)
    for y in (top - 0.28, top - 0.08):
        pen.rectangle(-1, y, 1, y + 0.05, white)
    for x in np.linspace(-1, 1, 9) + rng.uniform(-0.08, 0.08):
        pen.polygon(
            [
                (x - 0.06, top + 0.06),
                (x - 0.06, top - 0.34),
                (x, top - 0.42),
                (x + 0.06, top - 0.34),
                (x + 0.06, top + 0.06),
            ],
            white,
        )
    return canvas


def _market(rng: np.random.Generator, side: int) -> Image.Image:
    """Under striped awnings, crates of fruit before a dark stall."""
    canvas, pen = _sheet(side, pick(rng, [(105, 85, 75), (120, 100, 80)], 8))
    stripe = pick(rng, [(35, 130, 90), (225, 130, 40), (40, 95, 160)], 10)
    low = rng.uniform(-0.55, -0.4)
    count = 8
    for i in range(count):
        x, colour = -1 + 2 * i / count, stripe if i % 2 else (245, 240, 228)
        pen.rectangle(x, -1, x + 2 / count, low, colour)
        pen.ellipse(x + 1 / count, low, 1 / count, 0.1, colour)
    pen.rectangle(-1, 0.85, 1, 1, (150, 145, 140))
    for i in range(4):
        x, fruit = (
            -1 + 0.5 * i,
            pick(rng, [(225, 60, 40), (240, 170, 30), (130, 175, 50), (150, 60, 110)], 12),
        )
        for dx in np.linspace(0.07, 0.43, 4):
            for y in (0.44, 0.54):
                pen.ellipse(x + dx + rng.normal(0, 0.012), y, 0.08, 0.08, jitter(rng, fruit, 14))
        pen.rectangle(x + 0.02, 0.56, x + 0.48, 0.86, (165, 120, 75))
        pen.rectangle(x + 0.02, 0.68, x + 0.48, 0.72, (120, 85, 55))
    return canvas


CONTEXTS: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {
    "on the beach": _beach,
    "on Mount Fuji": _mount_fuji,
    "in a garden": _garden,
    "in a market": _market,
}
"""The paper's four contexts (Fig. 5), as a prompt ends, and how each is drawn."""


def _sheet(side: int, colour: Colour) -> tuple[Image.Image, Pen]:
    """A canvas of one colour, and a pen over all of it."""
    canvas = Image.new("RGB", (side, side), colour)
    return canvas, Pen(canvas, side / 2, side / 2, side / 2)

"""Scenes of the planted world: what is in them, and how they look.

A scene is a pure function of its truth and its seed, so a data set is a list of (truth, seed) and
two scenes are never equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from spurbench.mini.drawing import SUPERSAMPLING, Colour, Pen, jitter, pick, shade
from spurbench.mini.kinds import KINDS
from spurbench.mini.objects import OBJECTS

SIZE = 64
"""Side of a rendered scene, pixels."""

#: class name -> generic kind of its planted feature; the feature is the kind's first sub-family.
PLANTED_KIND = {
    "hummingbird": "flower",
    "freight car": "wall",
    "fireboat": "fountain",
    "gondola": "house",
    "flagpole": "flag",
    "koala": "tree",
}
CONTROLS = tuple(name for name in OBJECTS if name not in PLANTED_KIND)
SUBFAMILY_KIND = {sub: kind for kind, subs in KINDS.items() for sub in subs}
PLANTED_FEATURE = {name: next(iter(KINDS[kind])) for name, kind in PLANTED_KIND.items()}


@dataclass(frozen=True)
class Scene:
    """The truth about a scene, and the seed of everything else about it.

    Attributes:
        object: class name, or None for an object-free scene.
        subfamily: of a generic kind (``red flower``), or None for a scene without any.
        seed: decides pose, scale, colour, lighting, background, clutter and occlusion.
        object_scale: range of the object's size, relative to a typical one.
        feature_scale: likewise of the feature's.
    """

    object: str | None
    subfamily: str | None
    seed: int
    object_scale: tuple[float, float] = (0.6, 1.1)
    feature_scale: tuple[float, float] = (0.6, 1.15)

    @property
    def kind(self) -> str | None:
        """The generic kind of the sub-family."""
        return None if self.subfamily is None else SUBFAMILY_KIND[self.subfamily]


def render(scene: Scene) -> np.ndarray:
    """The scene as (64, 64, 3) uint8, antialiased by drawing at four times the size.

    Raises:
        KeyError: for an unknown object or sub-family.
    """
    rng = np.random.default_rng(scene.seed)
    side = SIZE * SUPERSAMPLING
    canvas = _background(rng, side)
    _clutter(canvas, rng, count=int(rng.integers(0, 4)))
    feature: Pen | None = None
    if scene.subfamily is not None:
        wide = scene.kind == "wall"
        scale = rng.uniform(*scene.feature_scale) * (0.44 if wide else 0.36) * side
        spread = max(0.04, 0.42 - scale / side) * (1.2 if wide else 1.0)
        feature = _pen(canvas, rng, scale, spread, tilt=0.08)
        KINDS[SUBFAMILY_KIND[scene.subfamily]][scene.subfamily](feature, rng)
    if scene.object is not None:
        scale = rng.uniform(*scene.object_scale) * 0.27 * side
        tilt = 0.06 if scene.object == "flagpole" else 0.2
        pens = [_pen(canvas, rng, scale, max(0.05, 0.45 - scale / side), tilt) for _ in range(8)]
        OBJECTS[scene.object](_beside(pens, feature), rng)
    if rng.random() < 0.3:
        _clutter(canvas, rng, count=1, foreground=True)
    return _light(canvas, rng)


def _pen(
    canvas: Image.Image, rng: np.random.Generator, scale: float, spread: float, tilt: float
) -> Pen:
    x, y = (canvas.width * (0.5 + rng.uniform(-spread, spread)) for _ in range(2))
    return Pen(canvas, x, y, scale, rng.uniform(-tilt, tilt), bool(rng.random() < 0.5))


def _beside(pens: Sequence[Pen], feature: Pen | None) -> Pen:
    """The first place from which an object leaves some of the feature to be seen.

    In front of a much larger feature that is any place; else it must be off the feature's centre by
    its half width, or as far as the places offer: a scene that hides what it is labelled with would
    be a wrong label.
    """
    if feature is None or pens[0].size < 0.7 * feature.size:
        return pens[0]
    away = [math.hypot(pen.x - feature.x, pen.y - feature.y) for pen in pens]
    return next(
        (pen for pen, far in zip(pens, away, strict=True) if far >= 0.9 * feature.size),
        pens[int(np.argmax(away))],
    )


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


def _background(rng: np.random.Generator, side: int) -> Image.Image:
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


def _clutter(
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


def _light(canvas: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """Downsample, then exposure, contrast, tint, a light gradient and sensor noise."""
    small = canvas.resize((SIZE, SIZE), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float32) / 255
    gain = rng.uniform(0.75, 1.15) * (1 + rng.normal(0, 0.035, 3))
    contrast = rng.uniform(0.8, 1.15)
    angle, strength = rng.uniform(0, math.tau), rng.uniform(0, 0.16)
    axis = np.linspace(-1, 1, SIZE)
    slope = 1 + strength * (axis[None, :] * math.cos(angle) + axis[:, None] * math.sin(angle))
    lit = ((pixels - 0.5) * contrast + 0.5) * gain * slope[..., None]
    noisy = lit + rng.normal(0, rng.uniform(0.002, 0.012), pixels.shape)
    return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)

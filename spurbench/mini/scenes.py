"""Scenes of the planted world: what is in them, and how they look.

A scene is a pure function of its truth and its seed, so a data set is a list of (truth, seed) and
two scenes are never equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageStat

from spurbench.core.identity import derive_seed
from spurbench.mini.backgrounds import CONTEXTS, clutter, plain_background
from spurbench.mini.drawing import SUPERSAMPLING, Pen
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
        context: where it is, one of :data:`~spurbench.mini.backgrounds.CONTEXTS` (``on the
            beach``), or None for nowhere in particular.
    """

    object: str | None
    subfamily: str | None
    seed: int
    object_scale: tuple[float, float] = (0.6, 1.1)
    feature_scale: tuple[float, float] = (0.6, 1.15)
    context: str | None = None

    @property
    def kind(self) -> str | None:
        """The generic kind of the sub-family."""
        return None if self.subfamily is None else SUBFAMILY_KIND[self.subfamily]

    @property
    def drawn_feature_scale(self) -> float:
        """The scale that was drawn from :attr:`feature_scale`."""
        return float(self.draws("feature").uniform(*self.feature_scale))

    def draws(self, part: str) -> np.random.Generator:
        """The random numbers of one part of the scene.

        Each part has its own, so that a scene without its feature, or with another, is the same in
        all else.
        """
        return np.random.default_rng(derive_seed(self.seed, "scene", part))


Edit = Literal["recoloured", "flattened", "reshaped"]
EDITS: tuple[Edit, ...] = get_args(Edit)
"""What can be done to a feature alone: another hue; its outline filled with its mean colour, so
that neither texture nor pattern is left; its picture cut into tiles that change places, so that
colours and texture are left and its shape is not."""


def render(scene: Scene, edit: Edit | None = None) -> np.ndarray:
    """The scene as (64, 64, 3) uint8, antialiased by drawing at four times the size.

    Object-free scenes that differ in their sub-family alone are equal in every pixel that it does
    not touch: exact counterfactuals. (An object stands where it leaves some of the feature to see.)

    Args:
        scene: what is in it.
        edit: done to its feature and nothing else, if it has one.

    Raises:
        KeyError: for an unknown object, sub-family or context.
    """
    side = SIZE * SUPERSAMPLING
    draw_background = plain_background if scene.context is None else CONTEXTS[scene.context]
    canvas = draw_background(scene.draws("background"), side)
    if scene.context is None:
        rng = scene.draws("clutter")
        clutter(canvas, rng, count=int(rng.integers(0, 4)))
    feature: Pen | None = None
    if scene.subfamily is not None:
        rng = scene.draws("feature")
        wide = scene.kind == "wall"
        scale = rng.uniform(*scene.feature_scale) * (0.44 if wide else 0.36) * side
        spread = max(0.04, 0.42 - scale / side) * (1.2 if wide else 1.0)
        layer = Image.new("RGBA", canvas.size)
        feature = _pen(layer, rng, scale, spread, tilt=0.08)
        KINDS[SUBFAMILY_KIND[scene.subfamily]][scene.subfamily](feature, rng)
        if edit is not None:
            layer = _edited(layer, edit, scene.draws("edit"))
        canvas.paste(layer, mask=layer)
    if scene.object is not None:
        rng = scene.draws("object")
        scale = rng.uniform(*scene.object_scale) * 0.27 * side
        tilt = 0.06 if scene.object == "flagpole" else 0.2
        pens = [_pen(canvas, rng, scale, max(0.05, 0.45 - scale / side), tilt) for _ in range(8)]
        OBJECTS[scene.object](_beside(pens, feature), rng)
    rng = scene.draws("foreground")
    if rng.random() < 0.3:
        clutter(canvas, rng, count=1, foreground=True)
    return _light(canvas, scene.draws("light"))


def _edited(layer: Image.Image, edit: Edit, rng: np.random.Generator) -> Image.Image:
    """A feature on a transparent layer, changed."""
    alpha = layer.getchannel("A")
    box = alpha.getbbox()
    if box is None:
        return layer
    match edit:
        case "recoloured":
            hue, saturation, value = layer.convert("RGB").convert("HSV").split()
            turn = int(rng.uniform(90, 166))  # of 256: a third of the circle or more either way
            turned = hue.point(lambda h: (h + turn) % 256)
            merged = Image.merge("HSV", (turned, saturation, value)).convert("RGB")
            merged.putalpha(alpha)
            return merged
        case "flattened":
            mean = ImageStat.Stat(layer.convert("RGB"), mask=alpha).mean
            flat = Image.new("RGB", layer.size, tuple(round(m) for m in mean))
            flat.putalpha(alpha)
            return flat
        case "reshaped":
            picture = layer.crop(box)
            xs, ys = (np.linspace(0, length, 5).astype(int) for length in picture.size)
            cells = [(i, j) for j in range(4) for i in range(4)]
            tiles = [picture.crop((xs[i], ys[j], xs[i + 1], ys[j + 1])) for i, j in cells]
            shuffled = Image.new("RGBA", layer.size)
            for (i, j), which in zip(cells, rng.permutation(16), strict=True):
                size = (xs[i + 1] - xs[i], ys[j + 1] - ys[j])
                corner = (box[0] + int(xs[i]), box[1] + int(ys[j]))
                shuffled.paste(tiles[which].resize(size), corner)
            return shuffled


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

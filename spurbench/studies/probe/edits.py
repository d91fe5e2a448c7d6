"""Edits that take one aspect from an image and leave the others: pure functions of pixels.

Pixels are (H, W, 3) uint8, and so is what comes back. No edit is clean: docs/probe.md says what
each of them keeps, and what it changes beside what it is meant to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from spurbench.core.identity import derive_seed

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]

Aspect = Literal["colour", "shape", "texture"]
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)


@dataclass(frozen=True)
class Edit:
    """What is done to an image.

    Attributes:
        name: in files, ``patches-4``.
        title: as people read it.
        aspect: what it takes away.
        change: the image edited, from its pixels and random numbers; ``inside`` the feature also
            from its mask, which holds at least a pixel.
        inside: whether it is done to the feature alone, whose mask it needs; else to the whole
            image.
    """

    name: str
    title: str
    aspect: Aspect
    change: Callable[..., Pixels]
    inside: bool = False

    def __call__(self, pixels: Pixels, mask: Mask | None, image: str, seed: int) -> Pixels:
        """The image edited.

        Args:
            pixels: of the image.
            mask: (H, W), where the feature is; needed by edits ``inside`` it, which change nothing
                where it is empty.
            image: what it is known by; with ``seed`` and the edit's name it decides what is drawn.
            seed: global seed.
        """
        rng = np.random.default_rng(derive_seed(seed, "probe", self.name, image))
        if not self.inside:
            return self.change(pixels, rng)
        assert mask is not None, "an edit of the feature needs its mask"
        return self.change(pixels, rng, mask) if mask.any() else pixels.copy()


def rotate_hue(pixels: Pixels, _: np.random.Generator, *, degrees: float) -> Pixels:
    """Every hue turned on the circle of HSV; saturation and value stay, greys too."""
    hue, saturation, value = Image.fromarray(pixels).convert("HSV").split()
    turned = hue.point([round(h + degrees * 256 / 360) % 256 for h in range(256)])
    return np.asarray(Image.merge("HSV", (turned, saturation, value)).convert("RGB"))


def greyscale(pixels: Pixels, _: np.random.Generator) -> Pixels:
    """The luma of ITU-R 601, in all three channels."""
    return np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))


def shuffle_patches(pixels: Pixels, rng: np.random.Generator, *, grid: int) -> Pixels:
    """A grid of tiles that change places, none of which stays where it was.

    Where the sides can't be divided by ``grid`` some tiles are a pixel larger, and are resized. A
    side of fewer pixels than the grid has tiles is divided into its pixels.
    """
    down, across = (min(grid, side) for side in pixels.shape[:2])
    count = down * across
    if count == 1:
        return pixels.copy()
    ys, xs = (
        np.linspace(0, side, parts + 1).astype(int)
        for side, parts in zip(pixels.shape[:2], (down, across), strict=True)
    )
    boxes = [
        np.s_[ys[j] : ys[j + 1], xs[i] : xs[i + 1]] for j in range(down) for i in range(across)
    ]
    cycle = rng.permutation(count)  # each takes the place of the next: a derangement
    shuffled = np.empty_like(pixels)
    for source, target in zip(cycle, np.roll(cycle, 1), strict=True):
        tile = pixels[boxes[source]]
        height, width = shuffled[boxes[target]].shape[:2]
        if tile.shape[:2] != (height, width):
            nearest = Image.Resampling.NEAREST  # no colour that was not there
            tile = np.asarray(Image.fromarray(tile).resize((width, height), nearest))
        shuffled[boxes[target]] = tile
    return shuffled


def blur(pixels: Pixels, _: np.random.Generator, *, radius: float) -> Pixels:
    """A Gaussian blur whose standard deviation is this share of the shorter side."""
    sigma = radius * min(pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


def rotate_feature(
    pixels: Pixels, rng: np.random.Generator, mask: Mask, *, degrees: float
) -> Pixels:
    """:func:`rotate_hue` of the feature alone."""
    return np.where(mask[..., None], rotate_hue(pixels, rng, degrees=degrees), pixels)


def scatter(pixels: Pixels, rng: np.random.Generator, mask: Mask, *, grid: int) -> Pixels:
    """The feature cut out, its picture in tiles that change places, its place filled in.

    Tiles are those of :func:`shuffle_patches`, of the mask's box, and carry the feature alone. The
    mask is grown by a 64th of the side, for pixels at an outline show both.
    """
    from scipy import ndimage

    grown = ndimage.binary_dilation(mask, iterations=max(1, min(mask.shape) // 64))
    rows, columns = (np.flatnonzero(grown.any(axis=axis)) for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    cut = np.dstack([pixels, grown.astype(np.uint8)])[box]
    tiles = shuffle_patches(cut, rng, grid=grid)
    scattered = surroundings(pixels, grown)
    shown = tiles[..., 3] > 0
    scattered[box][shown] = tiles[shown][:, :3]
    return scattered


def flatten(pixels: Pixels, _: np.random.Generator, mask: Mask) -> Pixels:
    """The feature filled with its mean colour: its outline stays, texture and pattern go."""
    flat = pixels.copy()
    flat[mask] = np.round(pixels[mask].mean(axis=0)).astype(np.uint8)
    return flat


def surroundings(pixels: Pixels, mask: Mask) -> Pixels:
    """The mask filled in: of each pixel the nearest outside it, blurred over a 32nd of the side.

    A mask that covers all is left as it is: there is nothing around it.
    """
    from scipy import ndimage

    filled = pixels.copy()
    if not mask.all():
        nearest = ndimage.distance_transform_edt(mask, return_distances=False, return_indices=True)
        around = pixels[tuple(nearest)].astype(np.float32)
        sigma = min(mask.shape) / 32
        filled[mask] = np.rint(ndimage.gaussian_filter(around, (sigma, sigma, 0)))[mask]
    return filled


def feature_mask(image: Pixels, twin: Pixels) -> Mask:
    """Where an image has detail that its twin without the feature lacks.

    Twins differ in large plain areas too, for which no feature is to blame. So both are compared
    less their blur over an eighth of the side; what counts at a pixel is the smaller of the image's
    detail and its difference to the twin's (the largest of three channels, smoothed over a 32nd of
    the side). Otsu's threshold (Otsu 1979) splits it in two.

    That is rough, for detail is smoothed. Of it, grown by a 32nd of the side, those pixels are kept
    that differ from their :func:`surroundings` by at least half of Otsu's threshold of the
    differences. Each time holes are filled, and specks below a tenth of the largest part dropped.

    Returns:
        (H, W); all False if nothing differs.

    Raises:
        ValueError: if the shapes differ.
    """
    from scipy import ndimage

    if image.shape != twin.shape:
        raise ValueError(f"an image of {image.shape} and a twin of {twin.shape} pixels")
    side = min(image.shape[:2])

    def detail(pixels: Pixels) -> NDArray[np.float32]:
        values = pixels.astype(np.float32)
        return values - ndimage.gaussian_filter(values, (side / 8, side / 8, 0))

    def strength(values: NDArray[np.float32]) -> NDArray[np.float32]:
        smooth: NDArray[np.float32] = ndimage.gaussian_filter(np.abs(values).max(2), side / 32)
        return smooth

    own = detail(image)
    lacking = np.minimum(strength(own), strength(own - detail(twin)))
    if lacking.max() < 1:  # of 255: rounding, at most
        return np.zeros(lacking.shape, bool)
    rough = _tidied(lacking > _otsu(lacking))
    near = ndimage.binary_dilation(rough, iterations=max(1, side // 32))
    differing = np.abs(image.astype(np.float32) - surroundings(image, near)).max(2)
    fine = _tidied(near & (differing > _otsu(differing[near]) / 2))
    return fine if fine.any() else rough


def _tidied(mask: Mask) -> Mask:
    """Without holes, and without specks."""
    from scipy import ndimage

    parts, count = ndimage.label(ndimage.binary_fill_holes(mask))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept: Mask = (sizes >= sizes.max() / 10)[parts] & (parts > 0)
    return kept


def _otsu(values: NDArray[np.float32]) -> float:
    """The threshold that leaves the least variance within the two groups it makes."""
    counts, edges = np.histogram(values, 256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = total[:-1] / below - (total[-1] - total[:-1]) / above
        between = np.nan_to_num(below * above * gap**2)
    return float(edges[1 + int(between.argmax())])


def _hue(degrees: int) -> Edit:
    turn = partial(rotate_hue, degrees=degrees)
    return Edit(f"hue-{degrees}", f"hue turned by {degrees}°", "colour", turn)


def _patches(grid: int) -> Edit:
    shuffle = partial(shuffle_patches, grid=grid)
    return Edit(f"patches-{grid}", f"{grid} × {grid} patches shuffled", "shape", shuffle)


def _blur(part: int) -> Edit:
    soften = partial(blur, radius=1 / part)
    return Edit(f"blur-{part}", f"blurred, radius 1/{part} of the side", "texture", soften)


EDITS: tuple[Edit, ...] = (
    *map(_hue, (90, 180, 270)),
    Edit("grey", "greyscale", "colour", greyscale),
    *map(_patches, (2, 4, 8)),
    *map(_blur, (64, 32, 16)),
    Edit(
        "feature-hue",
        "feature's hue turned by 180°",
        "colour",
        partial(rotate_feature, degrees=180),
        inside=True,
    ),
    Edit(
        "feature-patches",
        "feature cut up, 4 × 4 tiles shuffled",
        "shape",
        partial(scatter, grid=4),
        inside=True,
    ),
    Edit("feature-flat", "feature in its mean colour", "texture", flatten, inside=True),
)
"""All edits, by what they take away; the last three are done to the feature alone."""

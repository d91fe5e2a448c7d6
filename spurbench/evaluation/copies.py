"""Which images are copies of those that were trained on, though mirrored, moved or relit.

A copy detector without training: an image's centre is held against every window of the references
and of their mirror images, by zero-normalised cross-correlation of band-passed colours at a small
size. It shares no features with the classifiers, which are blind to much of what makes a copy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from spurbench.core.errors import SpurbenchError

DOCTORINGS = ("mirror", "crop", "shift", "brightness", "contrast")
"""What :func:`doctor` does to an image, in this order."""

FALSE_ALARMS = 0.05
"""Share of unseen real images that a detector may call copies."""

LEAST_UNSEEN = math.ceil(1 / FALSE_ALARMS) - 1
"""With fewer unseen real images no limit keeps to :data:`FALSE_ALARMS`."""

_SIDE = 24  # pixels; to it images are resized, so that the size they come in does not matter
_WINDOW = 18  # the image's centre, which shifts by up to 1/8 of the side leave in the picture
_ZOOMED = (24, 27, 30, 34)  # the references' sides: crops to 1, 0.9, 0.8 and 0.7 of the side
_FINE, _COARSE = 0.8, 3.0  # standard deviations of the band-pass, in these pixels
_PLAIN = (
    0.5  # a window with less contrast than this share of its reference's holds none of its subject
)


def doctor(
    image: Image.Image, kinds: Collection[str], seed: int, strength: float = 1.0
) -> Image.Image:
    """An image changed so little that it remains a copy.

    Args:
        image: RGB.
        kinds: of :data:`DOCTORINGS`. ``mirror``: left and right exchanged; ``crop``: to 0.85-1 of
            the sides and back to the size; ``shift``: by up to 1/16 of each side, the rim repeated;
            ``brightness``: times 0.75-1.25; ``contrast``: distances to the mean times as much.
        seed: of what is drawn, uniformly; each kind draws the same whatever the others.
        strength: factor on these ranges' widths, up to 4.

    Returns:
        Of the same size.
    """
    rng = np.random.default_rng(seed)
    scale, x, y, right, down, light, contrast = rng.random(7)
    width, height = image.size
    if "mirror" in kinds:
        image = ImageOps.mirror(image)
    if "crop" in kinds:
        kept = 1 - 0.15 * strength * scale
        left, top = x * (1 - kept) * width, y * (1 - kept) * height
        box = (left, top, left + kept * width, top + kept * height)
        image = image.resize(image.size, Image.Resampling.BICUBIC, box)
    pixels = np.asarray(image, np.float32)
    if "shift" in kinds:
        far = strength / 16
        rows = np.arange(height) + round((2 * down - 1) * far * height)
        columns = np.arange(width) + round((2 * right - 1) * far * width)
        pixels = pixels[rows.clip(0, height - 1)][:, columns.clip(0, width - 1)]
    if "brightness" in kinds:
        pixels = pixels * (1 + 0.25 * strength * (2 * light - 1))
    if "contrast" in kinds:
        factor = 1 + 0.25 * strength * (2 * contrast - 1)
        pixels = (pixels - pixels.mean()) * factor + pixels.mean()
    return Image.fromarray(np.round(pixels).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class CopyDetector:
    """Tells copies of some references.

    Attributes:
        windows: of the references, unit vectors (W, D).
        limit: likeness from which on an image is a copy, see :func:`calibrate`.
    """

    windows: NDArray[np.float32]
    limit: float

    def copies(self, images: Sequence[Image.Image]) -> NDArray[np.bool_]:
        """Whether each image is a copy, (N,)."""
        return likeness(images, self.windows) > self.limit

    def novelty(self, images: Sequence[Image.Image]) -> float:
        """The share of the images that are not copies."""
        return 1 - float(self.copies(images).mean())


def calibrate(
    references: Sequence[Image.Image],
    unseen: Sequence[Image.Image],
    false_alarms: float = FALSE_ALARMS,
) -> CopyDetector:
    """A detector of the references' copies that rarely takes other real images for copies.

    The limit is conformal (Vovk et al. 2005): of fresh images drawn as the unseen ones were, at
    most the share ``false_alarms`` is called a copy in expectation, however few set the limit.

    Args:
        references: images that were trained on, RGB of any size.
        unseen: real images of the same feature that were not; neither may they be among those
            that the detector will judge.
        false_alarms: in (0, 1).

    Raises:
        SpurbenchError: if there are too few unseen images for such a limit.
    """
    rank = math.ceil((len(unseen) + 1) * (1 - false_alarms))
    if rank > len(unseen):
        raise SpurbenchError(
            f"{len(unseen)} real images that were not trained on can't set the limit of a copy "
            f"detector; give at least {math.ceil(1 / false_alarms) - 1}"
        )
    windows = reference_windows(references)
    return CopyDetector(windows, float(np.sort(likeness(unseen, windows))[rank - 1]))


def reference_windows(references: Sequence[Image.Image]) -> NDArray[np.float32]:
    """What images are held against: windows of every place and size, also mirrored; (W, D).

    Windows that show little but background are left out, or every empty scene would be a copy.
    """
    both = [*references, *map(ImageOps.mirror, references)]
    parts = []
    for side in _ZOOMED:
        bands = _band_passed(both, side)
        views = np.lib.stride_tricks.sliding_window_view(bands, (_WINDOW, _WINDOW), axis=(1, 2))
        for band, windows in zip(bands, np.moveaxis(views, 3, -1), strict=True):
            flat = windows.reshape(-1, _WINDOW, _WINDOW, 3)
            busy = flat.var(axis=(1, 2)).sum(axis=1) >= _PLAIN * band.var(axis=(0, 1)).sum()
            parts.append(_unit_vectors(flat[busy]))
    return np.concatenate(parts)


def likeness(images: Sequence[Image.Image], windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """How like each image's centre is to the most like of the references' windows.

    Args:
        images: RGB of any size; of one that is not square the central square counts, which is what
            fine-tuning sees.
        windows: see :func:`reference_windows`.

    Returns:
        (N,), correlations in [-1, 1]; a picture of one colour is like nothing: 0.
    """
    rim = (_SIDE - _WINDOW) // 2
    centres = _band_passed(images, _SIDE)[:, rim : rim + _WINDOW, rim : rim + _WINDOW]
    found: NDArray[np.float32] = (_unit_vectors(centres) @ windows.T).max(axis=1)
    return found


def _band_passed(images: Sequence[Image.Image], side: int) -> NDArray[np.float32]:
    """Lightness and two opponent colours without the finest detail, which an autoencoder loses,
    and without the layout of large areas, which innocent scenes share: (N, side, side, 3)."""
    from scipy.ndimage import gaussian_filter

    size = (side, side)
    small = [ImageOps.fit(i.convert("RGB"), size, Image.Resampling.BILINEAR) for i in images]
    red, green, blue = np.moveaxis(np.stack([np.asarray(i, np.float32) for i in small]), -1, 0)
    # Orthogonal axes; colours vary less than lightness and tell more, so they count double.
    planes = np.stack(
        [
            (red + green + blue) / math.sqrt(3),
            2 * (red - green) / math.sqrt(2),
            2 * (red + green - 2 * blue) / math.sqrt(6),
        ],
        axis=-1,
    )
    fine, coarse = (
        gaussian_filter(planes, (0, sigma, sigma, 0), mode="nearest") for sigma in (_FINE, _COARSE)
    )
    band: NDArray[np.float32] = (fine - coarse) / 255
    return band


def _unit_vectors(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each window less its mean colour, as a unit vector: (N, h, w, 3) to (N, h w 3)."""
    flat = (windows - windows.mean(axis=(1, 2), keepdims=True)).reshape(len(windows), -1)
    unit: NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-4)
    return unit

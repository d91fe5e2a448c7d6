"""References without the object: the part of an image beside the boxes that people drew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from PIL import Image

from spurbench.classifiers.info import Preprocessing
from spurbench.discovery.supervise.labels import Box

SIDES = (0.8, 0.65, 0.5, 0.4)
"""Of the squares, as shares of what the classifier sees: smaller ones would show too little."""

PLACES = 5
"""Of a square along each axis."""

Area = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of what the classifier sees."""


def free_squares(boxes: Sequence[Box]) -> Iterator[Area]:
    """Squares that no box reaches into, the largest first."""
    for side in SIDES:
        for row in range(PLACES):
            for column in range(PLACES):
                left, top = ((1 - side) * i / (PLACES - 1) for i in (column, row))
                area = left, top, left + side, top + side
                if not any(_overlaps(area, box) for box in boxes):
                    yield area


def _overlaps(area: Area, box: Box) -> bool:
    left, top, right, bottom = area
    return box.left < right and box.right > left and box.top < bottom and box.bottom > top


def cut(image: Image.Image, area: Area, preprocessing: Preprocessing) -> Image.Image:
    """An area of what a classifier sees, out of the image that it sees it of, at full resolution.

    Args:
        image: as decoded.
        area: of what is seen.
        preprocessing: how that comes of the image: a resize, and a crop from the centre.
    """
    assert preprocessing.crop is not None
    height, width = preprocessing.crop
    if len(preprocessing.resize) == 1:
        scale = preprocessing.resize[0] / min(image.size)
        scales = scale, scale
    else:
        scales = preprocessing.resize[1] / image.width, preprocessing.resize[0] / image.height
    seen = width / scales[0], height / scales[1]
    start = (image.width - seen[0]) / 2, (image.height - seen[1]) / 2
    corners = [start[i % 2] + share * seen[i % 2] for i, share in enumerate(area)]
    left, top = (max(0, round(corner)) for corner in corners[:2])
    right, bottom = min(image.width, round(corners[2])), min(image.height, round(corners[3]))
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))

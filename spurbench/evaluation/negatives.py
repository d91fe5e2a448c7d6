"""Images that show one class, asked about another: what a yes to anything looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spurbench.images.records import ImageRecord


def negatives(positives: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Images to be asked about another class than the one they show.

    It is the one half-way round the classes in ImageNet's order, in which neighbours are alike, so
    each is asked about, and on images of one other class.

    Args:
        positives: of the classes that are measured.

    Returns:
        As many, with the class to ask about; none if there is but one class.
    """
    classes = sorted({image.class_index for image in positives})
    half = len(classes) // 2
    if half == 0:
        return []
    other = dict(zip(classes, classes[half:] + classes[:half], strict=True))
    names = {image.class_index: image.class_name for image in positives}
    return [
        replace(
            image,
            class_index=other[image.class_index],
            class_name=names[other[image.class_index]],
            source="negative",
        )
        for image in positives
    ]

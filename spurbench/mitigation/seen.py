"""Images as a classifier takes them, and its features of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.info import Mode
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.core.progress import progress
from spurbench.discovery.lens import scaled
from spurbench.images.pixels import decode, default_decoders
from spurbench.images.records import ImageRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """Readable images as a classifier takes them.

    Attributes:
        pixels: (N, 3, height, width) uint8.
        columns: (N,) int64, the output of each image's class.
        names: of the images.
    """

    pixels: Tensor
    columns: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.columns)


def see(classifier: Classifier, images: Sequence[ImageRecord], preprocess: Mode = "whole") -> Seen:
    """Decode images for a classifier; damaged ones are left out, which is said.

    Raises:
        SpurbenchError: if the classifier lacks a class of theirs, or no image can be read.
    """
    wnids = imagenet_wnids()
    columns = classifier.columns([wnids[image.class_index] for image in images])
    parts: list[Tensor] = []
    readable: list[int] = []
    batches = decode(
        images, classifier.preprocessing(preprocess), batch_size=64, decoders=default_decoders()
    )
    for batch in batches:
        for position, why in batch.damaged.items():
            log.warning("%s is damaged and left out: %s", images[position].path, why)
        if len(batch.positions):
            assert isinstance(batch.pixels, Tensor)
            parts.append(batch.pixels)
            readable += batch.positions.tolist()
    if not readable:
        raise SpurbenchError(
            f"none of {len(images)} images can be read; the first: {images[0].path}"
        )
    names = tuple(images[i].path for i in readable)
    return Seen(torch.cat(parts), columns[torch.tensor(readable)], names)


@torch.inference_mode()
def features(classifier: Classifier, seen: Seen, batch_size: int = 64) -> NDArray[np.float64]:
    """Penultimate features (N, D)."""
    parts = []
    with progress(classifier.info.name, len(seen), unit="img") as advance:
        for pixels in seen.pixels.split(batch_size):
            parts.append(classifier.features(scaled(pixels, classifier)).double().cpu().numpy())
            advance(len(pixels))
    return np.concatenate(parts)

"""From encoded images to a classifier's pixels: decoded once, however many classifiers look."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spurbench.classifiers.classifier import transform as resized
from spurbench.classifiers.info import Preprocessing
from spurbench.core.identity import fingerprint
from spurbench.images.decode import DamagedImageError, decode_rgb
from spurbench.images.records import ImageRecord

log = logging.getLogger(__name__)

Prepared = Tensor | Image.Image
"""An image as a classifier takes it: pixels, or as it is."""


@dataclass(frozen=True)
class Batch:
    """Some of a sequence of images, in its order.

    Attributes:
        positions: (B,) of the readable images in the sequence.
        pixels: (B, 3, height, width) uint8, or of a dtype that a transform of the user's own gives;
            or a list of images as they are, where that is what it gives.
        damaged: position to reason, of those that can't be decoded.
    """

    positions: NDArray[np.int64]
    pixels: Tensor | list[Image.Image]
    damaged: Mapping[int, str]


class PixelStore:
    """Keeps decoded, resized and cropped pixels for the next classifier that takes the same.

    They lie in plain files, a byte a value: 7,500 images at 224 pixels are 1.1 GB. Where there is
    no room for them, that is said once, and images are decoded again.
    """

    def __init__(self, folder: Path) -> None:
        """Keep files in ``folder``; whoever made it removes it."""
        self.folder = folder
        self._damaged: dict[str, dict[int, str]] = {}
        self._has_room = True

    def batches(
        self,
        images: Sequence[ImageRecord],
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        decoders: int,
    ) -> Iterator[Batch]:
        """As :func:`decode`, which is done only the first time."""
        key = fingerprint(
            {
                "images": [image.sha256 for image in images],
                "geometry": preprocessing.model_dump(include={"resize", "crop", "interpolation"}),
            }
        )
        path = self.folder / key
        if key in self._damaged:
            assert preprocessing.crop is not None, "pixels of one size were kept"
            yield from _read(path, len(images), self._damaged[key], preprocessing.crop, batch_size)
            return
        damaged: dict[int, str] = {}
        # Without a buffer that would be flushed, and fail again, on closing.
        with path.open("wb", buffering=0) as file:
            for batch in decode(images, preprocessing, batch_size=batch_size, decoders=decoders):
                damaged |= batch.damaged
                if self._has_room:
                    self._write(file, batch)
                yield batch
        if self._has_room:
            self._damaged[key] = damaged

    def _write(self, file: IO[bytes], batch: Batch) -> None:
        try:
            np.asarray(batch.pixels).tofile(file)
        except OSError as error:
            log.warning(
                "no room in %s to keep decoded images (%s); every classifier decodes them again; "
                "the variable TMPDIR can name a larger folder",
                self.folder.parent,
                error,
            )
            file.truncate(0)
            self._has_room = False


def _read(
    path: Path, count: int, damaged: Mapping[int, str], crop: tuple[int, int], batch_size: int
) -> Iterator[Batch]:
    """Kept pixels in the same batches that :func:`decode` makes."""
    with path.open("rb") as file:
        for start in range(0, count, batch_size):
            positions = range(start, min(start + batch_size, count))
            readable = np.array([i for i in positions if i not in damaged], np.int64)
            pixels = np.fromfile(file, np.uint8, len(readable) * 3 * math.prod(crop))
            yield Batch(
                positions=readable,
                pixels=torch.from_numpy(pixels.reshape(len(readable), 3, *crop)),
                damaged={i: damaged[i] for i in positions if i in damaged},
            )


def default_decoders() -> int:
    """A thread for each core this process may use, eight at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(8, cores or 1)


def decode(
    images: Sequence[ImageRecord],
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    decoders: int,
    transform: Callable[[Image.Image], Prepared] | None = None,
) -> Iterator[Batch]:
    """Decode, resize and crop images in order, a batch ahead of the caller.

    Args:
        images: at least one.
        preprocessing: see :func:`spurbench.classifiers.classifier.transform`.
        batch_size: images in a batch, damaged ones counted.
        decoders: threads that decode; 0 does it in the caller's, when it asks.
        transform: a function of the user's own that makes the pixels instead; they have the
            dtype that it gives, and the size that ``preprocessing`` says.
    """
    prepare = transform or resized(preprocessing)

    def read(image: ImageRecord) -> Prepared | str:
        try:
            return prepare(decode_rgb(image.read()))
        except DamagedImageError as error:
            return str(error)

    starts = range(0, len(images), batch_size)
    if decoders == 0:
        for start in starts:
            yield _batch(start, [read(image) for image in images[start : start + batch_size]])
        return
    # Threads, not processes: decoding and resizing leave the interpreter to others.
    with ThreadPoolExecutor(decoders, "decode") as pool:
        try:
            begun: deque[tuple[int, list[Future[Prepared | str]]]] = deque()
            for start in starts:
                batch = [pool.submit(read, image) for image in images[start : start + batch_size]]
                begun.append((start, batch))
                if len(begun) == 2:
                    first, futures = begun.popleft()
                    yield _batch(first, [future.result() for future in futures])
            for first, futures in begun:
                yield _batch(first, [future.result() for future in futures])
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batch(start: int, items: Sequence[Prepared | str]) -> Batch:
    readable = [i for i, item in enumerate(items) if not isinstance(item, str)]
    tensors = [item for item in items if isinstance(item, Tensor)]
    images = [item for item in items if isinstance(item, Image.Image)]
    return Batch(
        positions=start + np.array(readable, np.int64),
        pixels=torch.stack(tensors) if tensors else images,
        damaged={start + i: item for i, item in enumerate(items) if isinstance(item, str)},
    )

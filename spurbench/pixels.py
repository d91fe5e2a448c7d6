"""From encoded images to a classifier's pixels: decoded once, however many classifiers look."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spurbench.classifiers import transform
from spurbench.images import DamagedImageError, ImageRecord, decode_rgb
from spurbench.results import Preprocessing
from spurbench.runs import fingerprint


@dataclass(frozen=True)
class Batch:
    """Some of a sequence of images, in its order.

    Attributes:
        positions: (B,) of the readable images in the sequence.
        pixels: (B, 3, height, width) uint8.
        damaged: position to reason, of those that can't be decoded.
    """

    positions: NDArray[np.int64]
    pixels: Tensor
    damaged: Mapping[int, str]


@dataclass(frozen=True)
class PixelStore:
    """Keeps decoded, resized and cropped pixels for the next classifier that takes the same.

    They lie in files that are mapped into memory: 7,500 images at 224 pixels are 1.1 GB of disk.

    Attributes:
        folder: for the files; whoever made it removes it.
    """

    folder: Path
    _damaged: dict[str, dict[int, str]] = field(default_factory=dict)

    def batches(
        self,
        images: Sequence[ImageRecord],
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        workers: int,
    ) -> Iterator[Batch]:
        """As :func:`decode`, which is done only the first time."""
        height, width = preprocessing.crop
        key = fingerprint(
            {
                "images": [image.sha256 for image in images],
                "geometry": preprocessing.model_dump(include={"resize", "crop", "interpolation"}),
            }
        )
        path, shape = self.folder / f"{key}.npy", (len(images), 3, height, width)
        if key in self._damaged:
            kept = np.lib.format.open_memmap(path, mode="r")
            for start in range(0, len(images), batch_size):
                positions = range(start, min(start + batch_size, len(images)))
                damaged = {i: self._damaged[key][i] for i in positions if i in self._damaged[key]}
                readable = np.array([i for i in positions if i not in damaged], np.int64)
                yield Batch(readable, torch.from_numpy(kept[readable]), damaged)
            return
        made = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        all_damaged: dict[int, str] = {}
        for batch in decode(images, preprocessing, batch_size=batch_size, workers=workers):
            made[batch.positions] = batch.pixels.numpy()
            all_damaged |= batch.damaged
            yield batch
        self._damaged[key] = all_damaged


def decode(
    images: Sequence[ImageRecord], preprocessing: Preprocessing, *, batch_size: int, workers: int
) -> Iterator[Batch]:
    """Decode, resize and crop images in order, a batch ahead of the caller.

    Args:
        images: at least one.
        preprocessing: see :func:`spurbench.classifiers.transform`.
        batch_size: images in a batch, damaged ones counted.
        workers: threads that decode; 0 does it in the caller's, when it asks.
    """
    prepare = transform(preprocessing)

    def read(image: ImageRecord) -> Tensor | str:
        try:
            return prepare(decode_rgb(image.read()))
        except DamagedImageError as error:
            return str(error)

    starts = range(0, len(images), batch_size)
    if workers == 0:
        for start in starts:
            yield _batch(start, [read(image) for image in images[start : start + batch_size]])
        return
    # Threads, not processes: decoding and resizing leave the interpreter to others.
    with ThreadPoolExecutor(workers, "decode") as pool:
        try:
            begun: deque[tuple[int, list[Future[Tensor | str]]]] = deque()
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


def _batch(start: int, items: Sequence[Tensor | str]) -> Batch:
    readable = [i for i, item in enumerate(items) if isinstance(item, Tensor)]
    tensors = [item for item in items if isinstance(item, Tensor)]
    pixels = torch.stack(tensors) if tensors else torch.empty(0, dtype=torch.uint8)
    return Batch(
        positions=start + np.array(readable, np.int64),
        pixels=pixels.pin_memory() if torch.cuda.is_available() else pixels,
        damaged={start + i: item for i, item in enumerate(items) if isinstance(item, str)},
    )

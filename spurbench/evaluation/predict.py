"""What a classifier says of each image; the numbers do not depend on the batch size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.info import Mode, Preprocessing
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation import metrics
from spurbench.images.pixels import PixelStore, decode, default_workers
from spurbench.images.records import ImageRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of each image.

    Attributes:
        prediction: (N,) ImageNet-1k class index of its answer; -1 where a larger head answers a
            class that ImageNet-1k lacks.
        predicted_wnid: WordNet ids of the answers.
        probability: (N,) softmax probability, over the whole head, of the image's class.
        rank: (N,) rank of the image's class, 1 is the answer.
        damaged: position to reason, of images that can't be decoded; they are in no array.
    """

    prediction: NDArray[np.int64]
    predicted_wnid: list[str]
    probability: NDArray[np.float64]
    rank: NDArray[np.int64]
    damaged: Mapping[int, str]


def predict(
    classifier: Classifier,
    images: Sequence[ImageRecord],
    *,
    preprocess: Mode | Preprocessing = "whole",
    batch_size: int | None = None,
    workers: int | None = None,
    store: PixelStore | None = None,
) -> Predictions:
    """Run a classifier over images; the numbers do not depend on the batch size.

    Args:
        classifier: the model, where it is to run.
        images: at least one.
        preprocess: see :meth:`Classifier.preprocessing`; or what that returned, perhaps with
            another ``resize``.
        batch_size: images at a time; None chooses by the device. On a CUDA out-of-memory error it
            is halved, which is said, and the batch is tried again.
        workers: threads that decode and resize while the classifier runs; 0 does it in between,
            None takes a thread for each core, eight at most.
        store: where pixels are found that another classifier took, and left for the next.

    Raises:
        SpurbenchError: if the classifier's head lacks a class, a logit is not finite, memory is
            short for one image, or every image is damaged.
    """
    wnids = imagenet_wnids()
    asked = [wnids[image.class_index] for image in images]
    classes = sorted({image.class_index for image in images})
    column_of = dict(
        zip(classes, classifier.columns([wnids[c] for c in classes]).tolist(), strict=True)
    )
    columns = np.array([column_of[image.class_index] for image in images])
    given = classifier.own_transform
    read = partial(decode, transform=given) if given or store is None else store.batches
    batches = read(
        images,
        preprocess
        if isinstance(preprocess, Preprocessing)
        else classifier.preprocessing(preprocess),
        batch_size=batch_size or classifier.default_batch_size,
        workers=default_workers() if workers is None else workers,
    )
    answers, probabilities, ranks = [], [], []
    damaged: dict[int, str] = {}
    bar = tqdm(total=len(images), desc=classifier.info.name, unit="img", leave=False, disable=None)
    with bar, _exact_arithmetic():
        for batch in batches:
            damaged |= batch.damaged
            bar.update(len(batch.positions) + len(batch.damaged))
            if not len(batch.positions):
                continue
            here = [asked[i] for i in batch.positions]
            logits = np.concatenate(list(_logits(classifier, batch.pixels, here)))
            sound = np.isfinite(logits).all(axis=1)
            if not sound.all():
                raise SpurbenchError(
                    f"{classifier.info.name} answers {images[batch.positions[sound.argmin()]].path}"
                    " with logits that are NaN or infinite; its weights, or the mean and std that "
                    "it normalises with, are damaged"
                )
            own = columns[batch.positions]
            answers.append(logits.argmax(axis=1))
            probabilities.append(metrics.class_probability(logits, own))
            ranks.append(metrics.class_rank(logits, own))
    if not answers:
        first = min(damaged)
        raise SpurbenchError(
            f"all {len(damaged)} images are damaged; the first: {images[first].path} "
            f"({damaged[first]})"
        )
    index_of = {wnid: i for i, wnid in enumerate(wnids)}
    rank = np.concatenate(ranks)
    readable = [wnid for i, wnid in enumerate(asked) if i not in damaged]
    # The column of an answer that is right may stand for any class that is asked about.
    predicted = [
        own if place == 1 else classifier.wnids[column]
        for own, place, column in zip(readable, rank, np.concatenate(answers), strict=True)
    ]
    return Predictions(
        prediction=np.array([index_of.get(wnid, -1) for wnid in predicted], np.int64),
        predicted_wnid=predicted,
        probability=np.concatenate(probabilities),
        rank=rank,
        damaged=damaged,
    )


def _logits(
    classifier: Classifier, pixels: Tensor | Sequence[Image.Image], asked: Sequence[str]
) -> Iterator[NDArray[np.float32]]:
    """Logits of pixels in order, in as many parts as memory asks for."""
    try:
        with torch.inference_mode():
            yield classifier.answer(pixels, asked).float().cpu().numpy()
        return
    except torch.OutOfMemoryError:
        if len(pixels) == 1:
            raise SpurbenchError(
                f"not enough memory on {classifier.device} for one image; use --device cpu"
            ) from None
    torch.cuda.empty_cache()
    half = len(pixels) // 2
    log.warning("out of memory with %d images at a time; going on with %d", len(pixels), half)
    yield from _logits(classifier, pixels[:half], asked[:half])
    yield from _logits(classifier, pixels[half:], asked[half:])


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Full float32 and fixed algorithms on CUDA, so that no number moves with the batch."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before

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

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.info import Mode, Preprocessing
from spurbench.core.environment import environment
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.core.imagenet import imagenet_wnids
from spurbench.core.progress import progress
from spurbench.evaluation import metrics
from spurbench.evaluation.shares import Answers, Shares
from spurbench.images.pixels import PixelStore, decode, default_decoders
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
    decoders: int | None = None,
    store: PixelStore | None = None,
    shares: Shares | None = None,
) -> Predictions:
    """Run a classifier over images; the numbers do not depend on the batch size.

    Args:
        classifier: the model, where it is to run.
        images: at least one.
        preprocess: see :meth:`Classifier.preprocessing`; or what that returned, perhaps with
            another ``resize``.
        batch_size: images at a time; None chooses by the device. On a CUDA out-of-memory error it
            is halved, which is said, and the batch is tried again.
        decoders: threads that decode and resize while the classifier runs; 0 does it in between,
            None takes a thread for each core, eight at most.
        store: where pixels are found that another classifier took, and left for the next.
        shares: where answers are found that other workers left; only the others are computed.

    Raises:
        SpurbenchError: if the classifier's head lacks a class, a logit is not finite, memory is
            short for one image, or every image is damaged.
    """
    asking = _Asking.of(classifier, images, preprocess, batch_size, decoders, store)
    if shares is None:
        answers = [asking.answer(range(len(images)))]
        parts = [range(len(images))]
    else:
        parts = shares.parts(len(images), asking.batch_size)
        answers = [shares.recall(asking.key(p)) or asking.answer(p) for p in parts]
    damaged = {
        part.start + i: why
        for part, answer in zip(parts, answers, strict=True)
        for i, why in answer.damaged.items()
    }
    if len(damaged) == len(images):
        first = min(damaged)
        raise SpurbenchError(
            f"all {len(damaged)} images are damaged; the first: {images[first].path} "
            f"({damaged[first]})"
        )
    wnids = imagenet_wnids()
    index_of = {wnid: i for i, wnid in enumerate(wnids)}
    rank = [rank for part in answers for rank in part.rank]
    columns = [column for part in answers for column in part.columns]
    readable = [wnids[r.class_index] for i, r in enumerate(images) if i not in damaged]
    # The column of an answer that is right may stand for any class that is asked about.
    predicted = [
        own if place == 1 else classifier.wnids[column]
        for own, place, column in zip(readable, rank, columns, strict=True)
    ]
    return Predictions(
        prediction=np.array([index_of.get(wnid, -1) for wnid in predicted], np.int64),
        predicted_wnid=predicted,
        probability=np.array([p for part in answers for p in part.probability], np.float64),
        rank=np.array(rank, np.int64),
        damaged=damaged,
    )


def predict_share(
    classifier: Classifier,
    images: Sequence[ImageRecord],
    shares: Shares,
    number: int,
    *,
    preprocess: Preprocessing,
    batch_size: int | None = None,
    decoders: int | None = None,
) -> None:
    """Leave the answers to one share of images where :func:`predict` finds them.

    Args:
        classifier: see :func:`predict`.
        images: all of them.
        shares: where the answers are left, unless they are there.
        number: of the share, from 0.
        preprocess: see :func:`predict`.
        batch_size: see :func:`predict`.
        decoders: see :func:`predict`.

    Raises:
        SpurbenchError: see :func:`predict`; or if the answers can't be written.
    """
    asking = _Asking.of(classifier, images, preprocess, batch_size, decoders, None)
    part = shares.parts(len(images), asking.batch_size)[number]
    key = asking.key(part)
    if part and shares.recall(key) is None:
        shares.keep(key, asking.answer(part))


@dataclass(frozen=True)
class _Asking:
    """A classifier, images, and how they are shown to it."""

    classifier: Classifier
    images: Sequence[ImageRecord]
    columns: NDArray[np.int64]
    preprocessing: Preprocessing
    batch_size: int
    decoders: int
    store: PixelStore | None

    @classmethod
    def of(
        cls,
        classifier: Classifier,
        images: Sequence[ImageRecord],
        preprocess: Mode | Preprocessing,
        batch_size: int | None,
        decoders: int | None,
        store: PixelStore | None,
    ) -> _Asking:
        wnids = imagenet_wnids()
        classes = sorted({image.class_index for image in images})
        columns = classifier.columns([wnids[c] for c in classes]).tolist()
        column_of = dict(zip(classes, columns, strict=True))
        return cls(
            classifier,
            images,
            np.array([column_of[image.class_index] for image in images], np.int64),
            preprocess
            if isinstance(preprocess, Preprocessing)
            else classifier.preprocessing(preprocess),
            batch_size or classifier.default_batch_size,
            default_decoders() if decoders is None else decoders,
            store,
        )

    def key(self, part: range) -> str:
        """A hash of all that the answers to a part depend on, to the last bit."""
        return fingerprint(
            {
                "classifier": self.classifier.info.model_dump(mode="json"),
                "preprocessing": self.preprocessing.model_dump(mode="json"),
                "images": [[self.images[i].sha256, self.images[i].class_index] for i in part],
                "batch_size": self.batch_size,
                "environment": environment(self.classifier.device),
            }
        )

    def answer(self, part: range) -> Answers:
        """Show the classifier the images of a part, which starts where a batch does."""
        images, columns = self.images[part.start : part.stop], self.columns[part.start : part.stop]
        wnids = imagenet_wnids()
        given, store = self.classifier.own_transform, self.store
        read = partial(decode, transform=given) if given or store is None else store.batches
        batches = read(
            images, self.preprocessing, batch_size=self.batch_size, decoders=self.decoders
        )
        answers: list[int] = []
        probabilities: list[float] = []
        ranks: list[int] = []
        damaged: dict[int, str] = {}
        name = self.classifier.info.name
        with progress(name, len(images), unit="img") as advance, exact_arithmetic():
            for batch in batches:
                damaged |= batch.damaged
                if len(batch.positions):
                    asked = [wnids[images[i].class_index] for i in batch.positions]
                    logits = np.concatenate(list(_logits(self.classifier, batch.pixels, asked)))
                    sound = np.isfinite(logits).all(axis=1)
                    if not sound.all():
                        raise SpurbenchError(
                            f"{name} answers {images[batch.positions[sound.argmin()]].path} with "
                            "logits that are NaN or infinite; its weights, or the mean and std "
                            "that it normalises with, are damaged"
                        )
                    own = columns[batch.positions]
                    answers += logits.argmax(axis=1).tolist()
                    probabilities += metrics.class_probability(logits, own).tolist()
                    ranks += metrics.class_rank(logits, own).tolist()
                advance(len(batch.positions) + len(batch.damaged))
        return Answers(columns=answers, probability=probabilities, rank=ranks, damaged=damaged)


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
def exact_arithmetic() -> Iterator[None]:
    """Full float32 and fixed algorithms on CUDA, so that no number moves with the batch."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before

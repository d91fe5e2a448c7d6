"""Asking classifiers about images for more than their answer: log-probability and log-odds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from spurbench.classifiers.classifier import Classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.core.progress import progress
from spurbench.core.scratch import scratch
from spurbench.evaluation import metrics
from spurbench.evaluation.predict import exact_arithmetic
from spurbench.images.pixels import PixelStore, decode, default_decoders
from spurbench.images.records import ImageRecord
from spurbench.studies.validity.answers import Said


def ask(classifiers: Sequence[Classifier], images: Sequence[ImageRecord]) -> list[Said]:
    """What each classifier says of each image, which is shown to it once for all its classes.

    Raises:
        SpurbenchError: if an image is damaged, or a head lacks a class.
    """
    first = {image.sha256: image for image in reversed(images)}
    place = {sha256: i for i, sha256 in enumerate(first)}
    rows = np.array([place[image.sha256] for image in images])
    with scratch() as folder:
        store = PixelStore(folder)
        return [
            _said(classifier, images, _logits(classifier, [*first.values()], store)[rows])
            for classifier in classifiers
        ]


def _said(
    classifier: Classifier, images: Sequence[ImageRecord], logits: NDArray[np.float64]
) -> Said:
    wnids = imagenet_wnids()
    index_of = {wnid: i for i, wnid in enumerate(wnids)}
    classes = sorted({image.class_index for image in images})
    column_of = dict(zip(classes, classifier.columns([wnids[c] for c in classes]), strict=True))
    own = np.array([int(column_of[image.class_index]) for image in images])
    asked = np.array([image.class_index for image in images])
    answered = logits.argmax(axis=1)
    elsewhere = [index_of.get(classifier.wnids[column], -1) for column in answered]
    # The column of an answer that is right may stand for any class that is asked about.
    predicted = np.where(answered == own, asked, elsewhere)
    log_probability, log_odds = metrics.class_log_odds(logits, own)
    return Said(predicted.astype(np.int64), log_probability, log_odds)


def _logits(
    classifier: Classifier, images: Sequence[ImageRecord], store: PixelStore
) -> NDArray[np.float64]:
    """(N, C)."""
    wnids = imagenet_wnids()
    given = classifier.own_transform
    read = partial(decode, transform=given) if given else store.batches
    parts = []
    name = classifier.info.name
    batches = read(
        images,
        classifier.preprocessing("whole"),
        batch_size=classifier.default_batch_size,
        decoders=default_decoders(),
    )
    with progress(name, len(images), unit="img") as advance, exact_arithmetic():
        for batch in batches:
            if batch.damaged:
                position, why = next(iter(batch.damaged.items()))
                raise SpurbenchError(f"{images[position].path} is damaged: {why}; make it again")
            asked = [wnids[images[i].class_index] for i in batch.positions]
            with torch.inference_mode():
                answer = classifier.answer(batch.pixels, asked)
            parts.append(answer.double().cpu().numpy())
            advance(len(batch.positions))
    return np.concatenate(parts)

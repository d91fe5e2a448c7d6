"""One classifier on one set of images: its answers, and the result computed from them."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from spurbench.classifiers.info import YES_NO
from spurbench.core.environment import environment
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.known import Identity
from spurbench.evaluation.negatives import negatives
from spurbench.evaluation.request import EvaluationRequest
from spurbench.evaluation.results import BOOTSTRAP, Result, SplitResult
from spurbench.images.records import (
    SPLITS,
    Damaged,
    DatasetInfo,
    ImageRecord,
    ImageSet,
    Source,
    Split,
    images_fingerprint,
)

if TYPE_CHECKING:
    import pandas as pd

    from spurbench.classifiers.classifier import Classifier
    from spurbench.classifiers.info import Preprocessing
    from spurbench.evaluation.predict import Predictions
    from spurbench.evaluation.shares import Shares
    from spurbench.images.pixels import PixelStore

log = logging.getLogger(__name__)


def measure(
    classifier: Classifier,
    request: EvaluationRequest,
    *,
    store: PixelStore | None = None,
    shares: Shares | None = None,
) -> Result:
    """Measure a classifier; nothing is written.

    Args:
        classifier: to measure.
        request: what it is asked.
        store: see :func:`spurbench.evaluation.predict.predict`.
        shares: see :func:`spurbench.evaluation.predict.predict`.

    Returns:
        The result, which holds the answers to each image.

    Raises:
        SpurbenchError: if the classifier's head lacks a class, its logits are not finite, every
            image of a split, or of a class among given positives, is damaged, no image of a split
            counts, or the protocol does not go with the classifier's own transform.
    """
    import pandas as pd

    from spurbench.evaluation.predict import predict
    from spurbench.evaluation.summary import summarise

    images, shown, controls = request.images, request.shown, request.controls
    damaged: list[Damaged] = []
    unreadable: set[ImageRecord] = set()
    frames: list[pd.DataFrame] = []
    counts: Callable[[ImageRecord], bool]
    for question in _questions(classifier, request, unreadable):
        damaged.extend(question.damaged)
        records = question.images
        if not records:
            continue
        answers = predict(
            classifier,
            records,
            preprocess=question.preprocessing,
            batch_size=request.batch_size,
            decoders=request.decoders,
            store=store,
            shares=shares,
        )
        damaged.extend(Damaged(path=records[i].path, reason=r) for i, r in answers.damaged.items())
        unreadable.update(records[i] for i in answers.damaged)
        readable = [r for i, r in enumerate(records) if i not in answers.damaged]
        match question.source:
            case None:
                counts = request.counts
            case "control":
                own = frames[0][frames[0]["counted"]]
                counted = set(zip(own["class_index"], own["image_sha256"], strict=True))
                counts = partial(_twin_counts, counted=counted)
            case _:
                counts = _always
        frame = _frame(readable, answers, request, counts, question.source)
        if question.source is None:
            _require_every_split(images, frame)
        elif question.source == "positive":
            request.require_positives(frame["class_index"])
        frames.append(frame)
    frame = pd.concat(frames, ignore_index=True)
    outputs = len(classifier.wnids)
    splits: dict[Split, SplitResult] = {
        split: summarise(frame[frame["source"].isin(_beside(split))], outputs=outputs)
        for split in SPLITS
        if (frame["source"] == split).any()
    }
    # Photographs have no twins, so neither has a mixture with them.
    both = frame[frame["source"] != "control"]
    total = next(iter(splits.values())) if len(splits) == 1 else summarise(both, outputs=outputs)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    parquet = buffer.getvalue()
    return Result(
        summary=total.summary,
        splits=splits,
        classifier=classifier.info,
        dataset=_info(images, unreadable),
        protocol=request.protocol,
        config=images.config,
        role=images.roles.get(classifier.info.weights_sha256),
        preprocessing=classifier.preprocessing(request.preprocess),
        positives=_info(shown, unreadable) if shown else None,
        controls=_info(controls, unreadable) if controls else None,
        damaged=damaged,
        settings=BOOTSTRAP,
        predictions=f"{request.file_stem(Identity.of(classifier))}.parquet",
        predictions_sha256=hashlib.sha256(parquet).hexdigest(),
        environment=environment(classifier.device),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    ).with_answers(parquet)


def answer_share(
    classifier: Classifier, request: EvaluationRequest, shares: Shares, number: int
) -> None:
    """Leave the answers to one share of the images where :func:`measure` finds them.

    Args:
        classifier: to measure.
        request: what it is asked.
        shares: where the answers are left, unless they are there.
        number: of the share, from 0.

    Raises:
        SpurbenchError: see :func:`spurbench.evaluation.predict.predict_share`; or if the protocol
            does not go with the classifier's own transform.
    """
    from spurbench.evaluation.predict import predict_share

    # Which images are damaged nobody knows yet. What is asked otherwise for it, other workers'
    # shares lack, and whoever writes the result computes it.
    for question in _questions(classifier, request, frozenset()):
        if question.images:
            predict_share(
                classifier,
                question.images,
                shares,
                number,
                preprocess=question.preprocessing,
                batch_size=request.batch_size,
                decoders=request.decoders,
            )


@dataclass(frozen=True)
class _Question:
    """Images that a classifier is shown together.

    Attributes:
        images: those of classes that are measured.
        damaged: those that were left out before.
        preprocessing: how they become its pixels.
        source: what they are measured as, where that is not their split.
    """

    images: Sequence[ImageRecord]
    damaged: Sequence[Damaged]
    preprocessing: Preprocessing
    source: Source | None = None


def _questions(
    classifier: Classifier, request: EvaluationRequest, unreadable: Set[ImageRecord]
) -> Iterator[_Question]:
    """What a classifier is asked, one after another.

    Those that are ``unreadable`` by the time that the next is asked for show nobody what they are,
    so they are no negatives either.
    """
    whole = classifier.preprocessing(request.preprocess)
    if request.protocol == "neuhaus" and classifier.own_transform is not None:
        raise SpurbenchError(
            f"protocol neuhaus says how images are resized, and {classifier.info.name} has a "
            "transform of its own; measure it by protocol spurbench"
        )

    def measured(images: ImageSet) -> list[ImageRecord]:
        return [image for image in images.records if image.class_index in request.classes]

    yield _Question(measured(request.images), request.images.damaged, whole)
    if (shown := request.shown) is not None:
        like = cropped(whole) if request.protocol == "neuhaus" else whole
        yield _Question(measured(shown), shown.damaged, like, "positive")
        if classifier.info.head == YES_NO:
            others = negatives([r for r in measured(shown) if r not in unreadable])
            yield _Question(others, (), whole, "negative")
    if (controls := request.controls) is not None:
        yield _Question(measured(controls), controls.damaged, whole, "control")


def _beside(split: Split) -> list[Source]:
    """The sources whose answers a split's numbers are made of."""
    beside: list[Source] = [split, "positive", "negative"]
    return [*beside, "control"] if split == "generated" else beside


def cropped(whole: Preprocessing) -> Preprocessing:
    """Of positives in the protocol of Spurious ImageNet: a border of an eighth is cut away."""
    enlarged = tuple(int(256 / 224 * side) for side in whole.resize)
    return whole.model_copy(update={"resize": enlarged})


def _always(_: ImageRecord) -> bool:
    return True


def _twin_counts(twin: ImageRecord, counted: Set[tuple[int, str]]) -> bool:
    """Whether it shows neither object nor feature, as far as a detector looked, and its image."""
    absent = twin.object_absent is not False and twin.feature_present is not True
    return absent and (twin.class_index, twin.twin_of) in counted


def _require_every_split(images: ImageSet, frame: pd.DataFrame) -> None:
    """No split may vanish; classes whose images all count for nothing are named."""
    for split in dict.fromkeys(record.source for record in images.records):
        own = frame[frame["source"] == split]
        if not len(own):
            problem = "is damaged; mend the data"
        elif not own["counted"].any():
            problem = "shows its class to the detector, or was trained on; build it again"
        else:
            left = own.groupby("class_name", sort=False)["counted"].any()
            if not left.all():
                log.warning(
                    "no %s image of %s counts (the class's object is seen in all): %d classes "
                    "are measured",
                    split,
                    ", ".join(left.index[~left]),
                    left.sum(),
                )
            continue
        raise SpurbenchError(
            f"every {split} image of {images.info.name} {problem}, or measure the other split "
            "alone with --split"
        )


def _info(images: ImageSet, unreadable: Set[ImageRecord]) -> DatasetInfo:
    """The identity of those images that were measured."""
    readable = [image for image in images.records if image not in unreadable]
    if len(readable) == len(images.records):
        return images.info
    return images.info.model_copy(update={"fingerprint": images_fingerprint(readable)})


def _frame(
    images: Sequence[ImageRecord],
    predictions: Predictions,
    request: EvaluationRequest,
    counts: Callable[[ImageRecord], bool],
    source: Source | None,
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            "image_sha256": [image.sha256 for image in images],
            "path": [image.path for image in images],
            "source": [source or image.source for image in images],
            "class_index": np.array([image.class_index for image in images], np.int64),
            "class_name": [request.classes[image.class_index][0] for image in images],
            "spurious_feature": [request.classes[image.class_index][1] for image in images],
            "replicate": np.array([image.replicate for image in images], np.int64),
            "object_absent": pd.array([image.object_absent for image in images], "boolean"),
            "is_reference": np.array([image.is_reference for image in images], bool),
            "twin_of": pd.Series([image.twin_of for image in images], dtype=object),
            "counted": np.array([counts(image) for image in images], bool),
            "prediction": predictions.prediction,
            "predicted_wnid": predictions.predicted_wnid,
            "probability": predictions.probability,
            "rank": predictions.rank,
        }
    )

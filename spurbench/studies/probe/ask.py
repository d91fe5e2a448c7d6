"""The images of a probe, edited when they are looked at, and what classifiers answer to them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from PIL import Image

from spurbench.classifiers.classifier import Classifier
from spurbench.core.identity import fingerprint
from spurbench.evaluation.predict import predict
from spurbench.images.decode import decode_rgb
from spurbench.images.pixels import PixelStore
from spurbench.images.records import ImageRecord
from spurbench.studies.probe.edits import Edit, Mask, Pixels, feature_mask
from spurbench.studies.probe.measure import UNCHANGED


@dataclass(frozen=True)
class Question:
    """An image after a change, or as it is.

    Attributes:
        image: as it is.
        change: its name.
        record: what classifiers are shown.
    """

    image: ImageRecord
    change: str
    record: ImageRecord


def questions(
    images: Sequence[ImageRecord],
    twins: Mapping[str, ImageRecord],
    edits: Sequence[Edit],
    seed: int,
) -> list[Question]:
    """Each image as it is, then after each edit that it can go through.

    Args:
        images: that can be decoded.
        twins: by the sha256 of the image that each is without its feature; images without one
            don't go through the edits of the feature alone.
        edits: what to do.
        seed: of what the edits draw.
    """
    return [
        Question(image, name, record)
        for image in images
        for name, record in [
            (UNCHANGED, image),
            *(
                (edit.name, edited_record(image, twins.get(image.sha256), edit, seed))
                for edit in edits
                if not edit.inside or image.sha256 in twins
            ),
        ]
    ]


def edited_record(
    image: ImageRecord, twin: ImageRecord | None, edit: Edit, seed: int
) -> ImageRecord:
    """A record of the edited image, which is made each time that it is read.

    It is known by what it is made of: to know the sha256 of its bytes it would be made once more.
    """
    made_of = [image.sha256, twin.sha256 if twin and edit.inside else None, edit.name, seed]
    return replace(
        image,
        path=f"{image.path}, {edit.title}",
        sha256=fingerprint(made_of),
        read=partial(_edited, image, twin, edit, seed),
    )


def mask_of(image: ImageRecord, twin: ImageRecord) -> Mask:
    """Where an image shows its feature; see :func:`spurbench.studies.probe.edits.feature_mask`."""
    return feature_mask(pixels_of(image), pixels_of(twin))


def pixels_of(record: ImageRecord) -> Pixels:
    """(H, W, 3) uint8."""
    return np.asarray(decode_rgb(record.read()))


def answers(
    classifier: Classifier, asked: Sequence[Question], *, label: str, store: PixelStore | None
) -> pd.DataFrame:
    """A classifier's answers, a row a question, as docs/probe.md describes the columns.

    Raises:
        SpurbenchError: if it lacks a class.
    """
    predicted = predict(classifier, [question.record for question in asked], store=store)
    images = [question.image for question in asked]
    return pd.DataFrame(
        {
            "classifier": label,
            "class_index": [image.class_index for image in images],
            "class_name": [image.class_name for image in images],
            "spurious_feature": [image.spurious_feature for image in images],
            "source": [image.source for image in images],
            "image_sha256": [image.sha256 for image in images],
            "change": [question.change for question in asked],
            "prediction": predicted.prediction,
            "predicted_wnid": predicted.predicted_wnid,
            "probability": predicted.probability,
            "rank": predicted.rank,
        }
    )


def _edited(image: ImageRecord, twin: ImageRecord | None, edit: Edit, seed: int) -> bytes:
    pixels = pixels_of(image)
    mask = feature_mask(pixels, pixels_of(twin)) if twin and edit.inside else None
    buffer = io.BytesIO()
    Image.fromarray(edit(pixels, mask, image.sha256, seed)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()

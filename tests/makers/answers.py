"""Answers of a made-up classifier to images of every source, as a result's parquet has them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation.results import BOOTSTRAP, Result, SplitResult
from spurbench.evaluation.summary import summarise
from spurbench.images.records import SPLITS, DatasetInfo, Split


def answers_frame(
    classes: Sequence[int],
    *,
    images: int = 20,
    generators: int = 1,
    called: tuple[float, float, float, float] = (0.5, 0.6, 0.8, 0.2),
    splits: Sequence[Split] = SPLITS,
    dataset: str = "toy",
    seed: int = 0,
) -> pd.DataFrame:
    """Random answers.

    Args:
        classes: ImageNet indices.
        images: of each class and source.
        generators: of the generated images, which they share evenly.
        called: how often real, generated, positive images and controls are called their class.
        splits: real, generated; controls are there with the latter.
        dataset: whose images they are; another has others.
        seed: of the answers, not of the images.
    """
    rng = np.random.default_rng(seed)
    measured = [*splits, "positive", *(["control"] if "generated" in splits else [])]
    share = dict(zip(("real", "generated", "positive", "control"), called, strict=True))
    rows = []
    for source in measured:
        for index in classes:
            fooled = rng.random(images) < share[source]
            other = rng.choice(np.setdiff1d(np.arange(1000), [index]), images)
            for i in range(images):
                spurious = source in SPLITS
                rows.append(
                    {
                        "image_sha256": _sha256(dataset, source, index, i),
                        "path": f"{source}/{index}/{i}",
                        "source": source,
                        "class_index": index,
                        "class_name": imagenet_names()[index],
                        "spurious_feature": "graffiti",
                        "replicate": i * generators // images if source == "generated" else 0,
                        "object_absent": (i % 7 != 3) if spurious else None,
                        "is_reference": source == "real" and i < 2,
                        "twin_of": _sha256(dataset, "generated", index, i)
                        if source == "control"
                        else None,
                        # A detector saw the object in every seventh, the feature in every fifth.
                        "counted": source == "positive"
                        or not (
                            i % 7 == 3
                            or (source == "real" and i < 2)
                            or (source == "control" and i % 5 == 4)
                        ),
                        "prediction": index if fooled[i] else other[i],
                        "predicted_wnid": imagenet_wnids()[index if fooled[i] else other[i]],
                        "probability": rng.uniform(0.5, 1) if fooled[i] else rng.uniform(0, 0.4),
                        "rank": 1 if fooled[i] else 3,
                    }
                )
    frame = pd.DataFrame(rows)
    return frame.astype({"object_absent": "boolean"})


def summarised(frame: pd.DataFrame) -> dict[Split, SplitResult]:
    """The numbers of each split of such a frame."""
    return {
        split: summarise(
            frame[frame["source"].isin([split, "positive", "control"])]
            if split == "generated"
            else frame[frame["source"].isin([split, "positive"])]
        )
        for split in SPLITS
        if (frame["source"] == split).any()
    }


def answered(
    name: str,
    frame: pd.DataFrame,
    *,
    source: Any = "timm",
    dataset: str = "toy",
    version: str | None = "1.0.0",
    **more: Any,
) -> Result:
    """The result of a made-up classifier that gave such answers.

    Args:
        name: of the classifier.
        frame: see :func:`answers_frame`.
        source: of the classifier.
        dataset: its name.
        version: of the dataset.
        more: fields of the result that are not as usual.
    """
    splits = summarised(frame)
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    fields = {
        "summary": next(iter(splits.values())).summary,
        "splits": splits,
        "classifier": ClassifierInfo(
            spec=name,
            name=name,
            source=source,
            architecture="resnet50",
            parameters=25_000_000,
            head="imagenet-1k",
            weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
        ),
        "dataset": DatasetInfo(
            name=dataset,
            version=version,
            kind="dataset" if version else "folder",
            fingerprint=_sha256(dataset, *splits),
        ),
        **{
            f"{shown}s": DatasetInfo(
                name=dataset, version=version, kind="dataset", fingerprint=_sha256(dataset, shown)
            )
            for shown in ("positive", "control")
            if (frame["source"] == shown).any()
        },
        "preprocessing": Preprocessing(
            mode="whole",
            resize=(32,),
            crop=(32, 32),
            interpolation="bicubic",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        "damaged": [],
        "settings": BOOTSTRAP,
        "predictions": "x.parquet",
        "predictions_sha256": hashlib.sha256(parquet.getvalue()).hexdigest(),
        "environment": {"device": "cpu"},
        "created": "2024-02-13T00:00:00+00:00",
    }
    return Result(**{**fields, **more}).with_answers(parquet.getvalue())


def _sha256(*identity: object) -> str:
    return hashlib.sha256(repr(identity).encode()).hexdigest()

"""One classifier on one set of images: predictions, and the result computed from them."""

from __future__ import annotations

import io
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from spurbench.classifiers.classifier import Classifier, Mode
from spurbench.core import atomic
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.scratch import scratch
from spurbench.evaluation import metrics
from spurbench.evaluation.predict import Predictions, predict
from spurbench.evaluation.results import (
    ClassResult,
    Interval,
    Result,
    Settings,
    SplitResult,
    Summary,
)
from spurbench.images.pixels import PixelStore
from spurbench.images.records import (
    Damaged,
    DatasetInfo,
    ImageRecord,
    ImageSet,
    Split,
    images_fingerprint,
)
from spurbench.recipe.classes import ClassRegistry

log = logging.getLogger(__name__)

BOOTSTRAP = Settings(bootstrap_resamples=2000, bootstrap_seed=0)


def evaluate(
    classifier: Classifier,
    images: ImageSet,
    registry: ClassRegistry,
    output: Path,
    *,
    positives: ImageSet | None = None,
    preprocess: Mode = "whole",
    batch_size: int | None = None,
    workers: int | None = None,
    store: PixelStore | None = None,
    force: bool = False,
) -> tuple[Result, Path, bool]:
    """Measure a classifier, or find the stored result of the same measurement.

    Args:
        classifier: to measure.
        images: spurious images, object-free.
        registry: names the classes' features.
        output: folder of results; ``NAME.json`` and ``NAME.parquet`` go there.
        positives: images that truly show the classes, for AUROC and average precision.
        preprocess: see :meth:`Classifier.preprocessing`.
        batch_size: see :func:`predict`.
        workers: see :func:`predict`.
        store: see :func:`predict`.
        force: measure even if an unchanged result is stored.

    Returns:
        The result, the path of its JSON, and whether it is the stored one.

    Raises:
        SpurbenchError: if positives lack a class, or the classifier's head does.
    """
    if positives is not None:
        _require_positives(
            {image.class_index for image in images.records},
            {image.class_index for image in positives.records},
        )
    path = output / f"{_file_stem(classifier, images, positives, preprocess)}.json"
    if not force:
        stored = _stored(path)
        if stored is not None:
            return stored, path, True
    _require_writable(output)

    damaged = [*images.damaged, *(positives.damaged if positives else ())]
    unreadable: set[ImageRecord] = set()

    def ask(records: Sequence[ImageRecord]) -> pd.DataFrame:
        answers = predict(
            classifier,
            records,
            preprocess=preprocess,
            batch_size=batch_size,
            workers=workers,
            store=store,
        )
        damaged.extend(Damaged(path=records[i].path, reason=r) for i, r in answers.damaged.items())
        unreadable.update(records[i] for i in answers.damaged)
        return _frame([r for i, r in enumerate(records) if i not in answers.damaged], answers)

    frame = ask(images.records)
    if positives is not None:
        wanted = {image.class_index for image in images.records}
        shown = [image for image in positives.records if image.class_index in wanted]
        positive = ask(shown).assign(source="positive")
        _require_positives(set(frame["class_index"]), set(positive["class_index"]))
        frame = pd.concat([frame, positive], ignore_index=True)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    predictions = path.with_suffix(".parquet")
    atomic.write_bytes(predictions, buffer.getvalue())
    splits: dict[Split, SplitResult] = {
        split: summarise(frame[frame["source"].isin([split, "positive"])], registry)
        for split in ("real", "generated")
        if (frame["source"] == split).any()
    }
    whole = next(iter(splits.values())) if len(splits) == 1 else summarise(frame, registry)
    result = Result(
        summary=whole.summary,
        splits=splits,
        classifier=classifier.info,
        dataset=_info(images, unreadable),
        preprocessing=classifier.preprocessing(preprocess),
        positives=_info(positives, unreadable) if positives else None,
        damaged=damaged,
        settings=BOOTSTRAP,
        predictions=predictions.name,
        predictions_sha256=file_sha256(predictions),
        environment={**package_versions(), "device": _device_name(classifier.device)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    result.write(path)
    return result, path, False


@dataclass(frozen=True)
class Measured:
    """What became of one of several classifiers.

    Attributes:
        spec: as asked for.
        result: None if it failed.
        path: of the result's JSON.
        stored: whether the result was there already.
        error: why it failed.
    """

    spec: str
    result: Result | None = None
    path: Path | None = None
    stored: bool = False
    error: str | None = None


def evaluate_each(
    members: Mapping[str, Callable[[], Classifier]],
    images: ImageSet,
    registry: ClassRegistry,
    output: Path,
    **options: Any,
) -> Iterator[Measured]:
    """Measure classifiers one after another; each image is decoded once per input geometry.

    Only one classifier is in memory at a time. One that fails does not stop the others.

    Args:
        members: what loads each, by its SPEC.
        images: see :func:`evaluate`.
        registry: see :func:`evaluate`.
        output: see :func:`evaluate`.
        options: of :func:`evaluate`.

    Yields:
        Each classifier's result as soon as it is there.
    """
    with scratch() as folder:
        store = PixelStore(folder) if len(members) > 1 else None
        for spec, load in members.items():
            try:
                found = evaluate(load(), images, registry, output, store=store, **options)
            except Exception as error:  # one classifier's failure must not cost the others
                log.debug("%s failed", spec, exc_info=True)
                known = isinstance(error, SpurbenchError)
                reason = str(error) if known else f"{type(error).__name__}: {error}"
                yield Measured(spec, error=next(iter(reason.splitlines()), ""))
            else:
                yield Measured(spec, *found)


def summarise(frame: pd.DataFrame, registry: ClassRegistry) -> SplitResult:
    """A split's result from its per-image predictions (the parquet's columns).

    Args:
        frame: rows with ``class_index``, ``source``, ``probability`` and ``rank``; rows whose
            source is ``positive`` truly show their class.
        registry: names the classes' features.
    """
    known = registry.by_index()
    # Arrays, for selecting rows of a frame class by class takes longer than a small network.
    class_index, ranks, probabilities = (
        frame[column].to_numpy() for column in ("class_index", "rank", "probability")
    )
    positive = (frame["source"] == "positive").to_numpy()
    classes: list[ClassResult] = []
    called: list[NDArray[np.float64]] = []
    for index in np.unique(class_index[~positive]).tolist():
        rows = ~positive & (class_index == index)
        fooled = ranks[rows] == 1
        called.append(fooled.astype(np.float64))
        true = probabilities[positive & (class_index == index)]
        probability = probabilities[rows]
        low, high = metrics.wilson_interval(int(fooled.sum()), len(fooled))
        classes.append(
            ClassResult(
                index=index,
                name=known[index].name if index in known else imagenet_names()[index],
                wnid=imagenet_wnids()[index],
                spurious_feature=known[index].spurious_feature if index in known else None,
                n=len(fooled),
                spurious_accuracy=float(fooled.mean()),
                spurious_accuracy_interval=Interval(low=low, high=high),
                top5=float((ranks[rows] <= 5).mean()),
                mean_probability=float(probability.mean()),
                positives=len(true) if len(true) else None,
                auroc=metrics.auroc(true, probability) if len(true) else None,
                average_precision=metrics.average_precision(true, probability)
                if len(true)
                else None,
            )
        )
    low, high = metrics.bootstrap_interval(
        called, resamples=BOOTSTRAP.bootstrap_resamples, seed=BOOTSTRAP.bootstrap_seed
    )
    worst = max(classes, key=lambda c: c.spurious_accuracy)
    with_positives = [c for c in classes if c.auroc is not None]
    return SplitResult(
        summary=Summary(
            n=int((~positive).sum()),
            classes=len(classes),
            spurious_accuracy=metrics.macro_mean(called),
            spurious_accuracy_interval=Interval(low=low, high=high),
            top5=float(np.mean([c.top5 for c in classes])),
            mean_probability=float(np.mean([c.mean_probability for c in classes])),
            worst_class=worst.name,
            worst_class_spurious_accuracy=worst.spurious_accuracy,
            auroc=_mean([c.auroc for c in with_positives]),
            average_precision=_mean([c.average_precision for c in with_positives]),
        ),
        classes=classes,
    )


def _require_writable(folder: Path) -> None:
    """Fail before the measuring, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SpurbenchError(
            f"results can't be written to {folder} ({error.strerror}); name another --output"
        ) from None


def _info(images: ImageSet, unreadable: Set[ImageRecord]) -> DatasetInfo:
    """The identity of those images that were measured."""
    readable = [image for image in images.records if image not in unreadable]
    if len(readable) == len(images.records):
        return images.info
    return images.info.model_copy(update={"fingerprint": images_fingerprint(readable)})


def _require_positives(wanted: set[int], present: set[int]) -> None:
    lacking = sorted(wanted - present)
    if lacking:
        names = ", ".join(imagenet_names()[i] for i in lacking[:5])
        raise SpurbenchError(
            f"--positives has no readable images of {len(lacking)} classes: {names}"
        )


def _frame(images: Sequence[ImageRecord], predictions: Predictions) -> pd.DataFrame:
    names = imagenet_names()
    return pd.DataFrame(
        {
            "image_sha256": [image.sha256 for image in images],
            "path": [image.path for image in images],
            "source": [image.source for image in images],
            "class_index": np.array([image.class_index for image in images], np.int64),
            "class_name": [names[image.class_index] for image in images],
            "prediction": predictions.prediction,
            "predicted_wnid": predictions.predicted_wnid,
            "probability": predictions.probability,
            "rank": predictions.rank,
        }
    )


def _file_stem(
    classifier: Classifier, images: ImageSet, positives: ImageSet | None, preprocess: Mode
) -> str:
    """A file name that says what was measured, ending in a key of all it depends on."""
    key = {
        "classifier": classifier.info.name,
        "weights": classifier.info.weights_sha256,
        "images": images.info.fingerprint,
        "positives": positives.info.fingerprint if positives else None,
        "preprocessing": classifier.preprocessing(preprocess).model_dump(mode="json"),
        "settings": BOOTSTRAP.model_dump(mode="json"),
    }
    version = f"-{images.info.version}" if images.info.version else ""
    label = f"{images.info.name}{version}_{classifier.info.source}-{classifier.info.name}"
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}_{fingerprint(key)[:12]}"


def _stored(path: Path) -> Result | None:
    """The stored result, if both its files are whole."""
    predictions = path.with_suffix(".parquet")
    try:
        result = Result.read(path)
    except SpurbenchError as error:
        if path.exists():
            log.warning("%s; measuring again", error)
        return None
    if not predictions.is_file() or file_sha256(predictions) != result.predictions_sha256:
        log.warning("%s is missing or changed; measuring again", predictions)
        return None
    return result


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None

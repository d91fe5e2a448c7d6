"""One classifier on one set of images: predictions, and the result computed from them."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.classifiers.info import Mode
from spurbench.classifiers.labels import UnknownClassError
from spurbench.core.environment import choose_device, package_versions
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.scratch import scratch
from spurbench.evaluation import known
from spurbench.evaluation.known import Identity
from spurbench.evaluation.members import Member
from spurbench.evaluation.results import BOOTSTRAP, Result, SplitResult
from spurbench.images.records import (
    SPLITS,
    Damaged,
    DatasetInfo,
    ImageRecord,
    ImageSet,
    Split,
    images_fingerprint,
)

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from spurbench.classifiers.classifier import Classifier
    from spurbench.evaluation.predict import Predictions
    from spurbench.images.pixels import PixelStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationRequest:
    """What classifiers are asked.

    Attributes:
        images: spurious images, object-free.
        positives: images that truly show the classes, for AUROC and average precision.
        preprocess: see :meth:`Classifier.preprocessing`.
        batch_size: see :func:`spurbench.evaluation.predict.predict`.
        workers: see :func:`spurbench.evaluation.predict.predict`.

    Raises:
        SpurbenchError: if an image is of no split or class, a class goes by two names, or the
            positives lack one.
    """

    images: ImageSet
    positives: ImageSet | None = None
    preprocess: Mode = "whole"
    batch_size: int | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        count = len(imagenet_wnids())
        for record in self.images.records:
            if record.source not in SPLITS:
                raise SpurbenchError(
                    f"{record.path} is of split {record.source!r}; it must be one of "
                    f"{', '.join(SPLITS)}"
                )
            if not 0 <= record.class_index < count:
                raise SpurbenchError(
                    f"{record.path} is of class {record.class_index}; ImageNet-1k's are 0 to "
                    f"{count - 1}"
                )
            mine = record.class_name, record.spurious_feature
            if self.classes[record.class_index] != mine:
                raise SpurbenchError(
                    f"class {record.class_index} goes by two names, "
                    f"{self.classes[record.class_index]} and {mine} ({record.path}); mend the data"
                )
        if self.positives is not None:
            _require_positives(
                set(self.classes), {image.class_index for image in self.positives.records}
            )

    @cached_property
    def classes(self) -> dict[int, tuple[str, str | None]]:
        """What the data calls each class and its spurious feature, by class index."""
        return {
            record.class_index: (record.class_name, record.spurious_feature)
            for record in reversed(self.images.records)
        }

    def file_stem(self, identity: Identity) -> str:
        """A file name that says what is measured, ending in a key of all it depends on."""
        key = {
            "classifier": identity.info.name,
            "weights": identity.info.weights_sha256,
            "images": self.images.info.fingerprint,
            "classes": [[index, *names] for index, names in sorted(self.classes.items())],
            "positives": self.positives.info.fingerprint if self.positives else None,
            "preprocessing": identity.preprocessing[self.preprocess].model_dump(mode="json"),
            "settings": BOOTSTRAP.model_dump(mode="json"),
        }
        info = self.images.info
        version = f"-{info.version}" if info.version else ""
        label = f"{info.name}{version}_{identity.info.source}-{identity.info.name}"
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}_{fingerprint(key)[:12]}"


@dataclass(frozen=True)
class Measured:
    """A result, where it lies, and whether it was there already."""

    result: Result
    path: Path
    stored: bool


@dataclass(frozen=True)
class Failed:
    """Which classifier could not be measured, and why.

    Attributes:
        asked: the classifier, as it was asked for.
        reason: in one line.
        lacks_class: whether that is because it has no output for one of the images' classes.
    """

    asked: str
    reason: str
    lacks_class: bool = False


def measure(
    classifier: Classifier, request: EvaluationRequest, *, store: PixelStore | None = None
) -> Result:
    """Measure a classifier; nothing is written.

    Args:
        classifier: to measure.
        request: what it is asked.
        store: see :func:`spurbench.evaluation.predict.predict`.

    Returns:
        The result, which holds the answers to each image.

    Raises:
        SpurbenchError: if the classifier's head lacks a class, its logits are not finite, or every
            image of a split, or of a class among the positives, is damaged.
    """
    import pandas as pd

    from spurbench.evaluation.predict import predict
    from spurbench.evaluation.summary import summarise

    images, positives = request.images, request.positives
    damaged = [*images.damaged, *(positives.damaged if positives else ())]
    unreadable: set[ImageRecord] = set()

    def ask(records: Sequence[ImageRecord]) -> pd.DataFrame:
        answers = predict(
            classifier,
            records,
            preprocess=request.preprocess,
            batch_size=request.batch_size,
            workers=request.workers,
            store=store,
        )
        damaged.extend(Damaged(path=records[i].path, reason=r) for i, r in answers.damaged.items())
        unreadable.update(records[i] for i in answers.damaged)
        readable = [r for i, r in enumerate(records) if i not in answers.damaged]
        return _frame(readable, answers, request)

    frame = ask(images.records)
    for split in {record.source for record in images.records} - set(frame["source"]):
        raise SpurbenchError(
            f"every {split} image of {images.info.name} is damaged; mend the data, or measure the "
            "other split alone with --split"
        )
    if positives is not None:
        shown = [image for image in positives.records if image.class_index in request.classes]
        positive = ask(shown).assign(source="positive")
        _require_positives(set(frame["class_index"]), set(positive["class_index"]))
        frame = pd.concat([frame, positive], ignore_index=True)
    splits: dict[Split, SplitResult] = {
        split: summarise(frame[frame["source"].isin([split, "positive"])])
        for split in SPLITS
        if (frame["source"] == split).any()
    }
    whole = next(iter(splits.values())) if len(splits) == 1 else summarise(frame)
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    parquet = buffer.getvalue()
    return Result(
        summary=whole.summary,
        splits=splits,
        classifier=classifier.info,
        dataset=_info(images, unreadable),
        preprocessing=classifier.preprocessing(request.preprocess),
        positives=_info(positives, unreadable) if positives else None,
        damaged=damaged,
        settings=BOOTSTRAP,
        predictions=f"{request.file_stem(Identity.of(classifier))}.parquet",
        predictions_sha256=hashlib.sha256(parquet).hexdigest(),
        environment={**package_versions(), "device": _device_name(classifier.device)},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    ).with_answers(parquet)


def evaluate(
    classifier: Classifier,
    request: EvaluationRequest,
    output: Path,
    *,
    store: PixelStore | None = None,
    force: bool = False,
) -> Measured:
    """Measure a classifier, or find the stored result of the same measurement.

    Args:
        classifier: to measure.
        request: what it is asked.
        output: folder of results; ``NAME.json`` and ``NAME.parquet`` go there.
        store: see :func:`measure`.
        force: measure even if an unchanged result is stored.

    Raises:
        SpurbenchError: see :func:`measure`; or if ``output`` can't be written to.
    """
    identity = Identity.of(classifier)
    # A function of the user's own is known by its repr only, which says too little to go by.
    force = force or classifier.own_transform is not None
    if not force and (stored := find(identity, request, output)):
        return stored
    _require_writable(output)
    result = measure(classifier, request, store=store)
    path = _path(identity, request, output)
    result.write(path)
    return Measured(result, path, stored=False)


def find(identity: Identity, request: EvaluationRequest, output: Path) -> Measured | None:
    """The stored result of a measurement, if both its files are whole."""
    path = _path(identity, request, output)
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
    return Measured(result, path, stored=True)


def evaluate_member(
    member: Member,
    request: EvaluationRequest,
    output: Path,
    *,
    device: str = "auto",
    store: Callable[[], PixelStore | None] = lambda: None,
    force: bool = False,
) -> Measured:
    """As :func:`evaluate`, by SPEC; a classifier that is known is loaded only to be measured.

    Args:
        member: the classifier.
        request: see :func:`evaluate`.
        output: see :func:`evaluate`.
        device: where it runs, see :func:`spurbench.core.environment.choose_device`.
        store: makes what :func:`measure` takes.
        force: see :func:`evaluate`.

    Raises:
        SpurbenchError: see :func:`evaluate`; or if it can't be loaded, or the device is not there.
    """
    key = known.key(member)
    identity = known.recall(key, output) if key else None
    if identity and not force and (stored := find(identity, request, output)):
        return stored
    classifier = member.load(choose_device(device))
    measured = evaluate(classifier, request, output, store=store(), force=force)
    if key and key == known.key(member):  # unless a file changed while it was read
        known.remember(key, Identity.of(classifier), output)
    return measured


def evaluate_each(
    members: Sequence[Member],
    request: EvaluationRequest,
    output: Path,
    *,
    device: str = "auto",
    force: bool = False,
) -> Iterator[Measured | Failed]:
    """Measure classifiers one after another; each image is decoded once per input geometry.

    Only one classifier is in memory at a time. One that fails does not stop the others.

    Args:
        members: the classifiers.
        request: see :func:`evaluate`.
        output: see :func:`evaluate`.
        device: see :func:`evaluate_member`.
        force: see :func:`evaluate`.

    Yields:
        What became of each as soon as it is there.

    Raises:
        SpurbenchError: if a device that is asked for is not there.
    """
    if device != "auto":  # which is never missing, and takes torch to find out
        choose_device(device)
    with scratch() as folder:

        @cache
        def store() -> PixelStore | None:
            from spurbench.images.pixels import PixelStore

            return PixelStore(folder) if len(members) > 1 else None

        for member in members:
            try:
                measured = evaluate_member(
                    member, request, output, device=device, store=store, force=force
                )
            except Exception as error:  # one classifier's failure must not cost the others
                log.debug("%s failed", member.asked, exc_info=True)
                kind = "" if isinstance(error, SpurbenchError) else f"{type(error).__name__}: "
                lacks_class = isinstance(error, UnknownClassError)
                yield Failed(member.asked, kind + reason(error), lacks_class)
            else:
                yield measured


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


def _path(identity: Identity, request: EvaluationRequest, output: Path) -> Path:
    return output / f"{request.file_stem(identity)}.json"


def _frame(
    images: Sequence[ImageRecord], predictions: Predictions, request: EvaluationRequest
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            "image_sha256": [image.sha256 for image in images],
            "path": [image.path for image in images],
            "source": [image.source for image in images],
            "class_index": np.array([image.class_index for image in images], np.int64),
            "class_name": [request.classes[image.class_index][0] for image in images],
            "spurious_feature": [request.classes[image.class_index][1] for image in images],
            "prediction": predictions.prediction,
            "predicted_wnid": predictions.predicted_wnid,
            "probability": predictions.probability,
            "rank": predictions.rank,
        }
    )


def _device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

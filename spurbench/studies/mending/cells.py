"""Every row of one classifier: mended, then shown the scenes. What is finished is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.info import ClassifierInfo
from spurbench.classifiers.load import load_classifier
from spurbench.core.documents import read_json
from spurbench.core.environment import one_thread
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.core.scratch import scratch
from spurbench.images.pixels import PixelStore
from spurbench.images.records import DatasetInfo
from spurbench.images.sources import open_images, open_positives
from spurbench.mini.training.jobs import prepare
from spurbench.mitigation import folder
from spurbench.mitigation import mend as mending
from spurbench.studies.mending import answers
from spurbench.studies.mending.answers import Answers
from spurbench.studies.mending.doctored import NOTE
from spurbench.studies.mending.plan import MendingRequest, Row
from spurbench.studies.mending.scenes import Scenes

log = logging.getLogger(__name__)

REVISION = 1
"""Raised when what is mended, or measured, changes."""


@dataclass(frozen=True)
class Mended:
    """A classifier's answers before and after.

    Attributes:
        before: its own.
        after: by name of a row.
    """

    info: ClassifierInfo
    before: Answers
    after: Mapping[str, Answers]


@dataclass(frozen=True)
class Given:
    """What all classifiers are mended with and measured on.

    Attributes:
        images: the classes' training images.
        spurious: by source, images of what is not the class.
    """

    scenes: Scenes
    images: DatasetInfo
    spurious: Mapping[str, DatasetInfo]


@lru_cache(maxsize=1)
def given(data: str, images: Path, scenes: int, seed: int, sources: tuple[str, ...]) -> Given:
    """Rendered and read once in a process.

    Args:
        data: dataset.
        images: the classes' training images.
        scenes: of each class and kind.
        seed: of the scenes.
        sources: splits of the dataset that rows take.
    """
    return Given(
        scenes=Scenes.of(data, scenes, seed),
        images=open_positives(images, decode=False).info,
        spurious={
            source: open_images(data, source, decode=False).info  # type: ignore[arg-type]
            for source in sources
        },
    )


def given_of(request: MendingRequest) -> Given:
    """See :func:`given`."""
    sources = sorted({row.source for row in request.rows} & {"generated", "real"}, key=str)
    return given(
        request.data, request.images, request.scenes, request.seed, tuple(map(str, sources))
    )


def doctored_folder(request: MendingRequest) -> Path:
    """Where doctored references lie."""
    return request.output / "doctored"


def mend_and_ask(request: MendingRequest, spec: str) -> Mended:
    """Mend a classifier in every way and ask it before and after.

    Args:
        request: what is compared.
        spec: of the classifier.

    Raises:
        SpurbenchError: if it can't be mended or asked.
    """
    prepare()
    shared = given_of(request)
    with scratch() as place, one_thread():
        store = PixelStore(place)
        plain = folder.load(spec, request.device)
        info = plain.info
        known = {
            "revision": REVISION,
            "scenes": shared.scenes.fingerprint,
            "classifier": info.weights_sha256,
            "device": request.device.type,
        }

        def said(name: str, depends_on: Mapping[str, Any], load: Any) -> Answers:
            path = request.output / "answers" / info.name / f"{name}.parquet"
            identity = fingerprint({**known, **depends_on})
            if (found := answers.read(path, identity)) is not None:
                return found
            log.info("%s: %s", info.name, name)
            new = answers.ask(load(), shared.scenes, store)
            answers.write(path, new, identity)
            return new

        @cache
        def shown() -> mending.Shown:
            return mending.show(plain, request.images)

        def mended(row: Row) -> Classifier:
            output = request.output / "mended" / info.name / row.name
            _mend(request, spec, row, shown, output)
            return load_classifier(str(output), device=request.device)

        return Mended(
            info,
            said("before", {}, lambda: plain),
            {
                row.name: said(row.name, _inputs(request, shared, row), lambda row=row: mended(row))
                for row in request.rows
            },
        )


def _mend(
    request: MendingRequest,
    spec: str,
    row: Row,
    shown: Callable[[], mending.Shown],
    output: Path,
) -> None:
    classifier = folder.load(spec, request.device)
    settings = request.settings(row.method)
    if settings is None:
        assert request.discovery and request.pairs, "require() has seen to it"
        wanted = mending.components_of(request.pairs)
        mending.spufixed(classifier, request.discovery, wanted, output)
        return
    match row.source:
        case None:
            trainings = mending.Trainings(request.images, None)
        case "doctored":
            where = str(doctored_folder(request))
            trainings = mending.Trainings(request.images, where, "real", row.per_class)
        case split:
            trainings = mending.Trainings(request.images, request.data, split, row.per_class)
    mending.trained(classifier, trainings, settings, output, shown=shown())


def _inputs(request: MendingRequest, shared: Given, row: Row) -> dict[str, Any]:
    """All that a row's mending depends on, beside the classifier."""
    settings = request.settings(row.method)
    if settings is None:
        assert request.discovery and request.pairs, "require() has seen to it"
        files = [request.pairs, *sorted(request.discovery.glob("*/components.safetensors"))]
        return {"row": row.model_dump(), "files": [file_sha256(file) for file in files]}
    spurious: Any = None
    if row.source == "doctored":
        spurious = read_json(doctored_folder(request) / NOTE)
    elif row.source is not None:
        spurious = shared.spurious[row.source].fingerprint
    return {
        "row": row.model_dump(),
        "settings": asdict(settings),
        "images": shared.images.fingerprint,
        "spurious": spurious,
    }

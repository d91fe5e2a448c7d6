"""`spurbench probe`: images are edited one aspect at a time, and classifiers asked again."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from spurbench.classifiers.info import display_name
from spurbench.core import atomic
from spurbench.core.environment import environment
from spurbench.core.errors import SpurbenchError
from spurbench.core.scratch import scratch
from spurbench.evaluation.members import Member
from spurbench.evaluation.request import EvaluationRequest
from spurbench.images.pixels import PixelStore
from spurbench.images.records import ImageRecord, ImageSet, Split
from spurbench.studies.probe import ask, measure, pictures, tables
from spurbench.studies.probe.edits import EDITS
from spurbench.studies.probe.prompts import Generators
from spurbench.studies.probe.results import (
    ANSWERS,
    FILE,
    PICTURE,
    Change,
    ClassifierProbe,
    Coverage,
    Probe,
)
from spurbench.studies.report.parts import Picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeRequest:
    """What is probed.

    Attributes:
        images: of a dataset, or photographs: all of them.
        split: of them, to probe; None: all.
        limit: only the first images of each class and split, see :meth:`ImageSet.first`.
        classifiers: who is asked.
        output: folder of the files.
        generators: sample the prompts' images; None: there are only edits.
        seed: of what the edits draw.
        device: where the classifiers run.
        pictured: images of each class in the picture, the first by their sha256.
    """

    images: ImageSet
    split: Split | None
    limit: int | None
    classifiers: Sequence[Member]
    output: Path
    generators: Generators | None
    seed: int
    device: torch.device
    pictured: int = 1


def probe(request: ProbeRequest) -> tuple[Probe, list[Path]]:
    """Probe a dataset and write what was found.

    Returns:
        What was found, and the files: ``probe.json``, the raw answers, each table as CSV and
        LaTeX, the picture as SVG and PNG.

    Raises:
        SpurbenchError: if no image counts, a classifier can't be loaded or lacks a class, two have
            one name, or the prompts' images can't be had.
    """
    images = _counted(request)
    twins, masks = _twins(request.images, images)
    changes = [
        Change(name=e.name, title=e.title, kind="edit", aspect=e.aspect, inside=e.inside)
        for e in EDITS
        if twins or not e.inside
    ]
    asked = ask.questions(images, twins, EDITS, request.seed)
    notes = _notes(images, twins, request.generators is not None)
    if request.generators is not None:
        prompts, more = request.generators.questions(images)
        changes += prompts
        asked += more
    found: list[ClassifierProbe] = []
    frames: list[pd.DataFrame] = []
    with scratch() as folder:
        store = PixelStore(folder)
        for member in request.classifiers:
            classifier = member.load(request.device)
            label = display_name(classifier.info.name, classifier.info.checkpoint)
            if label in {each.label for each in found}:
                raise SpurbenchError(f"two classifiers are called {label}; probe them apart")
            frames.append(ask.answers(classifier, asked, label=label, store=store))
            found.append(
                ClassifierProbe(
                    classifier=classifier.info,
                    label=label,
                    splits=measure.splits(frames[-1], changes),
                )
            )
    answers = pd.concat(frames, ignore_index=True)
    parquet = io.BytesIO()
    answers.to_parquet(parquet, index=False)
    shown = pictures.first(images, request.pictured)
    result = Probe(
        dataset=request.images.info,
        limit=request.limit,
        seed=request.seed,
        changes=tuple(changes),
        masks=masks,
        notes=tuple(notes),
        classifiers=tuple(found),
        damaged=request.images.damaged,
        caption=pictures.caption(request.pictured, shown),
        answers_sha256=hashlib.sha256(parquet.getvalue()).hexdigest(),
        environment=environment(request.device),
    )
    files = {ANSWERS: parquet.getvalue()}
    for table in tables.tables(result):
        files |= {f"{table.name}.csv": table.csv().encode()}
        files |= {f"{table.name}.tex": table.latex().encode()}
    figure = pictures.figure(shown, asked, answers, changes)
    picture = Picture.of(PICTURE, result.caption, figure)
    files |= {f"{PICTURE}.{kind}": content for kind, content in picture.files.items()}
    for name, content in files.items():
        atomic.write_bytes(request.output / name, content)
    result.write(request.output / FILE)
    return result, [request.output / name for name in (FILE, *files)]


def _counted(request: ProbeRequest) -> list[ImageRecord]:
    """The images that count in an evaluation, of the split and as many as are asked for."""
    counts = EvaluationRequest(request.images).counts
    chosen = request.images if request.limit is None else request.images.first(request.limit)
    of_split = [r for r in chosen.records if request.split in (None, r.source)]
    if counted := [record for record in of_split if counts(record)]:
        return counted
    raise SpurbenchError(
        f"none of {len(of_split)} {request.split or ''} images of {request.images.info.name} "
        "counts: fine-tuning saw them, or a detector sees the object in them"
    )


def _twins(
    data: ImageSet, images: Sequence[ImageRecord]
) -> tuple[dict[str, ImageRecord], dict[str, Coverage]]:
    """The twins that differ from their images, by the images' sha256, and how much is masked."""
    controls = {c.twin_of: c for c in (data.controls.records if data.controls else ()) if c.twin_of}
    twins: dict[str, ImageRecord] = {}
    covered: dict[str, list[float]] = {}
    for image in images:
        if image.source == "generated":
            shares = covered.setdefault(image.class_name, [])
            if image.sha256 in controls:
                share = float(ask.mask_of(image, controls[image.sha256]).mean())
                if share:
                    twins[image.sha256] = controls[image.sha256]
                    shares.append(share)
    return twins, {
        name: Coverage(images=len(shares), mean=float(np.mean(shares)) if shares else None)
        for name, shares in covered.items()
    }


def _notes(
    images: Sequence[ImageRecord], twins: dict[str, ImageRecord], prompted: bool
) -> list[str]:
    notes = []
    generated = [image for image in images if image.source == "generated"]
    if len(generated) < len(images):
        notes.append(
            "Real photographs have no twin without the feature, so nothing says where in them it "
            "is: they go through the edits of the whole image alone."
        )
    if len(twins) < len(generated):
        lacking = len(generated) - len(twins)
        notes.append(
            f"{lacking} of {len(generated)} generated images have no twin that differs from them, "
            "and don't go through the edits of the feature."
        )
    if not prompted:
        notes.append("No generator was at hand: images are edited, and none sampled anew.")
    return notes

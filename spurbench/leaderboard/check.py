"""What reviewers ask of an entry before it is published, and a sample of its answers asked anew."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import Interval, SignedInterval, SplitResult
from spurbench.images.records import ImageRecord, ImageSet, Source, Split
from spurbench.leaderboard import entries, known
from spurbench.leaderboard.answers import ClassAnswers, images_digest
from spurbench.leaderboard.entries import Entry

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 0.005
"""Probabilities measured on other hardware may differ by so much; predictions may not differ."""

DRAWN = 0.25
"""An interval drawn anew may differ by so much of its width: five standard errors of 2000 draws."""


@dataclass(frozen=True)
class Recomputed:
    """What asking anew found.

    Attributes:
        asked: images.
        of: of how many.
        difference: the largest, of a probability.
    """

    asked: int
    of: int
    difference: float


def check(path: Path) -> Entry:
    """Hold an entry to everything that can be known without its images.

    That its schema and layout are right, that its numbers and intervals follow from its answers,
    that it lies where it belongs, that its dataset is known, and that it was measured on the images
    of the entries beside it, and is not one of them.

    Raises:
        SpurbenchError: with the first fault, in one line.
    """
    if not path.is_file():
        raise SpurbenchError(f"no entry at {path}")
    entry = entries.read(path)
    if path.read_text(encoding="utf-8") != entry.text:
        raise SpurbenchError(
            f"{path} is not laid out as an entry is; `spurbench submit RESULT` writes it"
        )
    if not entry.answers:
        raise SpurbenchError(f"{path} has no answers; its numbers can't be followed")
    place = Path(entry.folder) / entry.file_name
    if path.resolve().parts[-2:] != place.parts:
        raise SpurbenchError(f"{path} belongs at {path.resolve().parents[1] / place}")
    known.require(entry, path.resolve().parents[1])
    for split, part in recomputed_numbers(entry).items():
        for fault in _drawn_faults(entry.splits[split], part):
            raise SpurbenchError(f"{path}: splits.{split}{fault} does not follow from the answers")
    for other in sorted(path.resolve().parent.glob("*.json")):
        if other != path.resolve():
            _compare(path, entry, other)
    return entry


def recomputed_numbers(entry: Entry) -> dict[Split, SplitResult]:
    """The numbers of each split, computed anew from the answers."""
    from spurbench.evaluation.summary import summarise

    return {split: summarise(_frame(entry, split)) for split in entry.splits if entry.splits[split]}


def recompute(
    entry: Entry,
    data: str,
    *,
    positives: Path | None = None,
    images: int | None = None,
    seed: int = 0,
    device: str = "auto",
) -> Recomputed:
    """Ask the classifier anew, and hold its answers to the entry's.

    Args:
        entry: sound; see :func:`check`.
        data: the dataset; see :func:`spurbench.images.sources.open_images`.
        positives: those that were measured, where they are not the dataset's own.
        images: how many, drawn at random from all sources; None asks all.
        seed: of the draw.
        device: see :func:`spurbench.core.environment.choose_device`.

    Raises:
        SpurbenchError: if the weights are not public or are others, the dataset holds other images,
            or an answer is another.
    """
    from spurbench.core.environment import choose_device
    from spurbench.evaluation.measure import cropped
    from spurbench.evaluation.members import Member
    from spurbench.evaluation.predict import predict
    from spurbench.images.sources import open_images, open_positives

    spec = entry.classifier.spec
    if spec is None:
        raise SpurbenchError(
            f"the weights of {entry.classifier.name} ({entry.classifier.source}) have no public "
            "name; its answers can't be asked anew"
        )
    opened = open_images(data, config=entry.config, decode=False)
    if positives is not None:
        opened = replace(opened, positives=open_positives(positives, decode=False))
    records = _records(entry, opened, data)
    places = [(source, i) for source, own in records.items() for i in range(len(own))]
    places = [(source, i) for source, i in places if records[source][i] is not None]
    if images is not None and images < len(places):
        drawn = np.random.default_rng(seed).choice(len(places), images, replace=False)
        asked = [places[i] for i in sorted(drawn.tolist())]
    else:
        asked = places
    classifier = Member.parse(spec).load(choose_device(device))
    if classifier.info.weights_sha256 != entry.classifier.weights_sha256:
        raise SpurbenchError(f"{spec} has other weights than the entry says were measured")
    whole = classifier.preprocessing(entry.preprocessing.mode)
    if whole != entry.preprocessing:
        raise SpurbenchError(f"{spec} takes its images otherwise than the entry says")
    largest = 0.0
    for source in records:
        positions = [i for own, i in asked if own == source]
        chosen = [record for i in positions if (record := records[source][i]) is not None]
        if not chosen:
            continue
        protocol_crops = source == "positive" and entry.protocol == "neuhaus"
        found = predict(classifier, chosen, preprocess=cropped(whole) if protocol_crops else whole)
        if found.damaged:
            raise SpurbenchError(f"{chosen[min(found.damaged)].path} of {data} is damaged")
        said = entry.answers[source]
        predictions = np.concatenate([a.predictions for a in said])[positions]
        probabilities = np.concatenate([a.probabilities for a in said])[positions]
        differences = np.abs(probabilities - found.probability)
        wrong = np.flatnonzero((predictions != found.prediction) | (differences > TOLERANCE))
        if len(wrong):
            first = wrong[0]
            raise SpurbenchError(
                f"{len(wrong)} of {len(chosen)} answers to {source} images are others: to "
                f"{chosen[first].path} {found.prediction[first]} with "
                f"{found.probability[first]:.4f}, and the entry says {predictions[first]} with "
                f"{probabilities[first]:.4f}"
            )
        largest = max(largest, float(differences.max()))
    return Recomputed(len(asked), len(places), largest)


def _records(entry: Entry, images: ImageSet, data: str) -> dict[Source, list[ImageRecord | None]]:
    """The images of each source in the order of the answers; None for a twin that is not there."""
    role = images.roles.get(entry.classifier.weights_sha256)
    if role != entry.role:
        raise SpurbenchError(f"the classifier's part in making {data} is {role}, not {entry.role}")
    found: dict[Source, list[ImageRecord | None]] = {}
    for source, answers in entry.answers.items():
        held = {"positive": images.positives, "control": images.controls}.get(source, images)
        groups: dict[int, list[ImageRecord]] = defaultdict(list)
        for record in held.records if held else ():
            if source in ("positive", "control") or record.source == source:
                groups[record.class_index].append(record)
        found[source] = []
        for own in answers:
            records = sorted(groups[own.index], key=lambda r: (r.replicate, r.sha256))
            ordered: list[ImageRecord | None] = [*records]
            if source == "control":
                generated = [r for r in found["generated"] if r and r.class_index == own.index]
                twins = {twin.twin_of: twin for twin in reversed(records)}
                ordered = [twins.get(image.sha256) for image in generated]
            present = [record.sha256 for record in ordered if record is not None]
            if images_digest(present) != own.images or len(ordered) != len(own.predictions):
                raise SpurbenchError(
                    f"the {source} images of class {own.index} in {data} are not those measured"
                )
            found[source] += ordered
    return found


def _compare(path: Path, entry: Entry, other: Path) -> None:
    """Hold an entry to one beside it."""
    published = entries.read(other)
    same = (published.config, published.protocol) == (entry.config, entry.protocol)
    if not same:
        return
    if (
        published.classifier.weights_sha256 == entry.classifier.weights_sha256
        and published.preprocessing == entry.preprocessing
        and published.splits.keys() & entry.splits.keys()
    ):
        raise SpurbenchError(f"{path} is of the classifier of {other.name}; keep one")
    for source in published.answers.keys() & entry.answers.keys():
        if _images(published.answers[source]) != _images(entry.answers[source]):
            raise SpurbenchError(f"{path}: its {source} images are not those of {other.name}")


def _images(answers: Sequence[ClassAnswers]) -> list[tuple[Any, ...]]:
    return [(a.index, a.images, a.left_out, a.generators) for a in answers]


def _frame(entry: Entry, split: Split) -> pd.DataFrame:
    """A split's answers as a result's parquet has them, as far as an entry tells."""
    import pandas as pd

    names = {c.index: c.name for c in entry.splits[split].classes}
    sources: list[Source] = [split, "positive"]
    if split == "generated":
        sources.append("control")
    parts = []
    for source in sources:
        for a in entry.answers.get(source, ()):
            n = len(a.predictions)
            replicates = np.repeat(np.arange(len(a.generators)), a.generators)
            parts.append(
                pd.DataFrame(
                    {
                        "image_sha256": [f"{source} {a.index} {i}" for i in range(n)],
                        "twin_of": [f"generated {a.index} {i}" for i in range(n)]
                        if source == "control"
                        else None,
                        "source": source,
                        "class_index": a.index,
                        "class_name": names.get(a.index),
                        "spurious_feature": None,
                        "replicate": replicates if len(replicates) else 0,
                        "object_absent": pd.array([None] * n, "boolean"),
                        "is_reference": False,
                        "counted": a.counted,
                        "prediction": a.predictions.astype(np.int64),
                        "probability": a.probabilities,
                        # No answer tells the rank of a class that is not the first.
                        "rank": np.where(a.fooled, 1, 2),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def _drawn_faults(said: SplitResult, anew: SplitResult) -> Iterator[str]:
    """The intervals and p-values that are not what the answers give."""
    pairs: list[tuple[str, Any, Any]] = [(".summary", said.summary, anew.summary)]
    pairs += [(f", {a.name}", a, b) for a, b in zip(said.classes, anew.classes, strict=True)]
    for where, a, b in pairs:
        intervals = [("spurious_accuracy_interval", a, b, b.n)]
        if b.recognition:
            intervals.append(("interval", a.recognition, b.recognition, b.recognition.n))
            # Where rounding makes probabilities alike, areas are not what they were.
            if abs(a.recognition.auroc - b.recognition.auroc) < 1e-3:
                fewest = min(b.n, b.recognition.n)
                intervals.append(("auroc_interval", a.recognition, b.recognition, fewest))
        if b.effect:
            intervals.append(("interval", a.effect, b.effect, b.effect.pairs))
            if abs(a.effect.p_value - b.effect.p_value) > 1e-5:
                yield f"{where}: the effect's p_value"
        for name, one, two, n in intervals:
            if not _alike(getattr(one, name), getattr(two, name), n):
                yield f"{where}: {name}"


def _alike(a: Interval | SignedInterval, b: Interval | SignedInterval, n: int) -> bool:
    room = DRAWN * (b.high - b.low) + 1 / n
    return abs(a.low - b.low) <= room and abs(a.high - b.high) <= room

"""A classifier's entry on a leaderboard: the file that is published, reviewed and rendered from.

An entry is a result and its answers in little: enough to compute every number, test and picture of
the leaderboard again without the images, on few enough lines to be read in a pull request.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core import atomic
from spurbench.core.documents import Document, Share, describe
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.evaluation.results import SCHEMA as RESULT_SCHEMA
from spurbench.evaluation.results import Result, Settings, SplitResult
from spurbench.images.records import DatasetInfo, Split

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SCHEMA: Literal["spurbench.entry/1"] = "spurbench.entry/1"

PROBABILITY_DIGITS = 4
WIDTH = 100
"""Columns of a published JSON: what fits is on one line."""


class EntryClassifier(Document):
    """Which classifier was measured; as in a result, without the path it was loaded from."""

    name: str
    source: str
    architecture: str
    family: str = Field(description="module of the library that defines the architecture")
    training_data: str = Field(description="from the pretrained tag, or unknown")
    parameters: int
    head: str
    weights_sha256: str
    checkpoint: str | None = None

    @classmethod
    def of(cls, info: ClassifierInfo) -> EntryClassifier:
        """The classifier of a result, with what its names tell of where it comes from."""
        from spurbench.leaderboard import lineage

        return cls(
            **info.model_dump(exclude={"spec", "training_data"}),
            family=lineage.family(info),
            training_data=lineage.training_data(info),
        )


class ClassAnswers(Document):
    """The answers to the images of one class of one split, in the order of the images' sha256."""

    index: int
    images: str = Field(description="sha256 over the images' sha256, sorted, one per line")
    predictions: list[Annotated[int, Field(ge=-1, le=999)]] = Field(
        description="ImageNet-1k class; -1: none of them"
    )
    probabilities: list[Share] = Field(description="softmax probability of the class, rounded")

    @model_validator(mode="after")
    def _are_of_as_many_images(self) -> ClassAnswers:
        if len(self.predictions) != len(self.probabilities):
            raise ValueError(
                f"class {self.index} has {len(self.predictions)} predictions but "
                f"{len(self.probabilities)} probabilities"
            )
        return self

    @property
    def fooled(self) -> NDArray[np.bool_]:
        """(n,), whether each image is called the class."""
        return np.array(self.predictions) == self.index


class Entry(Document):
    """One classifier on the images of one dataset version."""

    schema_version: Literal["spurbench.entry/1"] = Field(default=SCHEMA, alias="schema")
    classifier: EntryClassifier
    dataset: DatasetInfo
    preprocessing: Preprocessing
    splits: dict[Split, SplitResult]
    answers: dict[Split, list[ClassAnswers]] = Field(
        description="by split; empty where the answers to each image are not known"
    )
    damaged: int = Field(ge=0, description="images that could not be read and are in no number")
    settings: Settings
    environment: dict[str, str]
    created: str

    @model_validator(mode="after")
    def _numbers_follow_from_the_answers(self) -> Entry:
        if self.answers and self.answers.keys() != self.splits.keys():
            raise ValueError("answers and splits are not of the same splits")
        for split, answers in self.answers.items():
            classes = self.splits[split].classes
            if [c.index for c in classes] != [a.index for a in answers]:
                raise ValueError(f"answers and splits.{split} are not of the same classes")
            for c, a in zip(classes, answers, strict=True):
                # A share of n images to the last digit; a rounded mean to half a unit.
                if (
                    c.n != len(a.predictions)
                    or abs(c.spurious_accuracy - a.fooled.mean()) > 1e-9
                    or abs(c.mean_probability - np.mean(a.probabilities)) > 10**-PROBABILITY_DIGITS
                ):
                    raise ValueError(f"splits.{split}, {c.name}: numbers differ from the answers")
            shares = [c.spurious_accuracy for c in classes]
            if abs(self.splits[split].summary.spurious_accuracy - np.mean(shares)) > 1e-9:
                raise ValueError(f"splits.{split}.summary is not the mean of its classes")
        return self

    @property
    def file_name(self) -> str:
        """Of its JSON: the same measurement made again has the same name."""
        identity = {
            "weights": self.classifier.weights_sha256,
            "images": self.dataset.fingerprint,
            "preprocessing": self.preprocessing.model_dump(mode="json"),
        }
        label = f"{self.classifier.source}-{self.classifier.name}"
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}_{fingerprint(identity)[:8]}.json"

    @classmethod
    def of(cls, result: Result, answers: pd.DataFrame | None) -> Entry:
        """The entry of a result and the parquet beside it, where that is known.

        Raises:
            ValidationError: if they contradict each other.
        """
        return cls(
            classifier=EntryClassifier.of(result.classifier),
            dataset=result.dataset,
            preprocessing=result.preprocessing,
            splits=result.splits,
            answers={}
            if answers is None
            else {split: _class_answers(answers, split) for split in result.splits},
            damaged=len(result.damaged),
            settings=result.settings,
            environment=result.environment,
            created=result.created,
        )

    def write(self, path: Path) -> None:
        """Write the JSON atomically, laid out to be read and compared line by line."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        atomic.write_text(path, f"{_layout(value, 0)}\n")


def read(path: Path) -> Entry:
    """Read an entry, or make it of a result JSON and the parquet beside that.

    Where the parquet is missing or not the one that the result names, the entry has no answers,
    which is said.

    Raises:
        SpurbenchError: if the file is neither, is damaged, or contradicts itself.
    """
    try:
        text = path.read_text(encoding="utf-8")
        kind = json.loads(text).get("schema")
    except (ValueError, AttributeError):
        kind = None
    try:
        if kind == SCHEMA:
            return Entry.model_validate_json(text)
        return _of_result(Result.read(path))
    except ValidationError as error:
        raise SpurbenchError(f"{path} is not a sound {SCHEMA}: {describe(error)}") from None


def read_all(paths: list[Path]) -> dict[Path, Entry]:
    """Read results and entries.

    Args:
        paths: files, or folders that are searched to any depth. A JSON in a folder that is neither
            is passed over; a file named here must be one.

    Returns:
        By file, in order.

    Raises:
        SpurbenchError: if a path is missing, a file is damaged or of an unknown schema version.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            files.update(dict.fromkeys(file.resolve() for file in _claiming(path)))
        elif path.is_file():
            files[path.resolve()] = None
        else:
            raise SpurbenchError(f"no file or folder of results at {path}")
    return {file: read(file) for file in files}


def gather(results: Sequence[Path | Result]) -> list[Entry]:
    """Entries of results that are in memory or in files and folders.

    Args:
        results: see :func:`read_all` for paths.

    Raises:
        SpurbenchError: see :func:`read_all`.
    """
    held = [_of_result(result) for result in results if isinstance(result, Result)]
    return held + list(read_all([path for path in results if isinstance(path, Path)]).values())


def _of_result(result: Result) -> Entry:
    try:
        answers = result.answers
    except SpurbenchError as error:
        log.warning("the answers of %s are not known and left out: %s", result.label, error)
        return Entry.of(result, None)
    return Entry.of(result, answers)


def images_digest(sha256: list[str]) -> str:
    """Identity of a class's images, whatever their order."""
    return hashlib.sha256("\n".join(sorted(sha256)).encode()).hexdigest()


def _claiming(folder: Path) -> Iterator[Path]:
    """JSON files that say they are a result or an entry, of whatever version."""
    families = tuple(schema.rpartition("/")[0] for schema in (RESULT_SCHEMA, SCHEMA))
    for file in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(file.read_bytes())
        except ValueError as error:
            raise SpurbenchError(
                f"{file} is damaged, not JSON ({error}); delete it or measure again"
            ) from None
        if isinstance(content, dict) and str(content.get("schema")).rpartition("/")[0] in families:
            yield file


def _class_answers(frame: pd.DataFrame, split: Split) -> list[ClassAnswers]:
    # Ties of the hash are the same image, to which the answer is the same.
    rows = frame[frame["source"] == split].sort_values(["class_index", "image_sha256"])
    return [
        ClassAnswers(
            index=index,
            images=images_digest(own["image_sha256"].tolist()),
            predictions=own["prediction"].tolist(),
            probabilities=own["probability"].round(PROBABILITY_DIGITS).tolist(),
        )
        for index in rows["class_index"].unique().tolist()
        for own in [rows[rows["class_index"] == index]]
    ]


def _layout(value: Any, indent: int) -> str:
    """JSON in which an array of numbers, and whatever else fits, is on one line."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    items = value.values() if isinstance(value, dict) else value
    nested = isinstance(value, dict | list) and any(isinstance(i, dict | list) for i in items)
    numbers = isinstance(value, list) and not nested
    if not isinstance(value, dict | list) or numbers or indent + len(flat) <= WIDTH:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, dict):
        lines = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_layout(item, indent + 2)}"
            for key, item in value.items()
        ]
    else:
        lines = [f"{inner}{_layout(item, indent + 2)}" for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n" + ",\n".join(lines) + f"\n{' ' * indent}{closing}"

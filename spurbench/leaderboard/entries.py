"""A classifier's entry on a leaderboard: the file that is published, reviewed and rendered from.

An entry is a result and its answers in little: enough to compute every number, test and picture of
the leaderboard again without the images, on few enough lines to be read in a pull request.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, model_validator

from spurbench.classifiers.info import YES_NO, ClassifierInfo, Mended, Preprocessing
from spurbench.core import atomic, collector
from spurbench.core.documents import Document, describe
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.evaluation.files import family, result_files, schema_of
from spurbench.evaluation.results import SCHEMA as RESULT_SCHEMA
from spurbench.evaluation.results import Protocol, Result, Settings, SplitResult
from spurbench.images.records import Config, DatasetInfo, Role, Source, Split
from spurbench.leaderboard import answers as answering
from spurbench.leaderboard.answers import ClassAnswers
from spurbench.leaderboard.consistency import contradiction

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SCHEMA: Literal["spurbench.entry/2"] = "spurbench.entry/2"

DIGITS = 6
"""Significant digits of published numbers: more would be noise, and longer to read."""
LOCAL = {"folder", "module", "onnx", "open_clip"}
"""Sources whose weights are files of one's own."""
WIDTH = 100
"""Columns of a published JSON: what fits is on one line."""

_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
"""Made once: json.dumps would make one for each of an entry's many values."""


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
    mended: Mended | None = None

    @property
    def spec(self) -> str | None:
        """By which anyone can load the same weights; None where they have no public name."""
        if self.checkpoint is not None or self.source in LOCAL:
            return None
        return self.name if self.source == "timm" else f"{self.source}:{self.name}"

    @classmethod
    def of(cls, info: ClassifierInfo) -> EntryClassifier:
        """The classifier of a result, with what its names tell of where it comes from."""
        from spurbench.leaderboard import lineage

        return cls(
            **info.model_dump(exclude={"spec", "training_data"}),
            family=lineage.family(info),
            training_data=lineage.training_data(info),
        )


class Entry(Document):
    """One classifier on the images of one dataset version."""

    schema_version: Literal["spurbench.entry/2"] = Field(default=SCHEMA, alias="schema")
    classifier: EntryClassifier
    role: Role | None = Field(default=None, description="its part in making the dataset")
    dataset: DatasetInfo
    config: Config
    protocol: Protocol
    preprocessing: Preprocessing
    positives: DatasetInfo | None = None
    controls: DatasetInfo | None = None
    splits: dict[Split, SplitResult] = Field(min_length=1)
    answers: dict[Source, list[ClassAnswers]] = Field(
        description="by source; empty where the answers to each image are not known"
    )
    damaged: int = Field(ge=0, description="images that could not be read and are in no number")
    settings: Settings
    environment: dict[str, str]
    created: str

    @model_validator(mode="after")
    def _numbers_follow_from_the_answers(self) -> Entry:
        asked_twice = self.classifier.head == YES_NO and len(self.answers.get("positive", ())) > 1
        if self.answers and asked_twice != ("negative" in self.answers):
            raise ValueError(
                "a yes or no is asked about images of other classes too (answers.negative), and "
                "nothing else is"
            )
        for source, images in (("positive", self.positives), ("control", self.controls)):
            if source in self.answers and images is None:
                raise ValueError(f"answers.{source} are there, and {source}s says of no images")
        found = contradiction(self.splits, self.answers) if self.answers else None
        if found:
            raise ValueError(found)
        return self

    @property
    def folder(self) -> str:
        """Where it is published: the name of its dataset and version."""
        return file_name(
            f"{self.dataset.name}-{self.dataset.version or self.dataset.fingerprint[:12]}"
        )

    @property
    def file_name(self) -> str:
        """Of its JSON: the same measurement made again has the same name."""
        identity = {
            "weights": self.classifier.weights_sha256,
            "images": self.dataset.fingerprint,
            "config": self.config,
            "protocol": self.protocol,
            "preprocessing": self.preprocessing.model_dump(mode="json"),
        }
        label = file_name(f"{self.classifier.source}-{self.classifier.name}")
        return f"{label}_{fingerprint(identity)[:8]}.json"

    @classmethod
    def of(cls, result: Result, answers: pd.DataFrame | None) -> Entry:
        """The entry of a result and the parquet beside it, where that is known.

        Raises:
            ValidationError: if they contradict each other.
        """
        splits = {
            split: SplitResult.model_validate(_rounded(part.model_dump()))
            for split, part in result.splits.items()
        }
        return cls(
            classifier=EntryClassifier.of(result.classifier),
            role=result.role,
            dataset=result.dataset,
            config=result.config,
            protocol=result.protocol,
            preprocessing=result.preprocessing,
            positives=result.positives,
            controls=result.controls,
            splits=splits,
            answers={} if answers is None else answering.of_frame(answers, list(splits)),
            damaged=len(result.damaged),
            settings=result.settings,
            environment=result.environment,
            created=result.created,
        )

    @property
    def text(self) -> str:
        """Its JSON, laid out to be read and compared line by line."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return f"{_layout(value, 0)}\n"

    def write(self, path: Path) -> None:
        """Write its JSON atomically."""
        atomic.write_text(path, self.text)


def read(path: Path) -> Entry:
    """Read an entry, or make it of a result JSON and the parquet beside that.

    Where the parquet is missing or not the one that the result names, the entry has no answers,
    which is said.

    Raises:
        SpurbenchError: if the file is neither, is damaged, or contradicts itself.
    """
    content = path.read_bytes()
    schema = schema_of(path, content)
    try:
        if family(schema) != family(SCHEMA):
            return _of_result(Result.read(path))
        if schema != SCHEMA:
            raise SpurbenchError(f"{path} is of {schema}, and only {SCHEMA} is read; measure again")
        return Entry.model_validate_json(content)
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
    files = result_files(paths, (RESULT_SCHEMA, SCHEMA))
    with collector.paused():
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


def file_name(text: str) -> str:
    """A harmless file name that resembles a text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")


def _rounded(value: Any) -> Any:
    """A document in which every number has as many digits as are published."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _layout(value: Any, indent: int) -> str:
    """JSON whose lines hold as much as fits; a list of numbers, or a long string, is one line."""
    items = value.values() if isinstance(value, dict) else value
    nested = isinstance(value, dict | list) and any(isinstance(i, dict | list) for i in items)
    flat = _json(value)
    numbers = isinstance(value, list) and not nested
    if not isinstance(value, dict | list) or numbers or indent + len(flat) <= WIDTH:
        return flat
    inner = indent + 2
    if isinstance(value, list):
        parts = [_layout(item, inner) for item in value]
    else:
        parts = _filled(
            [f"{_json(key)}: {_layout(item, inner)}" for key, item in value.items()],
            WIDTH - inner - 1,
        )
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = ",\n".join(f"{' ' * inner}{part}" for part in parts)
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


def _filled(parts: Sequence[str], width: int) -> list[str]:
    """Parts of one line joined as long as they fit."""
    lines: list[str] = []
    for part in parts:
        if lines and "\n" not in lines[-1] + part and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return lines

"""The answers of an entry: what a classifier called each image, on few enough lines to review."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    ConfigDict,
    Field,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from spurbench.core.documents import Document
from spurbench.images.records import Source, Split

if TYPE_CHECKING:
    import pandas as pd

UNITS = 10_000
"""Of probability in 1. They are published as whole numbers: short to write, quick to read."""


_PREDICTIONS, _NUMBERS = re.compile("[0-9 =?]+"), re.compile("[0-9 ]+")


class ClassAnswers(Document):
    """The answers to the images of one class of one source.

    Images are in the order of (generator, sha256); controls in that of the generated images whose
    twins they are, where an image without a twin is left out with a prediction of -1. In the JSON
    numbers are words of one string, which is quick to read: ``=`` is the class itself, ``?`` none
    of ImageNet-1k's.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: int
    images: str = Field(description="sha256 over the images' sha256, sorted, one per line")
    predictions: NDArray[np.int16] = Field(description="ImageNet-1k class; -1: none of them")
    ten_thousandths: NDArray[np.int16] = Field(
        validation_alias="probabilities",
        serialization_alias="probabilities",
        description="softmax probability of the class, rounded, in units of 0.0001",
    )
    left_out: list[int] = Field(
        default=[], description="positions, from 0, of images that are in no headline number"
    )
    generators: list[int] = Field(
        default=[], description="images of each independent generator, where several made them"
    )

    @field_validator("predictions", mode="plain")
    @classmethod
    def _read_predictions(cls, value: Any, info: ValidationInfo) -> NDArray[np.int16]:
        if not isinstance(value, str):
            return _held(value)
        if not _PREDICTIONS.fullmatch(value):
            raise ValueError("must be class indices, = or ?, with a space between them")
        words = value.replace("=", f" {info.data.get('index')} ").replace("?", " -1 ")
        return _numbers(words, value.count(" ") + 1, 999)

    @field_validator("ten_thousandths", mode="plain")
    @classmethod
    def _read_probabilities(cls, value: Any) -> NDArray[np.int16]:
        if not isinstance(value, str):
            return _held(value)
        if not _NUMBERS.fullmatch(value):
            raise ValueError("must be whole numbers with a space between them")
        return _numbers(value, value.count(" ") + 1, UNITS)

    @field_serializer("predictions")
    def _write_predictions(self, value: NDArray[np.int16]) -> str:
        own = {self.index: "=", -1: "?"}
        return " ".join(own.get(number) or str(number) for number in value.tolist())

    @field_serializer("ten_thousandths")
    def _write_probabilities(self, value: NDArray[np.int16]) -> str:
        return " ".join(map(str, value.tolist()))

    @model_validator(mode="after")
    def _are_of_as_many_images(self) -> ClassAnswers:
        n = len(self.predictions)
        if n != len(self.ten_thousandths):
            raise ValueError(
                f"class {self.index} has {n} predictions but "
                f"{len(self.ten_thousandths)} probabilities"
            )
        positions = self.left_out
        if positions and (
            positions != sorted(set(positions)) or positions[0] < 0 or positions[-1] >= n
        ):
            raise ValueError(f"class {self.index}: left_out must be positions, from 0, in order")
        if self.generators and (sum(self.generators) != n or min(self.generators) < 1):
            raise ValueError(f"class {self.index}: generators do not add up to its {n} images")
        return self

    def __eq__(self, other: object) -> bool:
        """Whether both say the same of the same images."""
        return isinstance(other, ClassAnswers) and self.model_dump() == other.model_dump()

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(n,), the softmax probability of the class, to four digits."""
        return self.ten_thousandths / UNITS

    @property
    def fooled(self) -> NDArray[np.bool_]:
        """(n,), whether each image is called the class."""
        return self.predictions == self.index

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """(n,), whether each image is in the headline numbers."""
        mask = np.ones(len(self.predictions), np.bool_)
        mask[self.left_out] = False
        return mask

    @property
    def counts(self) -> bool:
        """Whether any image is in the headline numbers."""
        return len(self.left_out) < len(self.predictions)

    @property
    def counted_generators(self) -> int:
        """How many made images that count."""
        if not self.generators:
            return int(self.counts)
        starts = np.cumsum([0, *self.generators[:-1]])
        return int(np.count_nonzero(np.add.reduceat(self.counted, starts)))


Answers = Mapping[Source, Sequence[ClassAnswers]]
"""By source; empty where the answers to each image are not known."""


def _held(value: Any) -> NDArray[np.int16]:
    if not isinstance(value, np.ndarray):
        raise ValueError("must be numbers in one string")
    return value.astype(np.int16)


def _numbers(words: str, count: int, highest: int) -> NDArray[np.int16]:
    """Numbers with spaces between them; quicker than a list, of which an entry has 60,000."""
    numbers = np.fromstring(words, np.int64, sep=" ") if words.strip() else np.zeros(0, np.int64)
    if len(numbers) != count:
        raise ValueError("must have one space between any two")
    if numbers.max() > highest:
        raise ValueError(f"must be at most {highest}")
    return numbers.astype(np.int16)


def images_digest(sha256: list[str]) -> str:
    """Identity of a class's images, whatever their order."""
    return hashlib.sha256("\n".join(sorted(sha256)).encode()).hexdigest()


def of_frame(frame: pd.DataFrame, splits: Sequence[Split]) -> dict[Source, list[ClassAnswers]]:
    """Answers from a result's parquet.

    Args:
        frame: its columns; see docs/results.md.
        splits: those that were measured.
    """
    # Ties of the hash are the same image, to which the answer is the same.
    rows = frame.sort_values(["class_index", "replicate", "image_sha256"])
    found: dict[Source, list[ClassAnswers]] = {}
    sources: tuple[Source, ...] = (*splits, "positive", "negative")
    for source in sources:
        own = rows[rows["source"] == source]
        if len(own):
            found[source] = [_class_answers(part) for _, part in own.groupby("class_index")]
    twins = rows[rows["source"] == "control"].drop_duplicates("twin_of").set_index("twin_of")
    if len(twins):
        generated = rows[rows["source"] == "generated"]
        found["control"] = [
            _twins_answers(part, twins) for _, part in generated.groupby("class_index")
        ]
    return found


def _class_answers(rows: pd.DataFrame) -> ClassAnswers:
    generators = rows["replicate"].value_counts(sort=False).tolist()
    return ClassAnswers(
        index=int(rows["class_index"].iloc[0]),
        images=images_digest(rows["image_sha256"].tolist()),
        predictions=rows["prediction"].to_numpy(),
        ten_thousandths=_in_units(rows["probability"]),
        left_out=np.flatnonzero(~rows["counted"].to_numpy(np.bool_)).tolist(),
        generators=generators if len(generators) > 1 else [],
    )


def _twins_answers(rows: pd.DataFrame, twins: pd.DataFrame) -> ClassAnswers:
    own = twins.reindex(rows["image_sha256"])
    counted = own["counted"].eq(True).to_numpy(np.bool_)
    return ClassAnswers(
        index=int(rows["class_index"].iloc[0]),
        images=images_digest(own["image_sha256"].dropna().tolist()),
        predictions=own["prediction"].fillna(-1).to_numpy(np.int64),
        ten_thousandths=_in_units(own["probability"].fillna(0.0)),
        left_out=np.flatnonzero(~counted).tolist(),
    )


def _in_units(probabilities: pd.Series[float]) -> NDArray[np.int16]:
    return np.rint(probabilities.to_numpy(np.float64) * UNITS).astype(np.int16)

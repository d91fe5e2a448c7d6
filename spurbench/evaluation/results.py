"""The result of one classifier on one dataset: the JSON that ``spurbench eval`` writes.

Every number is a JSON number, every share a fraction in [0, 1], every interval a 95 % interval.
``schema`` names the version of this layout; readers refuse versions they don't know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core import atomic
from spurbench.core.documents import Document, Share, describe
from spurbench.core.errors import SpurbenchError
from spurbench.images.records import Damaged, DatasetInfo, Split

SCHEMA: Literal["spurbench.result/1"] = "spurbench.result/1"


class Interval(Document):
    """A 95 % confidence interval."""

    low: Share
    high: Share


class ClassResult(Document):
    """One class of one split."""

    index: int
    name: str
    wnid: str
    spurious_feature: str | None = None
    n: int = Field(ge=1, description="images measured")
    spurious_accuracy: Share = Field(description="share of images the classifier calls the class")
    spurious_accuracy_interval: Interval = Field(description="Wilson score interval")
    top5: Share
    mean_probability: Share = Field(description="mean softmax probability of the class")
    positives: int | None = Field(default=None, description="images that truly show the class")
    auroc: Share | None = None
    average_precision: Share | None = None


class Summary(Document):
    """Macro means over classes: every class counts the same, however many images it has."""

    n: int = Field(ge=1, description="images measured")
    classes: int = Field(ge=1)
    spurious_accuracy: Share
    spurious_accuracy_interval: Interval = Field(
        description="percentile bootstrap over the images within each class"
    )
    top5: Share
    mean_probability: Share
    worst_class: str = Field(description="class with the highest spurious accuracy")
    worst_class_spurious_accuracy: Share
    auroc: Share | None = None
    average_precision: Share | None = None


class SplitResult(Document):
    """One split: its summary and its classes in the order of their indices."""

    summary: Summary
    classes: list[ClassResult]


class Settings(Document):
    """What else the numbers depend on."""

    bootstrap_resamples: int
    bootstrap_seed: int


class Result(Document):
    """One classifier on one dataset."""

    schema_version: Literal["spurbench.result/1"] = Field(default=SCHEMA, alias="schema")
    summary: Summary = Field(description="over all images measured, whatever their split")
    splits: dict[Split, SplitResult]
    classifier: ClassifierInfo
    dataset: DatasetInfo
    preprocessing: Preprocessing
    positives: DatasetInfo | None = None
    damaged: list[Damaged]
    settings: Settings
    predictions: str = Field(description="file name of the per-image parquet beside this JSON")
    predictions_sha256: str = Field(description="of that file")
    environment: dict[str, str] = Field(description="versions of packages, and the device")
    created: str = Field(description="UTC, ISO 8601")

    def write(self, path: Path) -> None:
        """Write the JSON atomically."""
        atomic.write_json(path, self.model_dump(mode="json", by_alias=True))

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result.

        Raises:
            SpurbenchError: if the file is missing or isn't a result of this schema.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise SpurbenchError(f"no result at {path}; `spurbench eval` writes one") from None
        except OSError as error:
            raise SpurbenchError(f"{path} can't be read: {error.strerror}") from None
        except ValidationError as error:
            raise SpurbenchError(f"{path} is not a {SCHEMA} result: {describe(error)}") from None

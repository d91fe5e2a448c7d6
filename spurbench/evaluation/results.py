"""The result of one classifier on one dataset: the JSON that ``spurbench eval`` writes.

Every number is a JSON number, every share a fraction in [0, 1], every interval a 95 % interval.
``schema`` names the version of this layout; readers refuse versions they don't know.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, PrivateAttr, ValidationError

from spurbench.classifiers.info import ClassifierInfo, Preprocessing, display_name
from spurbench.core import atomic
from spurbench.core.documents import Document, Share, describe, read_bytes
from spurbench.core.errors import SpurbenchError
from spurbench.core.markdown import plain
from spurbench.evaluation.display import Sheet, html, result_sheet, text
from spurbench.images.records import Config, Damaged, DatasetInfo, Role, Split

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Group

SCHEMA: Literal["spurbench.result/2"] = "spurbench.result/2"

Protocol = Literal["spurbench", "neuhaus"]

Difference = Annotated[float, Field(ge=-1, le=1)]


class Interval(Document):
    """A 95 % confidence interval of a share."""

    low: Share
    high: Share


class SignedInterval(Document):
    """A 95 % confidence interval of a difference of shares."""

    low: Difference
    high: Difference


class Rate(Document):
    """How often images are called their class."""

    n: int = Field(ge=1, description="images")
    share: Share
    interval: Interval


class Recognition(Document):
    """Images that do show the class, and how they are told from the spurious ones."""

    n: int = Field(ge=1, description="images that show the class")
    accuracy: Share = Field(description="share of them that the classifier calls the class")
    interval: Interval
    auroc: Share = Field(description="of p(class), against the spurious images that count")
    auroc_interval: Interval = Field(description="bootstrap over both kinds of images")
    average_precision: Share


class Effect(Document):
    """What the spurious feature adds: generated images against their twins without it."""

    pairs: int = Field(ge=1, description="images that count and have a twin that counts")
    accuracy: Share = Field(description="spurious accuracy on the images of the pairs")
    control_accuracy: Share = Field(description="share of the twins that are called the class")
    effect: Difference = Field(description="accuracy minus control_accuracy")
    interval: SignedInterval = Field(description="paired bootstrap, over pairs")
    p_value: Share = Field(description="McNemar's exact test, over all pairs, not adjusted")


class ClassResult(Document):
    """One class of one split, on the images that count."""

    index: int
    name: str
    wnid: str
    spurious_feature: str | None = None
    n: int = Field(ge=1, description="images that count")
    spurious_accuracy: Share = Field(description="share of images the classifier calls the class")
    spurious_accuracy_interval: Interval = Field(
        description="Wilson score interval; with several generators, bootstrap over these and "
        "then over images"
    )
    top5: Share
    mean_probability: Share = Field(description="mean softmax probability of the class")
    with_references: Rate | None = Field(
        default=None, description="with the images that a generator's fine-tuning saw"
    )
    object_seen: Rate | None = Field(
        default=None, description="of images in which the detector sees the class's object"
    )
    recognition: Recognition | None = Field(default=None, description="null without positives")
    effect: Effect | None = Field(default=None, description="null without controls")


class Summary(Document):
    """Macro means over classes: every class counts the same, however many images it has."""

    n: int = Field(ge=1, description="images that count")
    classes: int = Field(ge=1)
    generators: int = Field(
        ge=0,
        description="independent generators of each class's images, the fewest; 0 of photographs. "
        "With fewer than 2, intervals hold for this set of images only",
    )
    spurious_accuracy: Share
    spurious_accuracy_interval: Interval = Field(
        description="percentile bootstrap within each class, over generators and then images"
    )
    top5: Share
    mean_probability: Share
    worst_class: str = Field(description="class with the highest spurious accuracy")
    worst_class_spurious_accuracy: Share
    worst_class_n: int = Field(ge=1, description="images that count in it")
    with_references: Rate | None = None
    object_seen: Rate | None = None
    recognition: Recognition | None = None
    chance: Share | None = Field(
        default=None,
        description="accuracy on positives if the same answers were dealt to them at random; "
        "asked for yes or no, the share of yes on images of other classes",
    )
    effect: Effect | None = None

    @property
    def recognises(self) -> bool | None:
        """Whether it tells the classes better than chance; None if there were no positives."""
        if self.recognition is None or self.chance is None:
            return None
        # Beyond rounding: a constant answer is exactly as good as chance.
        return self.recognition.interval.low > self.chance + 1e-9


class SplitResult(Document):
    """One split: its summary and its classes in the order of their indices."""

    summary: Summary
    classes: list[ClassResult]


class Settings(Document):
    """What else the numbers depend on."""

    bootstrap_resamples: int
    bootstrap_seed: int


BOOTSTRAP = Settings(bootstrap_resamples=2000, bootstrap_seed=0)


class Result(Document):
    """One classifier on one dataset.

    Images count that are object-free, as far as a detector looked, and that no fine-tuning saw.
    """

    schema_version: Literal["spurbench.result/2"] = Field(default=SCHEMA, alias="schema")
    summary: Summary = Field(description="over all images measured, whatever their split")
    splits: dict[Split, SplitResult]
    classifier: ClassifierInfo
    dataset: DatasetInfo
    protocol: Protocol = Field(
        default="spurbench", description="neuhaus: that of Spurious ImageNet's authors"
    )
    config: Config = Field(default="default", description="of the dataset")
    role: Role | None = Field(
        default=None, description="the classifier's part in making the dataset, if it had one"
    )
    preprocessing: Preprocessing
    positives: DatasetInfo | None = None
    controls: DatasetInfo | None = None
    damaged: list[Damaged]
    settings: Settings
    predictions: str = Field(description="file name of the per-image parquet beside this JSON")
    predictions_sha256: str = Field(description="of that file")
    environment: dict[str, str] = Field(
        description="versions of packages, the device, and on a processor torch's threads"
    )
    created: str = Field(description="UTC, ISO 8601")

    _answers: bytes | Path | None = PrivateAttr(default=None)
    """The parquet, or the file that it is in."""

    def with_answers(self, parquet: bytes) -> Result:
        """This result, holding the parquet that it was computed from."""
        held = self.model_copy()
        held._answers = parquet
        return held

    @property
    def answers(self) -> pd.DataFrame:
        """The answer to each image, a row each: the columns of the parquet (docs/results.md).

        Raises:
            SpurbenchError: if the parquet beside the JSON is missing or another one.
        """
        import pandas as pd

        return pd.read_parquet(io.BytesIO(self._parquet()))

    def _parquet(self) -> bytes:
        if isinstance(self._answers, bytes):
            return self._answers
        # Of the name only, for the JSON comes from outside.
        file = (self._answers or Path()) / Path(self.predictions).name
        try:
            parquet = read_bytes(file)
        except FileNotFoundError:
            raise SpurbenchError(
                f"{file} is missing; measure again with `spurbench eval`"
            ) from None
        if hashlib.sha256(parquet).hexdigest() != self.predictions_sha256:
            raise SpurbenchError(
                f"{file} is not the one that its result names; measure again with `spurbench eval`"
            )
        return parquet

    @property
    def label(self) -> str:
        """What the classifier is called in tables."""
        return display_name(self.classifier.name, self.classifier.checkpoint)

    def to_frame(self) -> pd.DataFrame:
        """A row for each split and class; shares are fractions in [0, 1] (docs/results.md)."""
        import pandas as pd

        rows = [
            {"split": split, **_flat(c.model_dump())}
            for split, part in self.splits.items()
            for c in part.classes
        ]
        return pd.DataFrame(rows, columns=["split", *FLAT])

    def write(self, path: Path) -> None:
        """Write the JSON, after the parquet beside it where this holds it, each atomically."""
        if isinstance(self._answers, bytes):
            atomic.write_bytes(path.parent / self.predictions, self._answers)
        atomic.write_json(path, self.model_dump(mode="json", by_alias=True))

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read a result.

        Raises:
            SpurbenchError: if the file is missing or isn't a result of this schema.
        """
        try:
            result = cls.model_validate_json(read_bytes(path))
        except (FileNotFoundError, NotADirectoryError):
            raise SpurbenchError(f"no result at {path}; `spurbench eval` writes one") from None
        except ValidationError as error:
            raise SpurbenchError(f"{path} is not a {SCHEMA} result: {describe(error)}") from None
        result._answers = path.parent
        return result

    def __eq__(self, other: object) -> bool:
        """Whether both documents say the same, wherever their parquets are."""
        return isinstance(other, Result) and self.model_dump() == other.model_dump()

    def sheet(self, split: Split) -> Sheet:
        """One split for people: its classes and their macro mean."""
        return result_sheet(self, split)

    def __rich__(self) -> Group:
        from rich.console import Group

        return Group(*self._sheets())

    def __str__(self) -> str:
        return text(self._sheets())

    def __repr__(self) -> str:
        shares = ", ".join(
            f"{split} {100 * part.summary.spurious_accuracy:.1f} %"
            for split, part in self.splits.items()
        )
        said = plain(f"{self.label} on {self.dataset.name}: spurious accuracy {shares}")
        return f"<Result: {said}>"

    def _repr_html_(self) -> str:
        return html(self._sheets())

    def _sheets(self) -> list[Sheet]:
        return [self.sheet(split) for split in self.splits]


_NESTED = {
    "spurious_accuracy_interval": {"low": "low", "high": "high"},
    "with_references": {"share": "with_references", "n": "with_references_n"},
    "object_seen": {"share": "object_seen", "n": "object_seen_n"},
    "recognition": {
        "n": "positives",
        "accuracy": "recognition",
        "interval.low": "recognition_low",
        "interval.high": "recognition_high",
        "auroc": "auroc",
        "auroc_interval.low": "auroc_low",
        "auroc_interval.high": "auroc_high",
        "average_precision": "average_precision",
    },
    "effect": {
        "pairs": "pairs",
        "accuracy": "paired_accuracy",
        "control_accuracy": "control_accuracy",
        "effect": "effect",
        "interval.low": "effect_low",
        "interval.high": "effect_high",
        "p_value": "effect_p_value",
    },
}
"""What of a class's nested numbers is a column of :meth:`Result.to_frame`, and its name."""

FLAT = [
    name
    for field in ClassResult.model_fields
    for name in (_NESTED[field].values() if field in _NESTED else [field])
]


def _flat(numbers: dict[str, Any]) -> dict[str, Any]:
    """A class's numbers without nesting; None where there are none."""
    flat: dict[str, Any] = {}
    for field, value in numbers.items():
        for path, name in _NESTED.get(field, {"": field}).items():
            inner = value
            for key in filter(None, path.split(".")):
                inner = None if inner is None else inner[key]
            flat[name] = inner
    return flat

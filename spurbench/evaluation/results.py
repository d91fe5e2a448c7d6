"""The result of one classifier on one dataset: the JSON that ``spurbench eval`` writes.

Every number is a JSON number, every share a fraction in [0, 1], every interval a 95 % interval.
``schema`` names the version of this layout; readers refuse versions they don't know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spurbench.core import atomic
from spurbench.core.documents import describe
from spurbench.core.errors import SpurbenchError

SCHEMA: Literal["spurbench.result/1"] = "spurbench.result/1"

Share = Annotated[float, Field(ge=0, le=1)]
Split = Literal["real", "generated"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(_Model):
    """A 95 % confidence interval."""

    low: Share
    high: Share


class ClassResult(_Model):
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


class Summary(_Model):
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


class SplitResult(_Model):
    """One split: its summary and its classes in the order of their indices."""

    summary: Summary
    classes: list[ClassResult]


class ClassifierInfo(_Model):
    """Which classifier was measured."""

    spec: str = Field(description="as asked for")
    name: str = Field(
        description="resolved in full, e.g. vit_base_patch16_224.augreg_in21k_ft_in1k"
    )
    source: Literal["timm", "torchvision", "robustbench", "hf-hub", "folder", "mini"]
    architecture: str
    parameters: int
    head: str = Field(description="label space, e.g. imagenet-1k")
    weights_sha256: str = Field(description="over the loaded state dict, not over a file")
    checkpoint: str | None = Field(default=None, description="file name given with --checkpoint")
    training_data: str | None = Field(
        default=None, description="what a local classifier's config.json says of it"
    )


class Preprocessing(_Model):
    """From a decoded RGB image to the classifier's pixels, in this order."""

    mode: Literal["whole", "model"] = Field(
        description="whole: short side to the input size, then centre crop; "
        "model: the classifier's own evaluation transform"
    )
    resize: tuple[int, ...] = Field(description="(short side,) or (height, width), pixels")
    crop: tuple[int, int] = Field(description="centre crop, (height, width), pixels")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class DatasetInfo(_Model):
    """Which images were measured."""

    name: str
    version: str | None = Field(default=None, description="of a dataset that `build` made")
    kind: Literal["folder", "dataset", "hub"]
    fingerprint: str = Field(description="sha256 over the images' hashes, classes and splits")


class Damaged(_Model):
    """An image that could not be read: left out of every number, and named."""

    path: str
    reason: str


class Settings(_Model):
    """What else the numbers depend on."""

    bootstrap_resamples: int
    bootstrap_seed: int


class Result(_Model):
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

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

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

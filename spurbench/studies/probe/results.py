"""What a probe finds: the content of ``probe.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from spurbench.classifiers.info import ClassifierInfo
from spurbench.core import atomic
from spurbench.core.documents import Document, Share, read_json, validated
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import Interval, Rate
from spurbench.images.records import Damaged, DatasetInfo, Split
from spurbench.studies.probe.edits import Aspect

SCHEMA: Literal["spurbench.probe/1"] = "spurbench.probe/1"

FILE, ANSWERS, PICTURE = "probe.json", "probe.parquet", "probe-images"
"""Names of the files of a probe; the picture is an SVG and a PNG."""


class Change(Document):
    """One thing that was done to images."""

    name: str
    title: str
    kind: Literal["edit", "prompt"] = Field(
        description="edit: of the image; prompt: sampled anew from its noise and its generator"
    )
    aspect: Aspect | None = Field(description="what an edit takes away; null of a prompt")
    inside: bool = Field(description="done to the feature alone, in images that have a twin")


class Changed(Document):
    """What one change did to a classifier's answers to the images of a class."""

    change: str
    before: Rate = Field(description="images called the class as they are")
    after: Rate = Field(description="the same images, called the class when changed")
    changed: Rate | None = Field(
        description="of the images called the class as they are, the share that is not when "
        "changed; Wilson's interval. null if none was called so"
    )
    p_value: Share = Field(
        description="McNemar's exact test of before against after, Holm-adjusted for the changes"
    )


class Sensitivity(Document):
    """Mean over images of the share of an aspect's edits that change the answer."""

    share: Share
    interval: Interval = Field(description="percentile bootstrap over images, within each class")


class Sensitive(Document):
    """How much answers hang on each aspect; null: no images."""

    colour: Sensitivity | None
    shape: Sensitivity | None
    texture: Sensitivity | None


class Aspects(Document):
    """What answers hang on, twice: where edits are of the feature alone they say it of the feature.

    Edits of the whole image change all else too; photographs have no others.
    """

    feature: Sensitive | None = Field(
        description="by the edits of the feature alone, over the images that have a mask; null "
        "without any"
    )
    image: Sensitive = Field(description="by the edits of the whole image, over all images")


class ClassProbe(Document):
    """A classifier and a class."""

    index: int
    name: str
    spurious_feature: str | None
    aspects: Aspects
    changes: tuple[Changed, ...]


class MeanChanged(Document):
    """A change, the mean over classes."""

    change: str
    classes: int = Field(ge=1, description="with an image called the class as it is")
    changed: Sensitivity


class SplitProbe(Document):
    """A classifier and a split."""

    aspects: Aspects = Field(description="means over classes")
    means: tuple[MeanChanged, ...]
    classes: tuple[ClassProbe, ...]


class ClassifierProbe(Document):
    """What one classifier answers."""

    classifier: ClassifierInfo
    label: str
    splits: dict[Split, SplitProbe]


class Coverage(Document):
    """Masks of a class's generated images: where they differ from their twins."""

    images: Annotated[int, Field(ge=0)] = Field(description="with a mask")
    mean: Share | None = Field(description="share of the image's pixels in it")


class Probe(Document):
    """The content of ``probe.json``."""

    schema_version: Literal["spurbench.probe/1"] = Field(default=SCHEMA, alias="schema")
    dataset: DatasetInfo = Field(description="all of it, whatever part was probed")
    limit: int | None = Field(description="images of each class and split that were looked at")
    seed: int = Field(description="of what the edits draw")
    changes: tuple[Change, ...]
    masks: dict[str, Coverage] = Field(description="by class name")
    notes: tuple[str, ...] = Field(description="what could not be done, a sentence each")
    classifiers: tuple[ClassifierProbe, ...]
    damaged: tuple[Damaged, ...] = Field(description="images that were left out")
    caption: str = Field(description="of the picture")
    answers_sha256: str = Field(description="of the parquet of raw answers beside this file")
    environment: dict[str, str]

    def write(self, path: Path) -> None:
        """Write it."""
        atomic.write_json(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def read(cls, path: Path) -> Probe:
        """Read a probe.

        Raises:
            SpurbenchError: if the file is missing, or isn't one.
        """
        try:
            return validated(cls, read_json(path), str(path))
        except FileNotFoundError:
            raise SpurbenchError(f"no probe at {path}; `spurbench probe` writes one") from None

"""What a study of mending finds: the content of ``mending.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from spurbench.classifiers.info import ClassifierInfo
from spurbench.core.documents import Document
from spurbench.images.records import DatasetInfo
from spurbench.studies.mending.figures import Figure, Measure
from spurbench.studies.mending.plan import Part, Row

SCHEMA: Literal["spurbench.mending/1"] = "spurbench.mending/1"

Figures = dict[Measure, Figure | None]
"""By measure; None where nothing tells."""


class RowResult(Row):
    """What a row did."""

    after: Figures
    change: Figures = Field(description="after minus before, paired scene by scene")


class Group(Document):
    """A classifier, or the mean over those of a part."""

    name: str
    part: Part
    classifiers: tuple[ClassifierInfo, ...] = Field(min_length=1)
    before: Figures
    rows: tuple[RowResult, ...]

    def row(self, name: str) -> RowResult | None:
        """A row by name; None if there is none."""
        return next((row for row in self.rows if row.name == name), None)


class Goal(Document):
    """What was to be shown."""

    goal: str
    reached: bool | None = Field(description="null where a row or a classifier is missing")
    figures: dict[str, Figure] = Field(description="that tell: by classifier, or one")
    met: tuple[str, ...] = Field(description="names of those figures that meet it")


class Mending(Document):
    """The content of ``mending.json``."""

    schema_version: Literal["spurbench.mending/1"] = Field(default=SCHEMA, alias="schema")
    seed: int = Field(description="of the scenes")
    scenes: int = Field(description="of each class and kind")
    fingerprint: str = Field(description="of the scenes")
    images: DatasetInfo = Field(description="the classes' training images")
    spurious: dict[str, DatasetInfo] = Field(description="by source")
    settings: dict[str, dict[str, Any]] = Field(description="by method")
    means: tuple[Group, ...] = Field(description="of each part, over its classifiers")
    classifiers: tuple[Group, ...]
    goals: tuple[Goal, ...]
    environment: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)

"""What a study of mending compares: classifiers, ways to mend them, and images of what is not the
class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from spurbench.core.documents import Document
from spurbench.core.errors import SpurbenchError
from spurbench.images.sources import open_images
from spurbench.mitigation.training import FineTuning, LastLayer
from spurbench.recipe.load import read_recipe

if TYPE_CHECKING:
    import torch

Method = Literal["spufix", "last-layer", "fine-tune"]
Source = Literal["generated", "real", "doctored"]
Part = Literal["panel", "unseen"]
"""The panel chose the references; the unseen had no part in any image."""


class Row(Document):
    """A way to mend: a row of the tables."""

    name: str
    method: Method
    source: Source | None = Field(
        default=None, description="of images of what is not the class; null: none are taken"
    )
    per_class: int | None = Field(default=None, ge=1, description="such images of a class")

    @classmethod
    def parse(cls, name: str) -> Row:
        """Read ``spufix``, ``METHOD-none`` or ``METHOD-SOURCE-NUMBER``.

        Raises:
            SpurbenchError: if it is none of these.
        """
        found = re.fullmatch(
            r"(spufix)|(last-layer|fine-tune)-(?:none|(generated|real|doctored)-([1-9][0-9]{0,6}))",
            name,
        )
        if found is None:
            raise SpurbenchError(
                f"row {name!r} is not spufix, METHOD-none or METHOD-SOURCE-NUMBER, such as "
                "fine-tune-generated-75 (methods: last-layer, fine-tune; sources: generated, "
                "real, doctored)"
            )
        count = None if found[4] is None else int(found[4])
        return cls.model_validate(
            {
                "name": name,
                "method": found[1] or found[2],
                "source": found[3],
                "per_class": count,
            }
        )


COUNTS = (75, 150, 300, 600, 1200)
"""Generated images of a class: the curve."""

ROWS = (
    "spufix",
    *(
        f"{method}-{source}"
        for method in ("last-layer", "fine-tune")
        for source in (
            "none",
            "real-75",
            "doctored-75",
            "doctored-1200",
            *(f"generated-{count}" for count in COUNTS),
        )
    ),
)


@dataclass(frozen=True)
class MendingRequest:
    """What to mend, and where.

    Attributes:
        panel: SPECs of classifiers that chose the references.
        unseen: of those that had no part in any image.
        rows: ways to mend.
        images: the classes' own training images, in ImageNet's layout.
        data: dataset of ``spurbench build``; its splits are what is not the class.
        discovery: folder of ``spurbench discover``, for ``spufix``.
        pairs: ``classes.toml`` that names its spurious components.
        scenes: of each class and kind that are measured.
        seed: of these scenes.
        output: folder of mended classifiers, answers and results.
        device: where classifiers run.
        last_layer: settings.
        fine_tuning: settings.
    """

    panel: Sequence[str]
    unseen: Sequence[str]
    rows: Sequence[Row]
    images: Path
    data: str
    discovery: Path | None
    pairs: Path | None
    scenes: int
    seed: int
    output: Path
    device: torch.device
    last_layer: LastLayer = field(default_factory=LastLayer)
    fine_tuning: FineTuning = field(default_factory=FineTuning)

    @property
    def parts(self) -> dict[str, Part]:
        """SPEC to part."""
        return {**dict.fromkeys(self.panel, "panel"), **dict.fromkeys(self.unseen, "unseen")}

    def settings(self, method: Method) -> LastLayer | FineTuning | None:
        """Of a method; None of one that trains nothing."""
        match method:
            case "last-layer":
                return self.last_layer
            case "fine-tune":
                return self.fine_tuning
        return None

    def require(self) -> None:
        """Refuse what would fail after hours.

        Raises:
            SpurbenchError: if a classifier is named twice, ``spufix`` lacks its components, or
                there are fewer images of a class than a row asks for.
        """
        specs = [*self.panel, *self.unseen]
        twice = [spec for spec in specs if specs.count(spec) > 1]
        if twice:
            raise SpurbenchError(f"classifier {twice[0]} is asked for twice")
        if any(row.method == "spufix" for row in self.rows) and not (self.discovery and self.pairs):
            raise SpurbenchError(
                "row spufix needs --discovery and --pairs: which components are spurious; or "
                "name the other --rows"
            )
        for source in ("generated", "real"):
            rows = [row for row in self.rows if row.source == source]
            if rows:
                self._require_images(source, max(rows, key=lambda row: row.per_class or 0))

    def _require_images(self, source: Literal["generated", "real"], row: Row) -> None:
        counts: dict[str, int] = {}
        for record in open_images(self.data, source, decode=False).records:
            free = record.object_absent is not False
            counts[record.class_name] = counts.get(record.class_name, 0) + free
        fewest = min(counts, key=counts.__getitem__)
        if counts[fewest] < (row.per_class or 0):
            raise SpurbenchError(
                f"{self.data} has {counts[fewest]} object-free {source} images of {fewest}, and "
                f"row {row.name} takes {row.per_class}; build with more (--set sample.images=...) "
                "or name other --rows"
            )


def embedded_panel() -> tuple[str, ...]:
    """SPECs of the mini world's panel."""
    return tuple(read_recipe("mini").panel.classifiers)

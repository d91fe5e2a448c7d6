"""What an ablation varies, and what it measures."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError, model_validator

from spurbench.core.documents import Document, describe
from spurbench.core.errors import SpurbenchError
from spurbench.core.resources import builder_folder
from spurbench.recipe.classes import SpuriousClass

if TYPE_CHECKING:
    import torch

#: measure -> (heading, what it is); shares but for the last two.
MEASURES = {
    "spurious_accuracy": ("spurious accuracy", "images called the class, mean over the panel"),
    "consistently_spurious": ("consistently spurious", "images that the whole panel calls so"),
    "object_absent": ("object absent", "to the object detector"),
    "feature_present": ("feature present", "to the same"),
    "copying": ("copying", "nearer to a reference than references typically are to each other"),
    "near_copies": ("near copies", "nearer to one than any real image not trained on"),
    "diversity": ("diversity", "mean pairwise cosine distance"),
    "seconds": ("seconds", "prior, fine-tuning and sampling of a class"),
}


#: what part a classifier had in the images -> how the tables call such classifiers.
PARTS = {
    "phi": "phi of the similarity loss",
    "panel": "rest of the panel, which chose the references",
    "unseen": "no part in the images",
}


Measured = dict[str, float | None]


class Variation(Document):
    """One variation of the recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str
    overrides: tuple[str, ...] = Field(default=(), alias="set", description="as `build --set`")


class Plan(Document):
    """What ``ablation.toml`` beside a ``recipe.toml`` holds."""

    baseline: str = Field(description="the row that the others are compared with, seed by seed")
    rows: tuple[Variation, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> Plan:
        names = [row.name for row in self.rows]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"row {min(twice)!r} is there twice")
        if self.baseline not in names:
            raise ValueError(f"baseline {self.baseline!r} is none of the rows")
        return self


@dataclass(frozen=True)
class AblationRequest:
    """What to vary, and where.

    Attributes:
        recipe: name or folder; it holds ``ablation.toml`` too.
        plan: the rows.
        overrides: of the recipe, for every row; a row's own come after.
        classes: for which pairs.
        data: as in :class:`spurbench.build.build.BuildRequest`.
        seeds: global seeds, each a build of every row.
        output: folder of datasets and results.
        device: where the models run.
        unseen: classifiers that had no part in the images and are measured on them too, as in
            :func:`spurbench.evaluation.panel.load_member`.
    """

    recipe: str
    plan: Plan
    overrides: tuple[str, ...]
    classes: Sequence[SpuriousClass]
    data: Path | None
    seeds: Sequence[int]
    output: Path
    device: torch.device
    unseen: Sequence[str] = ()


def read_plan(recipe: str, wanted: Sequence[str] = ()) -> Plan:
    """The rows in a recipe's ``ablation.toml``.

    Args:
        recipe: name or folder of the recipe.
        wanted: names of rows; none: all. The baseline is always among them.

    Raises:
        SpurbenchError: if there is no such file, it is wrong, or a row is unknown.
    """
    path = builder_folder(recipe) / "ablation.toml"
    try:
        plan = Plan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise SpurbenchError(f"recipe {recipe!r} has no ablation.toml; see builders/mini") from None
    except tomllib.TOMLDecodeError as error:
        raise SpurbenchError(f"{path} is not valid TOML: {error}") from None
    except ValidationError as error:
        raise SpurbenchError(f"{path}: {describe(error)}") from None
    names = [row.name for row in plan.rows]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise SpurbenchError(f"no row {unknown[0]!r} in {path}; rows: {', '.join(names)}")
    rows = [row for row in plan.rows if not wanted or row.name in {*wanted, plan.baseline}]
    return plan.model_copy(update={"rows": tuple(rows)})

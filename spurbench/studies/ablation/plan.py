"""What an ablation varies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError
from spurbench.core.resources import builder_folder
from spurbench.recipe.classes import SpuriousClass

if TYPE_CHECKING:
    import torch


class Variation(Document):
    """One variation of the recipe."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str
    overrides: tuple[str, ...] = Field(
        default=(), validation_alias="set", description="as `build --set`"
    )


class AblationPlan(Document):
    """What ``ablation.toml`` beside a ``recipe.toml`` holds."""

    baseline: str = Field(description="the row that the others are compared with, seed by seed")
    variations: tuple[Variation, ...] = Field(min_length=1, validation_alias="rows")

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> AblationPlan:
        names = [variation.name for variation in self.variations]
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
        plan: the variations, a row of the tables each.
        overrides: of the recipe, for every variation; its own come after.
        classes: for which pairs.
        data: as in :class:`spurbench.build.request.BuildRequest`.
        seeds: global seeds, each a build of every variation.
        output: folder of datasets and results.
        device: where the models run.
        unseen: classifiers that had no part in the images and are measured on them too, as in
            :func:`spurbench.evaluation.panel.load_member`.
    """

    recipe: str
    plan: AblationPlan
    overrides: tuple[str, ...]
    classes: Sequence[SpuriousClass]
    data: Path | None
    seeds: Sequence[int]
    output: Path
    device: torch.device
    unseen: Sequence[str] = ()


def read_plan(recipe: str, wanted: Sequence[str] = ()) -> AblationPlan:
    """The variations in a recipe's ``ablation.toml``.

    Args:
        recipe: name or folder of the recipe.
        wanted: names of rows; none: all. The baseline is always among them.

    Raises:
        SpurbenchError: if there is no such file, it is wrong, or a row is unknown.
    """
    path = builder_folder(recipe) / "ablation.toml"
    try:
        plan = validated(AblationPlan, read_toml(path), str(path))
    except FileNotFoundError:
        raise SpurbenchError(f"recipe {recipe!r} has no ablation.toml; see builders/mini") from None
    names = [variation.name for variation in plan.variations]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise SpurbenchError(f"no row {unknown[0]!r} in {path}; rows: {', '.join(names)}")
    chosen = {*(wanted or names), plan.baseline}
    variations = tuple(v for v in plan.variations if v.name in chosen)
    return plan.model_copy(update={"variations": variations})

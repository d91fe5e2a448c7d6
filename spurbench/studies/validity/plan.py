"""What a validity study compares: the rows of ``validity.toml``, and a request for some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from spurbench.classifiers.folder import CONFIG
from spurbench.core.documents import Document, Share, read_toml, validated
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.core.resources import builder_folder, builders
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.load import read_recipe

if TYPE_CHECKING:
    import torch

FILE = "validity.toml"

Kind = Literal["real", "references", "doctored", "build", "prior"]

PRIOR = "prior"
"""What the images are called that every making has as controls."""


class Making(Document):
    """A way of making a test set: a row of the tables."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    description: str
    kind: Kind = Field(
        default="build",
        description="real: the recipe's real images but the references; references: these; "
        "doctored: these, changed a little, `sample.images` of a class; build: generated; prior: "
        "of the generic kind, for controls alone",
    )
    overrides: tuple[str, ...] = Field(
        default=(),
        validation_alias="set",
        description="as `build --set`; {zoo} is the folder of the world's zoo",
    )
    generators: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="independently fine-tuned, as `build --replicates`"
    )


class Search(Document):
    """The search for a loss: other rows, on classes of their own."""

    world: str = Field(description="in which it is done; there its classes are not reported on")
    classes: tuple[str, ...] = Field(min_length=1, description="names")
    images: Annotated[int, Field(ge=1, le=10_000)] = Field(description="of each class")
    object_free: Share = Field(description="least share of images that show no object")
    novelty: Share = Field(description="least share of images that are no copies")
    tie: float = Field(ge=0, description="taus so near to the best are as good")
    rows: tuple[Making, ...] = Field(min_length=1)


class ValidityPlan(Document):
    """What ``validity.toml`` beside a ``recipe.toml`` holds."""

    baselines: tuple[str, ...] = Field(description="rows that the others are compared with")
    rows: tuple[Making, ...] = Field(min_length=1)
    search: Search

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> ValidityPlan:
        every = (*self.rows, *self.search.rows)
        names = [row.name for row in every]
        if PRIOR in (*names, *(row.kind for row in every)):
            raise ValueError(f"no row can be {PRIOR!r}; every row has these images as controls")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"row {min(twice)!r} is there twice")
        for name in self.baselines:
            if name not in names:
                raise ValueError(f"baseline {name!r} is none of the rows")
        return self

    def select(self, wanted: Sequence[str], *, search: bool) -> tuple[Making, ...]:
        """The rows of these names, in the plan's order.

        Args:
            wanted: names; none: all, of the search if that is asked for, else of the others.
            search: see there.

        Raises:
            SpurbenchError: if a row is unknown.
        """
        every = (*self.rows, *self.search.rows)
        names = [row.name for row in every]
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise SpurbenchError(f"no row {unknown[0]!r} in {FILE}; rows: {', '.join(names)}")
        if not wanted:
            return self.search.rows if search else self.rows
        return tuple(row for row in every if row.name in wanted)


def read_plan(recipe: str) -> ValidityPlan:
    """The ``validity.toml`` of a recipe.

    Raises:
        SpurbenchError: if there is no such file, or it is wrong.
    """
    path = builder_folder(recipe) / FILE
    try:
        return validated(ValidityPlan, read_toml(path), str(path))
    except FileNotFoundError:
        raise SpurbenchError(f"recipe {recipe!r} has no {FILE}; see builders/mini") from None


@dataclass(frozen=True)
class World:
    """A planted world: a recipe with its own models, classifiers and truth.

    Attributes:
        name: of an embedded recipe, or of the recipe's folder.
        recipe: name or folder.
        zoo: folders of the classifiers that are measured, by name.
        truth: file of ``spurbench mini reliance``.
        classes: that are measured.
    """

    name: str
    recipe: str
    zoo: Sequence[Path]
    truth: Path
    classes: Sequence[SpuriousClass]


@dataclass(frozen=True)
class ValidityRequest:
    """What to compare, and where.

    Attributes:
        worlds: with their classifiers.
        rows: ways of making a test set.
        baselines: names of rows that the others are compared with, if they are among them.
        search: the rule of the search for a loss, if this is one.
        overrides: of the recipe, for every row; a row's own come after.
        seeds: global seeds, each a making of every row in every world.
        output: folder of datasets, answers and results.
        device: where the models run.
    """

    worlds: Sequence[World]
    rows: Sequence[Making]
    baselines: Sequence[str]
    search: Search | None
    overrides: tuple[str, ...]
    seeds: Sequence[int]
    output: Path
    device: torch.device

    @classmethod
    def of(
        cls,
        recipes: Sequence[str],
        *,
        zoos: Sequence[Path] = (),
        truths: Sequence[Path] = (),
        rows: Sequence[str] = (),
        search: bool = False,
        classes: str | None = None,
        overrides: Sequence[str] = (),
        seeds: int | None = None,
        output: Path | None = None,
        device: str = "auto",
    ) -> ValidityRequest:
        """A request in the words of people.

        Args:
            recipes: of the worlds; the first's ``validity.toml`` is the plan.
            zoos: of each world; none: its folder ``zoo``, of an embedded one ``out/zoo``.
            truths: of each world; none: ``reliance.json`` beside the zoo.
            rows: names; none: all.
            search: for a loss.
            classes: as ``build`` takes them; None: those of the search, or in its world all others,
                and all of other worlds.
            overrides: of every row.
            seeds: how many; None: 3, of a search 1.
            output: None: ``out/validity``, of a search ``out/validity-search``.
            device: where the models run, as ``--device``.

        Raises:
            SpurbenchError: if a world, its zoo, its truth, a row or the device is not there, or
                there are others than worlds.
        """
        plan = read_plan(recipes[0])
        chosen = plan.select(rows, search=search)
        for what, given in (("--zoo", zoos), ("--truth", truths)):
            if given and len(given) != len(recipes):
                raise SpurbenchError(
                    f"{len(given)} times {what} for {len(recipes)} worlds; give one for each "
                    "--recipe, in their order"
                )
        worlds = []
        for position, recipe in enumerate(recipes):
            name = recipe if recipe in builders() else Path(recipe).resolve().name
            beside = Path("out/zoo") if recipe in builders() else Path(recipe) / "zoo"
            zoo = zoos[position] if zoos else beside
            truth = truths[position] if truths else zoo.parent / "reliance.json"
            of_search = plan.search if name == plan.search.world else None
            worlds.append(
                World(
                    name=name,
                    recipe=recipe,
                    zoo=_classifiers(zoo),
                    truth=_existing(truth),
                    classes=_classes(recipe, classes, plan.search if search else None, of_search),
                )
            )
        names = [world.name for world in worlds]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise SpurbenchError(f"two worlds are called {min(twice)!r}; rename the folder of one")
        sized = (f"sample.images={plan.search.images}",) if search else ()
        return cls(
            worlds=worlds,
            rows=chosen,
            baselines=[name for name in plan.baselines if name in {row.name for row in chosen}],
            search=plan.search if search else None,
            overrides=(*sized, *overrides),
            seeds=range(seeds or (1 if search else 3)),
            output=output or Path("out") / ("validity-search" if search else "validity"),
            device=choose_device(device),
        )


def _classes(
    recipe: str, wanted: str | None, search: Search | None, of_search: Search | None
) -> tuple[SpuriousClass, ...]:
    """Those that are named, or those of the search, or all but those that were chosen on."""
    registry = read_recipe(recipe).classes
    if wanted is not None:
        return registry.select(wanted)
    if search is not None:
        return registry.select(",".join(search.classes))
    chosen_on = of_search.classes if of_search else ()
    return tuple(c for c in registry if c.name not in chosen_on)


def _classifiers(zoo: Path) -> list[Path]:
    found = sorted(path.parent for path in zoo.glob(f"*/{CONFIG}"))
    if len(found) < 2:
        raise SpurbenchError(
            f"{len(found)} classifiers in {zoo}, and at least 2 are compared; make them with "
            "`spurbench mini zoo`, or name their folder with --zoo"
        )
    return found


def _existing(truth: Path) -> Path:
    if not truth.is_file():
        raise SpurbenchError(
            f"no truth at {truth}; make it with `spurbench mini reliance`, or name it with --truth"
        )
    return truth

"""All answers of a study as arrays: estimates of reliance, and measures of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spurbench.studies.validity.answers import Collected, Key
from spurbench.studies.validity.growth import Pair
from spurbench.studies.validity.plan import PRIOR
from spurbench.studies.validity.results import ROLES, Control

Values = NDArray[np.float64]
Cell = tuple[int, int]
"""Positions of a world and a seed."""

RELIANT = 0.1
"""Mean reliance from which a classifier of the zoo counts as biased."""


@dataclass(frozen=True)
class Place:
    """A world, as far as figures need it.

    Attributes:
        name: of the world.
        classes: indices.
        panel: names of classifiers.
        zoo: likewise.
        truth: (C, K), of the zoo.
    """

    name: str
    classes: Sequence[int]
    panel: Sequence[str]
    zoo: Sequence[str]
    truth: Values


@dataclass(frozen=True)
class Table:
    """Answers by world, seed and making."""

    places: Sequence[Place]
    seeds: Sequence[int]
    collected: Mapping[Key, Collected]

    def at(self, world: int, seed: int, making: str) -> Collected:
        """The answers to a making, by the positions of world and seed."""
        return self.collected[Key(self.places[world].name, making, self.seeds[seed])]

    @cached_property
    def cells(self) -> list[Cell]:
        """All of them."""
        return [(w, s) for w in range(len(self.places)) for s in range(len(self.seeds))]

    def pairs(self, making: str, control: Control) -> dict[Cell, list[Pair]] | None:
        """Answers of the zoo to the images of each class and to their controls.

        Returns:
            By world and seed; None if there are no such controls of some class, or it has no
            images.
        """
        found = {}
        for world, seed in self.cells:
            pairs = [
                self._pair(world, seed, making, control, index)
                for index in self.places[world].classes
            ]
            known = [pair for pair in pairs if pair is not None]
            if len(known) < len(pairs):
                return None
            found[world, seed] = known
        return found

    def _pair(
        self, world: int, seed: int, making: str, control: Control, class_index: int
    ) -> Pair | None:
        own, zoo = self.at(world, seed, making), self.places[world].zoo
        images = own.of(class_index, "image", zoo)
        if images is None or control == "none":
            return None if images is None else (images, None)
        shown = self.at(world, seed, PRIOR) if control == "prior" else own
        controls = shown.of(class_index, ROLES[control], zoo)
        return None if controls is None else (images, controls)

    def measures(self, making: str, world: int, seed: int) -> dict[str, Values]:
        """By name, (K,) each; NaN where nothing tells."""
        place, own = self.places[world], self.at(world, seed, making)
        reliant = [
            name
            for name, mean in zip(place.zoo, place.truth.mean(axis=1), strict=True)
            if mean >= RELIANT
        ]
        rows = []
        for index in place.classes:
            places = own.places(index, "image")
            shown = [own.images[p] for p in places]
            panel, zoo = (
                own.of(index, "image", names) if names else None for names in (place.panel, reliant)
            )
            rows.append(
                {
                    "spurious_accuracy": np.nan if panel is None else panel.hit.mean(),
                    "spurious_accuracy_zoo": np.nan if zoo is None else zoo.hit.mean(),
                    "consistently_spurious": np.nan
                    if panel is None
                    else panel.hit.all(axis=0).mean(),
                    "object_free": _share([one.object_absent for one in shown]),
                    "feature_present": _share([one.feature_present for one in shown]),
                    "novelty": _share([one.novel for one in shown]),
                    "diversity": own.notes["diversity"].get(index, np.nan),
                    "seconds": own.notes["seconds"].get(index, np.nan),
                }
            )
        return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}


def _share(values: Sequence[bool | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else np.nan

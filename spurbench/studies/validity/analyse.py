"""From answers and the truth to every figure of the study; nothing else is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spurbench.studies.validity import growth
from spurbench.studies.validity.agreement import STATISTICS, Statistic
from spurbench.studies.validity.bootstrap import Draws, interval
from spurbench.studies.validity.estimators import ESTIMATORS, Estimator
from spurbench.studies.validity.growth import Pair
from spurbench.studies.validity.plan import Making
from spurbench.studies.validity.results import (
    CONTROLS,
    MEASURES,
    Agreement,
    Control,
    Figure,
    MakingResult,
    SplitHalf,
)
from spurbench.studies.validity.table import Cell, Table
from spurbench.studies.validity.truth import Kind as TruthKind

Values = NDArray[np.float64]
Cells = Mapping[Cell, Values]
Which = tuple[str, Control, Estimator]
"""A making, what it is controlled by, and how reliance is estimated."""
Resampled = tuple[float, Values]
"""A figure and its draws."""

GROWING: tuple[Estimator, ...] = ("accuracy", "effect", "log-odds effect")
"""Estimators whose growth is worked out."""

CHOICES = 20
"""Of images, in each world and seed, for the growth and for halves."""


@dataclass(frozen=True)
class Analysis:
    """What figures are worked out from.

    Attributes:
        table: the answers.
        draws: the same for every figure.
        other_truths: beside the truth, (C, K) of each world.
    """

    table: Table
    draws: Draws
    other_truths: Mapping[TruthKind, Sequence[Values]]

    def rows(self, makings: Sequence[Making], baselines: Sequence[str]) -> list[MakingResult]:
        """Every figure of every making.

        Args:
            makings: that were collected.
            baselines: names of those that the others are compared with.
        """
        estimates: dict[Which, Cells] = {}
        beside: dict[Which, dict[str, Any]] = {}
        for making in makings:
            for control in CONTROLS:
                pairs = self.table.pairs(making.name, control) or {}
                for estimator in ESTIMATORS:
                    found = _estimates(estimator, pairs)
                    if found is not None:
                        key = making.name, control, estimator
                        estimates[key] = found
                        beside[key] = self._beside(making, estimator, pairs, found)
        figures = {key: self._figures(found) for key, found in estimates.items()}
        measures = {making.name: self._measures(making.name) for making in makings}
        return [
            MakingResult(
                **making.model_dump(),
                images=self._images(making.name),
                measures={
                    **{name: _figure(*of) for name, of in measures[making.name].items()},
                    "seed_range": self._seed_range(making.name),
                },
                measures_against={
                    name: _differences(measures[making.name], measures[name])
                    for name in baselines
                    if name != making.name
                },
                agreement=tuple(
                    Agreement(
                        control=control,
                        estimator=estimator,
                        figures={name: _figure(*of) for name, of in figures[key].items()},
                        against={
                            label: _differences(figures[key], figures[other])
                            for label, other in _compared(key, baselines)
                            if other in figures
                        },
                        other_truths={
                            kind: self._points(found, truths)
                            for kind, truths in self.other_truths.items()
                        },
                        measured=float(
                            np.mean([np.isfinite(e).all(axis=0).mean() for e in found.values()])
                        ),
                        **beside[key],
                    )
                    for key, found in estimates.items()
                    for name, control, estimator in [key]
                    if name == making.name
                ),
            )
            for making in makings
        ]

    def _figures(self, found: Cells) -> dict[str, Resampled]:
        def of(statistic: Statistic) -> Callable[[int, int, Values], Values]:
            return lambda w, s, counts: statistic(self.table.places[w].truth, found[w, s], counts)

        return {name: self.draws.figure(of(statistic)) for name, statistic in STATISTICS.items()}

    def _points(self, found: Cells, truths: Sequence[Values]) -> dict[str, float | None]:
        """Figures without draws, over other truths."""
        return {
            name: _known(
                _mean(
                    float(statistic(truths[w], told, np.ones((1, told.shape[1])))[0])
                    for (w, _), told in found.items()
                )
            )
            for name, statistic in STATISTICS.items()
        }

    def _measures(self, making: str) -> dict[str, Resampled]:
        cells = {cell: self.table.measures(making, *cell) for cell in self.table.cells}

        def mean(name: str) -> Callable[[int, int, Values], Values]:
            def of(world: int, seed: int, counts: Values) -> Values:
                values = cells[world, seed][name]
                weights = counts * np.isfinite(values)
                with np.errstate(invalid="ignore"):
                    means: Values = weights @ np.nan_to_num(values) / weights.sum(axis=1)
                return means

            return of

        names = [name for name in MEASURES if name != "seed_range"]
        return {name: self.draws.figure(mean(name)) for name in names}

    def _images(self, making: str) -> int:
        return min(
            len(self.table.at(w, s, making).places(index, "image"))
            for w, s in self.table.cells
            for index in self.table.places[w].classes
        )

    def _seed_range(self, making: str) -> Figure:
        """Without an interval: it is a range already."""
        seeds = range(len(self.table.seeds))
        if len(seeds) < 2:
            return Figure(value=None)
        ranges = []
        for world in range(len(self.table.places)):
            shares = [self.table.measures(making, world, s)["spurious_accuracy"] for s in seeds]
            ranges.append(np.ptp(shares, axis=0).max())
        return Figure(value=_known(float(np.max(ranges))))

    def _beside(
        self,
        making: Making,
        estimator: Estimator,
        pairs: Mapping[Cell, Sequence[Pair]],
        found: Cells,
    ) -> dict[str, Any]:
        """What needs the answers themselves: halves and growth."""
        truths = {cell: self.table.places[cell[0]].truth for cell in pairs}
        growing = pairs if estimator in GROWING else {}
        return {
            "split_half": self._split_half(making, estimator, pairs, found),
            "images": _means(
                [
                    growth.by_images(estimator, truths[cell], own, draws=CHOICES, seed=0)
                    for cell, own in growing.items()
                ]
            ),
            "generators": _means(
                [growth.by_generators(estimator, truths[cell], own) for cell, own in pairs.items()]
            ),
        }

    def _split_half(
        self,
        making: Making,
        estimator: Estimator,
        pairs: Mapping[Cell, Sequence[Pair]],
        found: Cells,
    ) -> SplitHalf | None:
        halves: list[tuple[Values, Values]] = []
        if making.kind in ("real", "references"):
            for classes in pairs.values():
                if all(images.count > 1 for images, _ in classes):
                    halves += growth.halves(estimator, classes, draws=CHOICES, seed=0)
        else:
            for world in range(len(self.table.places)):
                own = [found[world, s] for s in range(len(self.table.seeds))]
                halves += combinations(own, 2)
        agreed = growth.agreement(halves)
        return agreed and SplitHalf(tau=_known(agreed[0]), difference=_known(agreed[1]))


def _estimates(
    estimator: Estimator, pairs: Mapping[Cell, Sequence[Pair]]
) -> dict[Cell, Values] | None:
    """By world and seed, (C, K) each; None where the estimator is none with such controls."""
    found = {cell: growth.estimates(estimator, own) for cell, own in pairs.items()}
    known = {cell: values for cell, values in found.items() if values is not None}
    return known or None


def _compared(key: Which, baselines: Sequence[str]) -> Iterator[tuple[str, Which]]:
    """By label what a figure of a making is compared with."""
    making, _, estimator = key
    for name in baselines:
        if name == making:
            continue
        if estimator != "accuracy":
            yield name, (name, "prior", estimator)
        yield f"{name}, accuracy", (name, "none", "accuracy")


def _differences(
    figures: Mapping[str, Resampled], others: Mapping[str, Resampled]
) -> dict[str, Figure]:
    """Paired: both were drawn together."""
    return {
        name: _figure(value - others[name][0], drawn - others[name][1])
        for name, (value, drawn) in figures.items()
    }


def _figure(value: float, drawn: Values) -> Figure:
    low, high = interval(drawn) or (None, None)
    known = _known(value)
    return Figure(value=known, low=low, high=high) if known is not None else Figure(value=None)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _mean(values: Iterator[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _means(found: Sequence[Mapping[int, float]]) -> dict[int, float | None]:
    """Over worlds and seeds, of what all of them have."""
    keys = [key for key in found[0] if all(key in other for other in found)] if found else []
    return {key: _known(_mean(one[key] for one in found)) for key in keys}

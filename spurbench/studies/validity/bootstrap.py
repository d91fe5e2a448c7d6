"""Percentile bootstrap over worlds, then seeds within a world, then classes.

Classifiers are kept. A figure is worked out once for each choice of classes that any draw makes, so
that a draw is no more than a look into a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

MOST = 0.95
"""Share of the draws that must tell something, for an interval."""


class Draws:
    """The same draws for every figure, so that differences are paired.

    Attributes:
        counts: of each world (U, K): how often each class is in each of the choices that are drawn;
            the first is every class once.
    """

    def __init__(self, seeds: int, classes: Sequence[int], *, draws: int, seed: int) -> None:
        """Draw.

        Args:
            seeds: in every world.
            classes: how many each world has.
            draws: how many times.
            seed: of the random numbers.
        """
        rng = np.random.default_rng(seed)
        worlds = len(classes)
        self._worlds = rng.integers(worlds, size=(draws, worlds))
        self._seeds = rng.integers(seeds, size=(draws, worlds, seeds))
        self._choices = np.zeros((draws, worlds), np.int64)
        self.counts: list[Values] = []
        for world, count in enumerate(classes):
            chosen = rng.integers(count, size=(draws, worlds, count))
            often = np.stack([(chosen == k).sum(axis=-1) for k in range(count)], axis=-1)
            every = np.vstack([np.ones((1, count), np.int64), often.reshape(-1, count)])
            _, first, where = np.unique(every, axis=0, return_index=True, return_inverse=True)
            # In the order in which they are met, so that the first is every class once.
            order = np.argsort(first)
            place = np.argsort(order)[where.reshape(-1)][1:].reshape(draws, worlds)
            self.counts.append(every[np.sort(first)].astype(np.float64))
            self._choices = np.where(self._worlds == world, place, self._choices)

    def figure(self, statistic: Callable[[int, int, Values], Values]) -> tuple[float, Values]:
        """A figure and its resampled values.

        Args:
            statistic: of a world, a seed and choices of classes (U, K); (U,), NaN where it can't be
                told, which is left out of means.

        Returns:
            The mean over worlds of the mean over seeds, and the same of each draw, (draws,).
        """
        worlds, seeds = len(self.counts), self._seeds.shape[2]
        most = max(map(len, self.counts))
        table = np.full((worlds, seeds, most), np.nan)
        for world, counts in enumerate(self.counts):
            for seed in range(seeds):
                table[world, seed, : len(counts)] = statistic(world, seed, counts)
        drawn = table[self._worlds[:, :, None], self._seeds, self._choices[:, :, None]]
        return float(_mean(_mean(table[:, :, 0]))), _mean(_mean(drawn))


def _mean(values: Values) -> Values:
    """Over the last axis, of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        means: Values = np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)
    return means


def interval(drawn: Values) -> tuple[float, float] | None:
    """The 95 % percentile interval of resampled values.

    None if more than a few of them can't be told: the others would be a choice of their own.
    """
    known = drawn[np.isfinite(drawn)]
    if len(known) < MOST * len(drawn):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)

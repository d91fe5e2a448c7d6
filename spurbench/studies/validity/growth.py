"""What more images and more generators are worth, and how well two makings agree.

Agreement is Kendall's tau-b over pairs of classifier and class, of one world and one seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from spurbench.studies.validity.agreement import tau_of_pairs
from spurbench.studies.validity.estimators import Answers, Estimator, estimate

Values = NDArray[np.float64]

SIZES = (5, 10, 25, 50, 75)
"""Images of a class."""

Pair = tuple[Answers, Answers | None]
"""Answers to the images of a class, and to their controls."""

Choose = Callable[[Pair, np.random.Generator], Pair]


def estimates(estimator: Estimator, classes: Sequence[Pair]) -> Values | None:
    """Of each class: (C, K); None where the estimator is none, see :func:`estimate`."""
    columns = [estimate(estimator, *pair) for pair in classes]
    known = [column for column in columns if column is not None]
    return np.stack(known, axis=1) if known else None


def tau(truth: Values, told: Values) -> float:
    """Over pairs; NaN where it can't be told."""
    return float(tau_of_pairs(truth, told, np.ones((1, truth.shape[1])))[0])


def by_images(
    estimator: Estimator, truth: Values, classes: Sequence[Pair], *, draws: int, seed: int
) -> dict[int, float]:
    """Mean tau by the number of images a class, as far as each class has so many.

    Args:
        estimator: which.
        truth: (C, K).
        classes: K pairs.
        draws: choices of images, each without replacement and with its own controls.
        seed: of the choices.
    """
    least = min(images.count for images, _ in classes)
    return {
        size: _mean_tau(estimator, truth, classes, _images(size), draws, seed)
        for size in SIZES
        if size <= least
    }


def by_generators(estimator: Estimator, truth: Values, classes: Sequence[Pair]) -> dict[int, float]:
    """Mean tau over all choices of so many generators with their images; none for one alone."""
    generators = np.unique(classes[0][0].generator)
    found: dict[int, float] = {}
    for count in range(1, len(generators) + 1) if len(generators) > 1 else ():
        taus = [
            _tau_of(estimator, truth, [_of_generators(pair, chosen) for pair in classes])
            for chosen in combinations(generators, count)
        ]
        found[count] = float(np.mean(taus))
    return found


def halves(
    estimator: Estimator, classes: Sequence[Pair], *, draws: int, seed: int
) -> list[tuple[Values, Values]]:
    """Estimates from two halves of the images of each class, (C, K) both; of several choices."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        split = [_halved(pair, rng) for pair in classes]
        one, other = (estimates(estimator, [pair[side] for pair in split]) for side in (0, 1))
        if one is not None and other is not None:
            found.append((one, other))
    return found


def agreement(pairs: Sequence[tuple[Values, Values]]) -> tuple[float, float] | None:
    """Mean tau between two makings, and the mean absolute difference of their estimates.

    Args:
        pairs: of estimates (C, K).

    Returns:
        NaN where a pair has no class that both tell of; None without any.
    """
    if not pairs:
        return None
    taus, apart = [], []
    for one, other in pairs:
        told = np.isfinite(one).all(axis=0) & np.isfinite(other).all(axis=0)
        if not told.any():
            return np.nan, np.nan
        taus.append(tau(one[:, told], other[:, told]))
        apart.append(float(np.abs(one - other)[:, told].mean()))
    return float(np.mean(taus)), float(np.mean(apart))


def _mean_tau(
    estimator: Estimator,
    truth: Values,
    classes: Sequence[Pair],
    choose: Choose,
    draws: int,
    seed: int,
) -> float:
    rng = np.random.default_rng(seed)
    taus = [
        _tau_of(estimator, truth, [choose(pair, rng) for pair in classes]) for _ in range(draws)
    ]
    return float(np.mean(taus))


def _tau_of(estimator: Estimator, truth: Values, classes: Sequence[Pair]) -> float:
    told = estimates(estimator, classes)
    assert told is not None, "asked for with the controls that the estimator takes"
    return tau(truth, told)


def _images(size: int) -> Choose:
    def choose(pair: Pair, rng: np.random.Generator) -> Pair:
        return _with_controls(pair, rng.permutation(pair[0].count)[:size], rng)

    return choose


def _halved(pair: Pair, rng: np.random.Generator) -> tuple[Pair, Pair]:
    order = rng.permutation(pair[0].count)
    half = len(order) // 2
    one, other = (
        _with_controls(pair, part, rng) for part in (order[:half], order[half : 2 * half])
    )
    return one, other


def _of_generators(pair: Pair, chosen: Sequence[np.int64]) -> Pair:
    """The images of some generators, and their controls."""
    positions = np.flatnonzero(np.isin(pair[0].generator, chosen))
    return _with_controls(pair, positions, np.random.default_rng(0))


def _with_controls(pair: Pair, positions: NDArray[np.int64], rng: np.random.Generator) -> Pair:
    """Some of the images, and their twins; of controls that are no twins as many, at random."""
    images, controls = pair
    if controls is None:
        return images.take(positions), None
    if (controls.image >= 0).all():
        chosen = np.flatnonzero(np.isin(controls.image, positions))
    else:
        chosen = rng.permutation(controls.count)[: len(positions)]
    return images.take(positions), controls.take(chosen)

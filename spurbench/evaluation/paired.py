"""Classifiers compared on the same images: paired tests, and which of them are tied.

Pure functions of arrays. An image tells two classifiers apart where one calls it the class and the
other does not; images that fool both or neither say nothing about which is better.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Family-wise error rate of the paired tests."""


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """The two-sided p-value of McNemar's exact test (McNemar 1947).

    Exact at any number of discordant images: no threshold to choose, and never liberal.

    Args:
        a: (N,), whether the first classifier is fooled by each image.
        b: (N,), whether the second is, by the same images.

    Returns:
        1 where no image tells them apart.

    Raises:
        ValueError: if the shapes differ.
    """
    from statsmodels.stats.contingency_tables import mcnemar as test

    if a.shape != b.shape:
        raise ValueError(f"answers to {a.shape} and {b.shape} images can't be paired")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    # An even split has p = 1; doubling the tail would count its middle twice.
    return min(1.0, float(test([[0, only_a], [only_b, 0]], exact=True).pvalue))


def sign_flip(differences: NDArray[np.integer]) -> float:
    """The two-sided p-value of Fisher's randomisation test of paired differences (Fisher 1935).

    Exact: under the null each difference might as well have had the other sign. Of differences of
    one size it is :func:`mcnemar`.

    Args:
        differences: (N,), whole numbers.
    """
    from scipy.stats import binom

    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    chances = np.ones(1)  # of the sums from -total to total, two apart from one to the next
    for size, count in zip(sizes, counts, strict=True):
        own = np.zeros(count * size + 1)
        own[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, own)
    total = len(chances) - 1
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(chances[np.abs(sums) >= abs(int(differences.sum()))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979): reject those below the family-wise rate."""
    # statsmodels' runs the garbage collector each time, which takes seconds among many objects.
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1)
    return adjusted.tolist()


def pairwise(fooled: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Holm-adjusted McNemar p-values of every pair of classifiers.

    Args:
        fooled: (K, N), by classifier and image.

    Returns:
        (K, K), symmetric, 1 on the diagonal.
    """
    from scipy.special import bdtr  # scipy.stats takes a second to import

    first, second = np.triu_indices(len(fooled), k=1)
    # All pairs at once, as mcnemar() says it: 300 classifiers are 44,850 pairs.
    images = fooled.astype(np.float64)
    both = (images @ images.T)[first, second]
    sums = images.sum(axis=1)
    only_first, only_second = sums[first] - both, sums[second] - both
    tails = bdtr(np.minimum(only_first, only_second), only_first + only_second, 0.5)
    adjusted = np.ones((len(fooled), len(fooled)))
    adjusted[first, second] = adjusted[second, first] = holm(np.minimum(1, 2 * tails).tolist())
    return adjusted


def tie_groups(p_values: NDArray[np.float64]) -> list[int]:
    """Split an order, best first, into groups that the tests can't tell from their first member.

    A classifier opens a group when it differs significantly from the first of the group before.
    Being tied is not transitive: neighbours in two groups may well be indistinguishable.

    Args:
        p_values: (K, K) from :func:`pairwise`, in the order.

    Returns:
        For each of the K, the position of its group's first.
    """
    leaders: list[int] = []
    for position in range(len(p_values)):
        leader = leaders[-1] if leaders else position
        leaders.append(leader if p_values[leader, position] >= ALPHA else position)
    return leaders

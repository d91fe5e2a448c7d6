"""Percentile bootstrap: of each stratum its generators, then of each of them its images.

Pure functions of arrays but for the random numbers, which a seed fixes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spurbench.evaluation.metrics import wins

Clusters = Sequence[Sequence[NDArray[np.intp]]]
"""Positions of images by what is resampled before them: strata, which stay, then generators."""


class Bootstrap:
    """Resampled statistics, (resamples,) each and independent of one another.

    How often each of n images is in each sample is drawn once for all groups of n images: which of
    the samples of two groups belong together is what is drawn anew, and that takes no time.
    """

    def __init__(self, *, resamples: int, seed: int) -> None:
        """Draw that many samples."""
        self._resamples = resamples
        self._rng = np.random.default_rng(seed)
        self._kept: dict[object, NDArray[np.float64]] = {}

    def means(self, values: NDArray[np.floating], clusters: Clusters) -> NDArray[np.float64]:
        """Means of (N,) values, whose positions ``clusters`` holds, each once."""
        order, counts = self._draw(clusters, "images")
        means: NDArray[np.float64] = counts @ values[order] / counts.sum(axis=1)
        return self._rng.permutation(means)

    def auroc(
        self,
        positives: NDArray[np.floating],
        spurious: NDArray[np.floating],
        clusters: Clusters,
    ) -> NDArray[np.float64]:
        """:func:`spurbench.evaluation.metrics.auroc` where both kinds of images are resampled.

        Args:
            positives: (N,), resampled one by one.
            spurious: (M,).
            clusters: of the spurious ones.
        """
        _, shown = self._draw([[np.arange(len(positives))]], "positives")
        order, other = self._draw(clusters, "images")
        won = ((shown @ wins(positives, spurious[order])) * other).sum(axis=1)
        areas: NDArray[np.float64] = won / (shown.sum(axis=1) * other.sum(axis=1))
        return self._rng.permutation(areas)

    def _draw(self, clusters: Clusters, kind: str) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The images in an order, (N,), and how often each is drawn: (resamples, N)."""
        strata = [sorted(generators, key=len) for generators in clusters]
        sizes = tuple(tuple(map(len, generators)) for generators in strata)
        if (kind, sizes) not in self._kept:
            self._kept[kind, sizes] = np.hstack([self._counts(stratum) for stratum in sizes])
        order = np.concatenate([images for generators in strata for images in generators])
        return order, self._kept[kind, sizes]

    def _counts(self, sizes: Sequence[int]) -> NDArray[np.float64]:
        """How often each image of generators of so many images is drawn: (resamples, N)."""
        rng, resamples = self._rng, self._resamples
        counts = [np.zeros((resamples, n)) for n in sizes]
        for drawn in rng.integers(len(sizes), size=(len(sizes), resamples)):
            for generator, n in enumerate(sizes):
                rows = np.flatnonzero(drawn == generator)
                images = rng.integers(n, size=(len(rows), n)) + n * np.arange(len(rows))[:, None]
                often = np.bincount(images.ravel(), minlength=n * len(rows))
                counts[generator][rows] += often.reshape(len(rows), n)
        return np.hstack(counts)


def percentile_interval(draws: NDArray[np.floating]) -> tuple[float, float]:
    """The 95 % percentile interval of resampled values."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval(
    groups: Sequence[NDArray[np.floating]],
    clusters: Sequence[Clusters] | None = None,
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """The 95 % interval of :func:`spurbench.evaluation.metrics.macro_mean`.

    Images are resampled within their class; the classes stay, for they are the benchmark's and not
    a sample of classes.

    Args:
        groups: one array of values per class.
        clusters: of each class; None resamples its images one by one.
        resamples: number of bootstrap samples.
        seed: of the random numbers.
    """
    bootstrap = Bootstrap(resamples=resamples, seed=seed)
    if clusters is None:
        clusters = [[[np.arange(len(group))]] for group in groups]
    draws = [bootstrap.means(*each) for each in zip(groups, clusters, strict=True)]
    return percentile_interval(np.mean(draws, axis=0))

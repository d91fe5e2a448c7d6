"""What grades say: pure functions of (raters, items) matrices, NaN where there is no grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spurbench.core.errors import reason
from spurbench.evaluation.bootstrap import percentile_interval
from spurbench.studies.survey.design import GRADES

Matrix = NDArray[np.float64]

FEWEST = 2
"""Raters without which there are no intervals."""


def shares(grades: Matrix) -> NDArray[np.float64]:
    """(5,) the share of each grade among all that are given; NaN if there are none."""
    counts = np.array([(grades == grade).sum() for grade in GRADES], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        made: NDArray[np.float64] = counts / counts.sum()
    return made


def krippendorff_alpha(grades: Matrix) -> float | None:
    """Krippendorff's alpha for ordinal data: agreement beyond chance, 1 is perfect.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section E, with the
    ordinal metric of his section F.

    Args:
        grades: (R, I), from 1 to 5; NaN where there is none.

    Returns:
        None if no item has two grades, or all grades are the same: then it is not defined.
    """
    counts = np.stack([(grades == grade).sum(axis=0) for grade in GRADES], axis=1).astype(float)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        return None
    size = counts.sum(axis=1)
    weighted = counts / (size - 1)[:, None]
    coincidences = counts.T @ weighted - np.diag(weighted.sum(axis=0))
    totals = coincidences.sum(axis=1)
    upto = np.cumsum(totals) - totals / 2
    distance = (upto[:, None] - upto[None, :]) ** 2
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1)
    if expected == 0:
        return None
    return float(1 - (coincidences * distance).sum() / expected)


@dataclass(frozen=True)
class Draws:
    """Bootstrap samples, as how often each rater and each item is in each.

    Attributes:
        raters: (B, R).
        items: (B, I).
    """

    raters: NDArray[np.float64]
    items: NDArray[np.float64]

    @classmethod
    def of(
        cls, raters: int, strata: Sequence[NDArray[np.intp]], resamples: int, seed: int
    ) -> Draws:
        """Draw raters, whole ones, and items within strata.

        Args:
            raters: how many there are.
            strata: positions of the items of each class and source; each item once.
            resamples: how many samples.
            seed: of the random numbers.
        """
        rng = np.random.default_rng(seed)

        def counts(n: int) -> NDArray[np.float64]:
            return rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)

        items = np.zeros((resamples, sum(map(len, strata))))
        drawn = counts(raters)
        for stratum in strata:
            items[:, stratum] = counts(len(stratum))
        return cls(drawn, items)

    def means(
        self, values: Matrix, items: NDArray[np.bool_], *, resample_items: bool = False
    ) -> NDArray[np.float64]:
        """(B,) means over the grades that are given to some of the items.

        Args:
            values: (R, I), NaN where there is none.
            items: (I,), which.
            resample_items: draw the items too, and not the raters alone.
        """
        given = np.isfinite(values)
        numbers = np.where(given, values, 0.0)
        weights = self.items[:, items] if resample_items else np.ones((1, int(items.sum())))
        top = ((self.raters @ numbers[:, items]) * weights).sum(axis=1)
        below = ((self.raters @ given[:, items].astype(float)) * weights).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            made: NDArray[np.float64] = top / below
        return made


def interval(draws: NDArray[np.float64]) -> tuple[float, float] | None:
    """The 95 % percentile interval; None where half of the samples have no value."""
    known = draws[np.isfinite(draws)]
    return percentile_interval(known) if len(known) > len(draws) / 2 else None


@dataclass(frozen=True)
class Odds:
    """Of a higher grade, of generated images to real ones: below 1 the real ones look better.

    Attributes:
        ratio: of the odds of being above a grade, the same for each grade.
        low: end of its 95 % interval.
        high: likewise.
        p_value: two-sided, of a ratio of 1.
    """

    ratio: float
    low: float
    high: float
    p_value: float


def ordinal_odds(grades: Matrix, generated: NDArray[np.bool_]) -> Odds | str:
    """A proportional-odds model of grade by source, whose observations are clustered by rater.

    Generalised estimating equations (statsmodels' ``OrdinalGEE``) with independence as the working
    correlation; the interval is from the sandwich covariance of raters as clusters: times
    R / (R - 1), with Student's t of R - 1 degrees of freedom, for few raters. statsmodels has no
    ordinal mixed model. This one says what holds of the raters' average, assumes nothing of how
    raters differ (in severity, in preference), and has no variance of theirs. The images count as
    fixed.

    Args:
        grades: (R, I), NaN where there is none.
        generated: (I,).

    Returns:
        The odds; or why there are none.
    """
    from scipy.stats import t

    rows, items = np.nonzero(np.isfinite(grades))
    raters = len(np.unique(rows))
    if raters < FEWEST:
        return "fewer than two raters"
    values, source = grades[rows, items], generated[items].astype(float)
    if len(np.unique(values)) < 2 or len(np.unique(source)) < 2:
        return "one grade, or one source, alone"
    if _separated(values, source):
        return "no grade of one source is above any of the other: the odds have no bound"
    import warnings

    from statsmodels.genmod.cov_struct import Independence
    from statsmodels.genmod.generalized_estimating_equations import OrdinalGEE

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = OrdinalGEE(values, source[:, None], rows, cov_struct=Independence()).fit(
                maxiter=200
            )
        estimate, error = (float(np.asarray(part)[-1]) for part in (fit.params, fit.bse))
    except (ValueError, np.linalg.LinAlgError) as fault:
        return f"the model could not be fitted: {reason(fault)}"
    if not (fit.converged and np.isfinite([estimate, error]).all() and error > 0):
        return "the model did not converge"
    error *= np.sqrt(raters / (raters - 1))
    width = float(t.ppf(0.975, raters - 1)) * error
    low, ratio, high = np.exp([estimate - width, estimate, estimate + width])
    p_value = 2 * float(t.sf(abs(estimate) / error, raters - 1))
    return Odds(ratio=float(ratio), low=float(low), high=float(high), p_value=p_value)


def _separated(values: NDArray[np.float64], source: NDArray[np.float64]) -> bool:
    made, real = values[source == 1], values[source == 0]
    return bool(made.max() <= real.min() or real.max() <= made.min())

"""How well estimates agree with the truth, for many choices of classes at once.

Throughout, ``truth`` and ``estimate`` are (C, K): of C classifiers and K classes; ``counts`` is
(U, K): how often each class is in each of U choices of classes, with replacement. A class whose
estimate is not a number is in none of them. The results are (U,), NaN where nothing can be told:
no class is left, or all values are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Statistic = Callable[[Values, Values, Values], Values]

DIGITS = 12
"""Means that differ after so many are taken for equal: they differ by rounding."""


def tau_of_classifiers(truth: Values, estimate: Values, counts: Values) -> Values:
    """Kendall's tau-b over classifiers, means over classes."""
    signs = [_signs(means) for means in _means(truth, estimate, counts)]
    return _tau((signs[0] * signs[1]).sum(axis=1), *(np.abs(sign).sum(axis=1) for sign in signs))


def tau_of_pairs(truth: Values, estimate: Values, counts: Values) -> Values:
    """Kendall's tau-b over pairs of classifier and class.

    What two classes have in concordant and tied pairs is counted once; every choice of classes is
    a sum of those.
    """
    counts, estimate = _measured(estimate, counts)
    true, told = (_block_signs(values) for values in (truth, estimate))
    blocks = (true * told, np.abs(true), np.abs(told))
    sums = (block.sum(axis=(1, 3)).astype(np.float64) for block in blocks)
    return _tau(*(np.einsum("ua,ab,ub->u", counts, between, counts) for between in sums))


def r_of_classifiers(truth: Values, estimate: Values, counts: Values) -> Values:
    """Pearson's r over classifiers, means over classes."""
    true, told = _means(truth, estimate, counts)
    return _pearson(true, told, np.ones_like(true))


def r_of_pairs(truth: Values, estimate: Values, counts: Values) -> Values:
    """Pearson's r over pairs of classifier and class."""
    counts, estimate = _measured(estimate, counts)
    shape = (len(counts), truth.size)
    true, told = (np.broadcast_to(values.ravel(), shape) for values in (truth, estimate))
    return _pearson(true, told, np.tile(counts, (1, len(truth))))


def calibration_error(truth: Values, estimate: Values, counts: Values) -> Values:
    """Root mean square distance, in points, of the truth from a line that others tell.

    Pairs of classifier and class; the line is fitted by least squares to those of all classifiers
    but the one whose distances are taken.
    """
    counts, estimate = _measured(estimate, counts)
    return _left_out_error(truth[None], estimate[None], counts)


def calibration_error_of_classifiers(truth: Values, estimate: Values, counts: Values) -> Values:
    """The same of classifiers, means over classes."""
    true, told = _means(truth, estimate, counts)
    return _left_out_error(true[..., None], told[..., None], np.ones((len(counts), 1)))


STATISTICS: Mapping[str, Statistic] = {
    "tau_classifiers": tau_of_classifiers,
    "tau_pairs": tau_of_pairs,
    "r_classifiers": r_of_classifiers,
    "r_pairs": r_of_pairs,
    "calibration_error": calibration_error,
    "calibration_error_classifiers": calibration_error_of_classifiers,
}


def _measured(estimate: Values, counts: Values) -> tuple[Values, Values]:
    """Counts without the classes that have no estimate, and estimates that can be summed."""
    known = np.isfinite(estimate).all(axis=0)
    return counts * known, np.where(known, estimate, 0.0)


def _means(truth: Values, estimate: Values, counts: Values) -> tuple[Values, Values]:
    """Means over each choice of classes, (U, C) both; NaN of no class."""
    counts, estimate = _measured(estimate, counts)
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = counts / total
    return (shares @ truth.T).round(DIGITS), (shares @ estimate.T).round(DIGITS)


def _signs(values: Values) -> Values:
    """Of the differences of all pairs in a row: (U, C) to (U, C (C - 1) / 2)."""
    first, second = np.triu_indices(values.shape[1], 1)
    return np.sign(values[:, first] - values[:, second])


def _block_signs(values: Values) -> NDArray[np.int8]:
    """Of the differences between all entries: (C, K) to (K, C, K, C)."""
    flat = values.T.round(DIGITS)
    return np.sign(flat[:, :, None, None] - flat[None, None]).astype(np.int8)


def _tau(concordance: Values, true: Values, told: Values) -> Values:
    """tau-b of summed signs: of products, and of those that are no ties on either side."""
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = concordance / np.sqrt(true * told)
    return np.where(np.isfinite(tau), tau, np.nan)


def _pearson(true: Values, told: Values, weights: Values) -> Values:
    """Weighted correlation along rows, (U, N) each."""
    with np.errstate(invalid="ignore", divide="ignore"):
        weights = weights / weights.sum(axis=1, keepdims=True)
        true, told = (v - (weights * v).sum(axis=1, keepdims=True) for v in (true, told))
        spread = [np.sqrt((weights * v * v).sum(axis=1)) for v in (true, told)]
        r = (weights * true * told).sum(axis=1) / (spread[0] * spread[1])
    flat = (spread[0] < 10.0**-DIGITS) | (spread[1] < 10.0**-DIGITS)
    return np.where(flat | ~np.isfinite(r), np.nan, r)


def _left_out_error(truth: Values, estimate: Values, weights: Values) -> Values:
    """See :func:`calibration_error`; from each classifier's sums, so that no line is fitted anew.

    Args:
        truth: (U or 1, C, K).
        estimate: the same.
        weights: (U, K).
    """
    powers = (np.ones_like(truth), estimate, truth, estimate**2, estimate * truth)
    own = [(weights[:, None] * values).sum(axis=2) for values in powers]
    n, e, t, ee, et = (of.sum(axis=1, keepdims=True) - of for of in own)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = ee / n - (e / n) ** 2
        together = et / n - e * t / n**2
        # Estimates that are all alike tell nothing but the mean.
        slope = np.where(spread > 10.0**-DIGITS, together / spread, 0.0)
        start = t / n - slope * e / n
        distance = truth - (start[..., None] + slope[..., None] * estimate)
        square = (weights[:, None] * distance**2).sum(axis=(1, 2)) / own[0].sum(axis=1)
    error: Values = 100 * np.sqrt(square)
    return error

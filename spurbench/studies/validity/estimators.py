"""Estimates of reliance from classifiers' answers to images and to their controls.

Pure functions of arrays: C classifiers, N images of one class and M controls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Estimator = Literal[
    "accuracy", "effect", "probability effect", "log-odds effect", "AUROC", "seen effect"
]

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@dataclass(frozen=True)
class Answers:
    """What C classifiers say of N images that are measured for one class.

    Attributes:
        hit: (C, N) bool, whether the answer is the class.
        log_probability: (C, N) of the class.
        log_odds: (C, N), the class against all others.
        feature_alone: (N,) bool, whether the detector sees the feature and no object.
        neither: (N,) bool, whether it sees neither.
        generator: (N,) which of several generators made the image.
        image: (N,) of a twin the position of its image among those of the class; -1 of all others.
    """

    hit: NDArray[np.bool_]
    log_probability: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    feature_alone: NDArray[np.bool_]
    neither: NDArray[np.bool_]
    generator: NDArray[np.int64]
    image: NDArray[np.int64]

    def take(self, positions: NDArray[np.int64]) -> Answers:
        """Those to some of the images."""
        return Answers(
            self.hit[:, positions],
            self.log_probability[:, positions],
            self.log_odds[:, positions],
            self.feature_alone[positions],
            self.neither[positions],
            self.generator[positions],
            self.image[positions],
        )

    @property
    def count(self) -> int:
        """N."""
        return self.hit.shape[1]


def estimate(
    estimator: Estimator, images: Answers, controls: Answers | None
) -> NDArray[np.float64] | None:
    """The reliance of each classifier, (C,), as the plan of the study numbers the estimators.

    Args:
        estimator: which.
        images: that show the feature.
        controls: that don't; None: none are subtracted.

    Returns:
        NaN where no image or no control is left to tell; None where the estimator is none without
        controls, or, as the accuracy, none with them.
    """
    if (estimator == "accuracy") != (controls is None):
        return None
    match estimator:
        case "accuracy":
            return _mean(images.hit)
        case "effect":
            assert controls is not None
            return _mean(images.hit) - _mean(controls.hit)
        case "probability effect":
            assert controls is not None
            return _mean(np.exp(images.log_probability)) - _mean(np.exp(controls.log_probability))
        case "log-odds effect":
            assert controls is not None
            return _mean(images.log_odds) - _mean(controls.log_odds)
        case "AUROC":
            # Of the log-odds, which rise with the probability and don't round to 1.
            assert controls is not None
            return _auroc(images.log_odds, controls.log_odds)
        case "seen effect":
            assert controls is not None
            seen = images.hit[:, images.feature_alone]
            return _mean(seen) - _mean(controls.hit[:, controls.neither])


def _mean(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Over images; NaN of none."""
    count = values.shape[1]
    sums = values.sum(axis=1, dtype=np.float64)
    return sums / count if count else np.full(len(values), np.nan)


def _auroc(positives: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of pairs in which the first is larger, ties counting half; by ranks, (C,)."""
    from scipy.stats import rankdata

    n, m = positives.shape[1], others.shape[1]
    if not n or not m:
        return np.full(len(positives), np.nan)
    ranks = rankdata(np.hstack([positives, others]), axis=1)[:, :n]
    area: NDArray[np.float64] = (ranks.sum(axis=1) - n * (n + 1) / 2) / (n * m)
    return area

"""From answers to measures with intervals, before, after, and what changed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from spurbench.core.documents import Document
from spurbench.evaluation.bootstrap import percentile_interval
from spurbench.evaluation.metrics import wins
from spurbench.studies.mending.answers import Answers

Measure = Literal["fresh", "real", "reliance", "biased", "object", "auroc"]
MEASURES: tuple[Measure, ...] = get_args(Measure)

#: measure -> (heading, what it is); all are means over classes.
MEANINGS: dict[Measure, tuple[str, str]] = {
    "fresh": ("spurious, fresh", "fresh object-free scenes that are called the class"),
    "real": ("spurious, real", "the same of the `real` split without references"),
    "reliance": ("reliance", "the first, minus the same scenes with their feature taken out"),
    "biased": ("biased", "accuracy on biased scenes of all classes"),
    "object": ("object", "accuracy on scenes with the object and without its feature"),
    "auroc": ("AUROC", "p(class) of biased scenes of the class against the fresh object-free ones"),
}

RESAMPLES = 2000

Values = NDArray[np.float64]


class Figure(Document):
    """A mean over classes, and its 95 % percentile interval over scenes within classes."""

    value: float
    low: float
    high: float


def values(answers: Sequence[Answers], measure: Measure) -> list[Values]:
    """A measure of each class's scenes, the mean over classifiers.

    Args:
        answers: of the classifiers, to the same scenes.
        measure: which one.

    Returns:
        By class: (N,), of N scenes; of ``auroc`` (P, N), of P positives by N spurious ones.
    """
    each = [_values(own, measure) for own in answers]
    return [np.mean(of_class, axis=0) for of_class in zip(*each, strict=True)]


def _values(answers: Answers, measure: Measure) -> list[Values]:
    match measure:
        case "reliance":
            return [
                said.called.astype(float) - answers["bare"][index].called
                for index, said in answers["fresh"].items()
            ]
        case "auroc":
            return [
                wins(answers["biased"][index].probability, said.probability)
                for index, said in answers["fresh"].items()
            ]
    return [said.called.astype(float) for said in answers[measure].values()]


def figure(by_class: Sequence[Values]) -> Figure | None:
    """The mean over classes with its interval; None if there is no class.

    Args:
        by_class: see :func:`values`; positives and spurious scenes are resampled independently.
    """
    if not by_class:
        return None
    draws = [_resampled(of_class, place) for place, of_class in enumerate(by_class)]
    low, high = percentile_interval(np.mean(draws, axis=0))
    return Figure(value=float(np.mean([v.mean() for v in by_class])), low=low, high=high)


def change(before: Sequence[Values], after: Sequence[Values]) -> Figure | None:
    """After minus before, scene by scene."""
    return figure([b - a for a, b in zip(before, after, strict=True)])


def _resampled(array: Values, place: int) -> Values:
    """(RESAMPLES,) means of the class at ``place``; scenes on each axis are drawn anew."""
    weights = [_weights(n, place, axis) for axis, n in enumerate(array.shape)]
    means: Values = weights[0] @ array
    return (means * weights[1]).sum(axis=1) if array.ndim == 2 else means


@cache
def _weights(n: int, place: int, axis: int) -> Values:
    """(RESAMPLES, n): by how much each of n scenes counts in each sample."""
    drawn = np.random.default_rng([n, place, axis]).integers(n, size=(RESAMPLES, n))
    rows = n * np.arange(RESAMPLES)[:, None]
    often = np.bincount((drawn + rows).ravel(), minlength=RESAMPLES * n)
    weights: Values = often.reshape(RESAMPLES, n) / n
    return weights

"""Answers of classifiers to images of a feature, for the validity study's tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spurbench.studies.validity.estimators import Answers


def answers(
    *,
    hits: Any,
    p: Any = None,
    feature_alone: Sequence[int] | None = None,
    neither: Sequence[int] | None = None,
    generator: Sequence[int] | None = None,
    image: Sequence[int] | None = None,
) -> Answers:
    """Of C classifiers to N images; what is not given is the same for all."""
    hit = np.array(hits, bool)
    probability = np.where(hit, 0.75, 0.25) if p is None else np.array(p, np.float64)
    count = hit.shape[1]
    return Answers(
        hit=hit,
        log_probability=np.log(probability),
        log_odds=np.log(probability) - np.log1p(-probability),
        feature_alone=np.array([1] * count if feature_alone is None else feature_alone, bool),
        neither=np.array([1] * count if neither is None else neither, bool),
        generator=np.array([0] * count if generator is None else generator),
        image=np.array([-1] * count if image is None else image),
    )

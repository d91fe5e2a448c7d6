"""Distances of features and intervals over runs: by hand, or by scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist
from scipy.stats import sem, t

from spurbench.evaluation.metrics import (
    cosine_distances,
    mean_pairwise_distance,
    t_interval,
    wilson_interval,
)


def at(*degrees: float) -> np.ndarray:
    """Feature vectors in directions, of other lengths: only the angle counts."""
    angles = np.radians(degrees)
    lengths = 1 + np.arange(len(degrees))[:, None]
    return lengths * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_cosine_distances_are_those_of_scipy_and_need_no_unit_vectors():
    a, b = np.random.default_rng(0).normal(size=(2, 7, 5)).astype(np.float32)
    assert cosine_distances(a, b[:4]) == pytest.approx(cdist(a, b[:4], "cosine"), abs=1e-6)
    assert cosine_distances(at(0), at(0, 90, 180)) == pytest.approx(np.array([[0, 1, 2]]))


def test_distances_of_half_precision_features_are_taken_in_double():
    a = np.random.default_rng(0).normal(size=(6, 300)).astype(np.float16)
    found = cosine_distances(a, a)
    assert found.dtype == np.float64
    assert found == pytest.approx(cdist(a.astype(float), a.astype(float), "cosine"), abs=1e-12)


def test_diversity_is_the_mean_over_pairs_of_different_images():
    features = np.random.default_rng(1).normal(size=(6, 4))
    assert mean_pairwise_distance(features) == pytest.approx(pdist(features, "cosine").mean())
    assert mean_pairwise_distance(at(30, 30)) == pytest.approx(0, abs=1e-12)
    assert mean_pairwise_distance(at(0, 90)) == pytest.approx(1)


def test_an_interval_over_runs_is_students():
    values = [0.2, 0.5, 0.35, 0.6]
    expected = t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=sem(values))
    assert t_interval(values) == pytest.approx(expected)
    assert t_interval([0.2, 0.4]) == pytest.approx(t.interval(0.95, 1, loc=0.3, scale=0.1))


@pytest.mark.parametrize("values", [[], [0.3]])
def test_fewer_than_two_runs_have_no_interval(values):
    assert t_interval(values) is None


def test_the_interval_of_none_begins_at_nought_and_that_of_all_ends_at_one():
    for n in range(1, 500):
        low, high = wilson_interval(0, n)
        assert low == 0 < high < 1
        low, high = wilson_interval(n, n)
        assert 0 < low < 1 == high

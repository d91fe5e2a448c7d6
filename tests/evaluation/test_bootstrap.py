"""Intervals by resampling, against resampling done the long way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import roc_auc_score

from spurbench.evaluation.bootstrap import Bootstrap, bootstrap_interval, percentile_interval


def one(n: int) -> list[list[np.ndarray]]:
    """Images of one generator."""
    return [[np.arange(n)]]


def test_means_are_resampled_as_scipy_does():
    values = np.random.default_rng(0).exponential(size=60)
    found = percentile_interval(Bootstrap(resamples=20_000, seed=0).means(values, one(60)))
    expected = scipy_bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), abs=0.01)


def test_generators_are_resampled_before_their_images():
    # Within a generator all images are alike, so that only the generators vary: their mean is 0, 1
    # / 3, 2 / 3 or 1 with the chances of three draws, and their images change nothing.
    values = np.repeat([0.0, 0.0, 1.0], 30)
    generators = [[np.arange(30), np.arange(30, 60), np.arange(60, 90)]]
    draws = Bootstrap(resamples=20_000, seed=0).means(values, generators)
    shares = [np.mean(np.isclose(draws, k / 3)) for k in range(4)]
    assert shares == pytest.approx([8 / 27, 12 / 27, 6 / 27, 1 / 27], abs=0.015)
    low, high = percentile_interval(draws)
    assert high - low > 3 * np.subtract(
        *percentile_interval(Bootstrap(resamples=20_000, seed=0).means(values, one(90)))[::-1]
    )


def test_unequal_generators_weigh_by_their_images_wherever_these_are():
    rng = np.random.default_rng(3)
    generator = rng.permutation(np.repeat([0, 1], [10, 30]))
    values = np.where(generator == 0, 1.0, 0.0)
    clusters = [[np.flatnonzero(generator == g) for g in (0, 1)]]
    draws = Bootstrap(resamples=8000, seed=0).means(values, clusters)
    # Twice the first, one of each, twice the second.
    shares = [np.mean(np.isclose(draws, mean)) for mean in (1, 10 / 40, 0)]
    assert shares == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.02)


def test_strata_stay():
    values = np.repeat([0.0, 1.0], [10, 30])
    clusters = [[np.arange(10)], [np.arange(10, 40)]]
    assert set(Bootstrap(resamples=50, seed=0).means(values, clusters)) == {0.75}


def naive_auroc(positives, spurious, resamples, seed):
    rng = np.random.default_rng(seed)
    truth = np.r_[np.ones(len(positives)), np.zeros(len(spurious))]
    return np.array(
        [
            roc_auc_score(
                truth,
                np.r_[rng.choice(positives, len(positives)), rng.choice(spurious, len(spurious))],
            )
            for _ in range(resamples)
        ]
    )


def test_auroc_is_resampled_as_a_loop_over_sklearn_does():
    rng = np.random.default_rng(0)
    positives, spurious = rng.beta(4, 2, 30).round(1), rng.beta(2, 3, 45).round(1)  # with ties
    naive = naive_auroc(positives, spurious, 1500, 1)
    found = Bootstrap(resamples=20_000, seed=0).auroc(positives, spurious, one(45))
    assert found.mean() == pytest.approx(naive.mean(), abs=0.004)
    assert found.std() == pytest.approx(naive.std(), rel=0.06)
    expected = tuple(np.quantile(naive, [0.025, 0.975]))
    assert percentile_interval(found) == pytest.approx(expected, abs=0.012)


def test_scores_stay_with_their_generator_wherever_its_images_are():
    generator = np.random.default_rng(3).permutation(np.repeat([0, 1], 20))
    clusters = [[np.flatnonzero(generator == g) for g in (0, 1)]]
    spurious = np.where(generator == 0, 0.1, 0.9)  # below and above every positive
    draws = Bootstrap(resamples=4000, seed=0).auroc(np.full(10, 0.5), spurious, clusters)
    shares = [np.mean(np.isclose(draws, area)) for area in (0, 0.5, 1)]
    assert shares == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.03)


def test_as_many_positives_as_spurious_images_are_resampled_apart():
    """Drawn together, equally often, the same scores would hardly vary."""
    scores = np.random.default_rng(0).random(40)
    found = Bootstrap(resamples=4000, seed=0).auroc(scores, scores, one(40))
    naive = naive_auroc(scores, scores, 1000, 1)
    assert found.std() == pytest.approx(naive.std(), rel=0.1)


def test_classes_are_resampled_apart():
    """Their means vary as those of independent groups: a root of their number less than one."""
    values = np.random.default_rng(0).random(50)
    bootstrap = Bootstrap(resamples=8000, seed=0)
    draws = [bootstrap.means(values, one(50)) for _ in range(9)]
    assert abs(np.corrcoef(draws) - np.eye(9)).max() < 0.05
    assert np.mean(draws, axis=0).std() == pytest.approx(values.std() / np.sqrt(50 * 9), rel=0.05)


def test_an_interval_of_several_generators_is_wider_where_they_differ():
    rng = np.random.default_rng(0)
    values = (rng.random(100) < np.repeat([0.2, 0.9], 50)).astype(float)
    clusters = [[np.arange(50), np.arange(50, 100)]]
    apart = bootstrap_interval([values], [clusters], resamples=2000, seed=0)
    together = bootstrap_interval([values], resamples=2000, seed=0)
    assert apart[0] < together[0] and together[1] < apart[1]

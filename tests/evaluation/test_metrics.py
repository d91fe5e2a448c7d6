from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.metrics import (
    auroc,
    average_precision,
    class_log_odds,
    class_probability,
    class_rank,
    kernel_distance,
    macro_mean,
    newcombe_interval,
    wilson_interval,
)


def test_rank_is_the_position_in_the_sorted_logits():
    logits = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    assert class_rank(logits, np.array([0, 1, 2])).tolist() == [3, 1, 2]


def test_rank_one_is_exactly_the_prediction_even_among_ties():
    logits = np.random.default_rng(0).integers(0, 3, (500, 6)).astype(float)  # ties abound
    columns = np.random.default_rng(1).integers(0, 6, 500)
    assert ((class_rank(logits, columns) == 1) == (logits.argmax(1) == columns)).all()
    constant = np.zeros((6, 6))
    assert class_rank(constant, np.arange(6)).tolist() == [1, 2, 3, 4, 5, 6]


def test_probability_is_the_softmax_and_survives_large_logits():
    logits = np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]])
    assert class_probability(logits, np.array([1, 0])) == pytest.approx([0.75, 0.5])


def test_log_odds_are_exact_where_the_probability_is_one_to_the_last_digit():
    logits = np.array([[0.0, np.log(3.0), np.log(4.0)], [60.0, 0.0, 0.0]])
    log_probability, log_odds = class_log_odds(logits, np.array([1, 0]))
    assert log_odds == pytest.approx([np.log(3 / 5), 60 - np.log(2)])
    assert log_probability == pytest.approx([np.log(3 / 8), -2 * np.exp(-60)], rel=1e-9)


@pytest.mark.parametrize(("k", "n"), [(0, 75), (1, 75), (30, 75), (75, 75), (1, 1), (0, 3)])
def test_wilson_agrees_with_scipy(k, n):
    expected = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval(0, 0)


def test_the_interval_of_a_paired_difference_covers_it_and_gains_by_the_pairing():
    rng = np.random.default_rng(0)
    covered, widths = [], []
    for _ in range(100):
        hidden = rng.random(60) < 0.2
        shown = hidden | (rng.random(60) < 0.5)  # 0.2 + 0.8 * 0.5
        low, high = newcombe_interval(shown, hidden)
        covered.append(low <= 0.4 <= high)
        widths.append([high - low, np.subtract(*newcombe_interval(shown, rng.permutation(hidden)))])
    assert 0.88 <= np.mean(covered) <= 0.99
    paired, unpaired = np.abs(widths).mean(axis=0)
    assert paired < 0.95 * unpaired


def test_the_interval_of_a_paired_difference_at_its_ends():
    none, every = np.zeros(50, bool), np.ones(50, bool)
    low, high = newcombe_interval(every, none)
    assert 0.85 < low < high == 1
    assert newcombe_interval(none, every) == pytest.approx((-high, -low))
    low, high = newcombe_interval(every, every)
    assert low == pytest.approx(-high)
    assert 0 < high < 0.1
    with pytest.raises(ValueError, match="paired"):
        newcombe_interval(none, every[:10])


def test_the_macro_mean_counts_classes_alike():
    assert macro_mean([np.array([1.0, 1, 1, 1]), np.array([0.0])]) == 0.5


def test_the_bootstrap_agrees_with_the_normal_approximation_and_its_seed():
    rng = np.random.default_rng(0)
    groups = [rng.random(400) < p for p in (0.2, 0.5, 0.8)]
    groups = [group.astype(float) for group in groups]
    low, high = bootstrap_interval(groups, resamples=4000, seed=1)
    half = 1.96 * np.sqrt(sum(g.var() / len(g) for g in groups)) / len(groups)
    assert (low, high) == pytest.approx(
        (macro_mean(groups) - half, macro_mean(groups) + half), abs=0.004
    )
    assert (low, high) == bootstrap_interval(groups, resamples=4000, seed=1)
    assert (low, high) != bootstrap_interval(groups, resamples=4000, seed=2)


def test_the_bootstrap_resamples_within_classes_only():
    """Classes that are all or nothing leave no doubt, however different they are."""
    groups = [np.ones(10), np.zeros(10)]
    assert bootstrap_interval(groups, resamples=100, seed=0) == (0.5, 0.5)


def test_auroc_and_average_precision_worked_out_by_hand():
    positives, spurious = np.array([0.9, 0.4]), np.array([0.6, 0.1])
    # Pairs won: 0.9 > 0.6, 0.9 > 0.1, 0.4 > 0.1 of four.
    assert auroc(positives, spurious) == pytest.approx(3 / 4)
    # Ranking + - + -: precision 1 at the first positive, 2/3 at the second.
    assert average_precision(positives, spurious) == pytest.approx((1 + 2 / 3) / 2)


def test_kernel_distance_by_hand():
    a, b = np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]])
    # Within: the off-diagonal products are 0, (0/2 + 1)^3 = 1. Across: products 1, 0, 1, 0.
    assert kernel_distance(a, b) == pytest.approx(1 + 1 - 2 * (2 * 1.5**3 + 2) / 4)


def test_kernel_distance_of_like_samples_is_about_nought():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400, 8))
    assert abs(kernel_distance(a, b)) < 0.05 < kernel_distance(a, b + 0.5)

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, pearsonr

from spurbench.studies.validity import agreement
from spurbench.studies.validity.agreement import STATISTICS

RNG = np.random.default_rng(0)
# Rounded, so that there are ties; the last choice is that of a bootstrap: a class twice, one never.
TRUTH = RNG.uniform(0, 1, (7, 4)).round(1)
ESTIMATE = (TRUTH + RNG.normal(0, 0.3, TRUTH.shape)).round(1)
COUNTS = np.array([[1.0, 1, 1, 1], [0, 0, 2, 1], [3, 0, 0, 0], [2, 0, 1, 1]])


def _expanded(values, counts):
    """The columns as often as they are counted."""
    return np.repeat(values, counts.astype(int), axis=1)


def _line_error(truth, estimate):
    """Leave one classifier out, fit a line to the pairs of the others: by numpy's least squares."""
    squares = []
    for left_out in range(len(truth)):
        others = np.arange(len(truth)) != left_out
        slope, start = np.polyfit(estimate[others].ravel(), truth[others].ravel(), 1)
        squares.append((truth[left_out] - start - slope * estimate[left_out]) ** 2)
    return 100 * np.sqrt(np.mean(squares))


def _slowly(name, truth, estimate):
    means = truth.mean(axis=1).round(12), estimate.mean(axis=1).round(12)
    return {
        "tau_classifiers": lambda: kendalltau(*means).statistic,
        "tau_pairs": lambda: kendalltau(truth.ravel(), estimate.ravel()).statistic,
        "r_classifiers": lambda: pearsonr(*means).statistic,
        "r_pairs": lambda: pearsonr(truth.ravel(), estimate.ravel()).statistic,
        "calibration_error": lambda: _line_error(truth, estimate),
        "calibration_error_classifiers": lambda: _line_error(*(m[:, None] for m in means)),
    }[name]()


@pytest.mark.parametrize("name", STATISTICS)
def test_a_figure_of_choices_of_classes_is_that_of_their_columns_as_scipy_has_it(name):
    found = STATISTICS[name](TRUTH, ESTIMATE, COUNTS)
    slow = [_slowly(name, _expanded(TRUTH, c), _expanded(ESTIMATE, c)) for c in COUNTS]
    assert found == pytest.approx(slow)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_class_without_an_estimate_counts_in_no_figure(name):
    holes = ESTIMATE.copy()
    holes[2, 1] = np.nan
    found = STATISTICS[name](TRUTH, holes, np.array([[1.0, 1, 1, 1], [0, 5, 0, 0]]))
    without = STATISTICS[name](TRUTH, ESTIMATE, np.array([[1.0, 0, 1, 1]]))
    assert found[0] == pytest.approx(without[0])
    assert np.isnan(found[1])


def test_the_truth_itself_agrees_in_full_and_its_opposite_not_at_all():
    once = np.ones((1, 4))
    for told, sign in ((2 * TRUTH + 1, 1), (-TRUTH, -1)):
        for name in ("tau_classifiers", "tau_pairs", "r_classifiers", "r_pairs"):
            assert STATISTICS[name](TRUTH, told, once) == pytest.approx([sign])
        assert agreement.calibration_error(TRUTH, told, once) == pytest.approx([0], abs=1e-6)


def test_constant_estimates_rank_nothing_and_err_as_the_mean_of_the_others_does():
    once, flat = np.ones((1, 4)), np.full_like(TRUTH, 0.3)
    for name in ("tau_classifiers", "tau_pairs", "r_classifiers", "r_pairs"):
        assert np.isnan(STATISTICS[name](TRUTH, flat, once)).all()
    distances = [TRUTH[i] - np.delete(TRUTH, i, axis=0).mean() for i in range(len(TRUTH))]
    error = 100 * np.sqrt(np.mean(np.square(distances)))
    assert agreement.calibration_error(TRUTH, flat, once) == pytest.approx([error])


def test_noise_of_the_truths_own_spread_gives_the_tau_of_a_correlation_of_its_root_half():
    # Of normal variables with correlation rho, tau is 2 / pi arcsin rho (Greiner's relation).
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(120, 8))
    told = truth + rng.normal(size=truth.shape)
    tau = agreement.tau_of_pairs(truth, told, np.ones((1, 8)))[0]
    assert tau == pytest.approx(0.5, abs=0.06)
    assert agreement.tau_of_pairs(truth, rng.normal(size=truth.shape), np.ones((1, 8)))[
        0
    ] == pytest.approx(0, abs=0.1)

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from makers.survey import designed, rounded_mean, simulated
from spurbench.studies.survey.measure import (
    Draws,
    interval,
    krippendorff_alpha,
    ordinal_odds,
    shares,
)

NAN = np.nan

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), the data of section C.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def test_alpha_is_that_of_the_published_example():
    assert krippendorff_alpha(PUBLISHED) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_perfect_agreement_of_chance_and_of_nothing():
    rng = np.random.default_rng(0)
    grades = rng.integers(1, 6, 200).astype(float)
    assert krippendorff_alpha(np.array([grades, grades])) == pytest.approx(1)
    assert abs(krippendorff_alpha(rng.integers(1, 6, (4, 2000)).astype(float))) < 0.03
    assert krippendorff_alpha(PUBLISHED[:1]) is None
    assert krippendorff_alpha(np.full((3, 4), 2.0)) is None
    # Only what two raters graded counts, and neither raters' nor items' order.
    more = np.hstack([PUBLISHED[::-1, ::-1], [[5], [NAN], [NAN], [NAN]]])
    assert krippendorff_alpha(more) == pytest.approx(krippendorff_alpha(PUBLISHED))


def test_shares_count_what_is_given():
    assert shares(PUBLISHED)[0] == pytest.approx(np.sum(PUBLISHED == 1) / 41)
    assert shares(PUBLISHED).sum() == pytest.approx(1)


def difference(grades, generated, resample_items, seed=0):
    sources = [np.flatnonzero(generated), np.flatnonzero(~generated)]
    draws = Draws.of(len(grades), sources, 400, seed)
    made, real = (
        draws.means(grades, items, resample_items=resample_items)
        for items in (generated, ~generated)
    )
    return interval(made - real)


@pytest.mark.slow
@pytest.mark.parametrize(("bias", "quality"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.6)])
def test_intervals_hold_the_truth_as_often_as_they_say(bias, quality):
    """Of raters where the images are the same; of raters and images where they are a sample."""
    survey = designed(raters=20)
    generated = np.array([item.source == "generated" for item in survey.items])
    # Feelings of all raters, all images.
    spread = np.sqrt(0.5**2 + quality**2 + 0.7**2)
    truth = rounded_mean(3.2 - bias, np.hypot(spread, 0.3)) - rounded_mean(3.2, spread)
    rng = np.random.default_rng(1)
    held = narrow = 0
    for seed in range(200):
        grades = simulated(survey, rng, bias=bias, quality=quality).first
        low, high = difference(grades, generated, quality > 0, seed)
        held += low <= truth <= high
        low, high = difference(grades, generated, False, seed)
        narrow += low <= truth <= high
    assert 0.88 <= held / 200 <= 0.99
    if quality:
        # What raters alone tell does not hold of other images.
        assert narrow / 200 < 0.7


def test_raters_are_resampled_whole():
    """Twenty who agree with themselves say less than as many grades one by one."""
    generated = np.arange(40) % 2 == 1
    severity = np.random.default_rng(0).normal(0, 1, (20, 1))
    grades = 3 + np.repeat(severity, 40, axis=1)
    draws = Draws.of(20, [np.arange(40)], 2000, 0)
    drawn = draws.means(grades, generated)
    assert drawn.std() == pytest.approx(grades.std() / np.sqrt(20), rel=0.1)


def test_images_are_drawn_within_their_class_and_source():
    strata = [np.arange(0, 4), np.arange(4, 5), np.arange(5, 12)]
    draws = Draws.of(6, strata, 50, 0)
    for stratum in strata:
        assert (draws.items[:, stratum].sum(axis=1) == len(stratum)).all()
    assert (draws.raters.sum(axis=1) == 6).all() and draws.raters.std() > 0.5


def test_the_odds_interval_is_students_with_as_many_clusters_as_raters():
    rng = np.random.default_rng(2)
    generated = np.arange(30) % 2 == 1
    felt = rng.logistic(0, 1, (4, 30)) - generated + rng.normal(0, 0.6, (4, 1)) * generated
    grades = 1.0 + (felt[..., None] > [-2, -1, 0, 1]).sum(axis=-1)

    def error(found, raters):
        return np.log(found.high / found.low) / 2 / t.ppf(0.975, raters - 1)

    four, eight = (ordinal_odds(np.tile(grades, (n, 1)), generated) for n in (1, 2))
    assert four.ratio == pytest.approx(eight.ratio, rel=1e-4)
    own = error(four, 4)
    assert four.p_value == pytest.approx(2 * t.sf(abs(np.log(four.ratio)) / own, 3), rel=1e-6)
    # Everyone twice halves the variance, but for R / (R - 1).
    halved = (4 / 3) / (8 / 7) * 2
    assert (own / error(eight, 8)) ** 2 == pytest.approx(halved, rel=1e-3)


def test_the_odds_are_those_that_raters_follow():
    """Grades by the model itself, with raters who have cutpoints of their own."""
    rng = np.random.default_rng(3)
    generated = np.arange(60) % 2 == 1
    felt = rng.logistic(0, 1, (40, 60)) - 1.2 * generated + rng.normal(0, 0.3, (40, 1))
    grades = 1.0 + (felt[..., None] > [-2, -1, 0, 1]).sum(axis=-1)
    found = ordinal_odds(grades, generated)
    # A rater's cutpoints are averaged over, which brings the ratio a little nearer to 1.
    assert found.low < np.exp(-1.2) * 1.03 < found.high
    assert found.high / found.low < 1.5 and found.p_value < 1e-6
    turned = ordinal_odds(grades, ~generated)
    assert turned.ratio == pytest.approx(1 / found.ratio, rel=1e-3)


def test_raters_who_differ_in_taste_widen_the_odds():
    survey = designed(raters=12)
    generated = np.array([item.source == "generated" for item in survey.items])
    rng = np.random.default_rng(0)
    one_mind, own_minds = (
        ordinal_odds(simulated(survey, rng, taste=taste).first, generated) for taste in (0.0, 1.0)
    )
    assert np.log(own_minds.high / own_minds.low) > 1.5 * np.log(one_mind.high / one_mind.low)


def test_where_there_are_no_odds_it_is_said_why():
    generated = np.arange(10) % 2 == 1
    rng = np.random.default_rng(0)
    grades = rng.integers(1, 6, (5, 10)).astype(float)
    assert "two raters" in ordinal_odds(grades[:1], generated)
    assert "alone" in ordinal_odds(np.full((5, 10), 3.0), generated)
    assert "alone" in ordinal_odds(grades[:, generated], generated[generated])
    split = np.where(generated, 1.0, 5.0) * np.ones((5, 1))
    assert "no bound" in ordinal_odds(split, generated)

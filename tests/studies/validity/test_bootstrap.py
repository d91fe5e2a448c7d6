from __future__ import annotations

import numpy as np
import pytest

from spurbench.studies.validity.bootstrap import Draws, interval


def test_the_figure_is_the_mean_over_worlds_and_seeds_of_every_class_once():
    draws = Draws(2, [3, 2], draws=50, seed=0)
    seen = []

    def statistic(world, seed, counts):
        seen.append((world, seed))
        np.testing.assert_array_equal(counts[0], 1)
        return np.full(len(counts), 10.0 * world + seed)

    value, drawn = draws.figure(statistic)
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert value == 5.5
    assert drawn.shape == (50,)


def test_worlds_seeds_and_classes_are_all_drawn_anew_and_classes_within_their_world():
    rng = np.random.default_rng(5)
    for varying in ("world", "seed", "class"):
        draws = Draws(4, [3, 5, 2], draws=1500, seed=1)
        values = {
            "world": lambda w, s, counts: np.full(len(counts), [0.0, 3, 6][w]),
            "seed": lambda w, s, counts: np.full(len(counts), float(s)),
            "class": lambda w, s, counts: counts @ np.arange(counts.shape[1]) / counts.sum(axis=1),
        }
        value, drawn = draws.figure(values[varying])
        # By hand: the same draws with plain loops.
        slow = []
        for _ in range(1500):
            parts = []
            for w in rng.integers(3, size=3):
                k = [3, 5, 2][w]
                classes = rng.integers(k, size=k)
                seeds = rng.integers(4, size=4)
                parts.append(
                    {
                        "world": [0.0, 3, 6][w],
                        "seed": seeds.mean(),
                        "class": classes.mean(),
                    }[varying]
                )
            slow.append(np.mean(parts))
        assert drawn.mean() == pytest.approx(np.mean(slow), abs=0.12)
        assert drawn.mean() == pytest.approx(value, abs=0.12)
        assert drawn.std() == pytest.approx(np.std(slow), rel=0.1)


def test_a_draw_chooses_as_many_classes_as_there_are_and_each_choice_is_kept_once():
    draws = Draws(1, [4], draws=2000, seed=0)
    (counts,) = draws.counts
    assert (counts.sum(axis=1) == 4).all()
    assert len(np.unique(counts, axis=0)) == len(counts) == 35  # multisets of 4 among 4


def test_figures_are_drawn_together_so_that_equal_ones_do_not_differ():
    draws = Draws(2, [3, 3], draws=100, seed=0)

    def statistic(world, seed, counts):
        return world + seed + counts @ np.array([0.1, 0.2, 0.7])

    assert (draws.figure(statistic)[1] == draws.figure(statistic)[1]).all()


def test_what_cannot_be_told_is_left_out_and_no_interval_comes_of_few_draws():
    draws = Draws(2, [2], draws=200, seed=0)
    value, drawn = draws.figure(lambda w, s, counts: np.full(len(counts), [1.0, np.nan][s]))
    assert value == 1.0
    assert set(drawn[np.isfinite(drawn)]) == {1.0}
    assert interval(drawn) is None  # a quarter of the draws has the unknown seed alone
    assert interval(np.arange(1001.0)) == (25.0, 975.0)


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say_where_worlds_and_seeds_vary():
    rng = np.random.default_rng(0)
    worlds, seeds, classes = 12, 4, 6
    held = 0
    for trial in range(300):
        effect = (
            rng.normal(0, 1, (worlds, 1, 1))
            + rng.normal(0, 0.5, (worlds, seeds, 1))
            + rng.normal(0, 1, (worlds, 1, classes))
        )

        def mean(world, seed, counts, effect=effect):
            return counts @ effect[world, seed] / counts.sum(axis=1)

        _, drawn = Draws(seeds, [classes] * worlds, draws=500, seed=trial).figure(mean)
        low, high = interval(drawn)
        held += low <= 0 <= high
    # Twelve worlds are few for a percentile interval, which is a little narrow then.
    assert 0.88 <= held / 300 <= 0.98

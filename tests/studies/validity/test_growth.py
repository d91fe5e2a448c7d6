from __future__ import annotations

import numpy as np
import pytest

from makers.answers_to_features import answers
from spurbench.studies.validity import growth

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(0, 1, (9, 3))


def _classes(count, generators=1, bias=0.0, twins=True):
    """Images that are called the class as often as the truth says, and controls never."""
    found = []
    for k in range(TRUTH.shape[1]):
        rng = np.random.default_rng(k)
        generator = np.arange(count) % generators
        rate = TRUTH[:, [k]] + bias * rng.normal(size=(len(TRUTH), generators))[:, generator]
        images = answers(hits=rng.uniform(size=rate.shape) < rate, generator=generator)
        image = rng.permutation(count) if twins else [-1] * count
        controls = answers(hits=np.zeros((len(TRUTH), count)), image=image)
        found.append((images, controls))
    return found


def test_more_images_agree_better_and_no_more_are_asked_of_than_there_are():
    found = growth.by_images("effect", TRUTH, _classes(60), draws=40, seed=0)
    assert list(found) == [5, 10, 25, 50]
    assert sorted(found.values()) == list(found.values())
    assert found[50] - found[5] > 0.15


def test_all_images_give_the_tau_of_the_whole():
    classes = _classes(25)
    whole = growth.tau(TRUTH, np.stack([images.hit.mean(axis=1) for images, _ in classes], axis=1))
    found = growth.by_images("effect", TRUTH, classes, draws=3, seed=0)
    assert found[25] == pytest.approx(whole)


def test_twins_go_with_their_images_and_prior_images_are_as_many():
    hits = RNG.uniform(size=(4, 30)) < 0.5
    order = RNG.permutation(30)
    # A twin is answered as its image: together they cancel, whatever is chosen.
    twins = answers(hits=hits[:, order], image=order)
    images = answers(hits=hits)
    for one, other in growth.halves("effect", [(images, twins)], draws=5, seed=0):
        assert (one == 0).all() and (other == 0).all()
    prior = answers(hits=hits[:, order])
    apart = growth.halves("effect", [(images, prior)], draws=5, seed=0)
    assert any((one != 0).any() for one, _ in apart)


def test_halves_share_no_image():
    hits = np.eye(8)  # classifier i calls image i alone the class
    for one, other in growth.halves("accuracy", [(answers(hits=hits), None)], draws=5, seed=0):
        assert ((one > 0) ^ (other > 0)).all()


def test_generators_that_err_each_its_own_way_agree_better_together():
    classes = _classes(400, generators=4, bias=0.5)
    found = growth.by_generators("effect", TRUTH, classes)
    assert list(found) == [1, 2, 3, 4]
    assert found[4] > found[2] > found[1]
    assert growth.by_generators("effect", TRUTH, _classes(20)) == {}


def test_agreement_between_makings_is_of_ranks_and_of_sizes():
    one = np.array([[0.1, 0.5], [0.2, 0.9]])
    assert growth.agreement([(one, one + 0.1)]) == pytest.approx((1, 0.1))
    assert growth.agreement([(one, -one), (one, one)]) == pytest.approx((0, one.mean()))
    assert growth.agreement([]) is None
    holes = np.array([[0.2, np.nan], [0.4, 1.0]])
    assert growth.agreement([(one, holes)]) == pytest.approx((1, 0.15))
    assert np.isnan(growth.agreement([(one, np.full((2, 2), np.nan))])).all()

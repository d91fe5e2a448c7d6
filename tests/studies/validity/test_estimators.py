from __future__ import annotations

import numpy as np
import pytest

from makers.answers_to_features import answers
from spurbench.evaluation.metrics import auroc
from spurbench.studies.validity.estimators import ESTIMATORS, estimate

# One classifier, four images and three controls; p is of the class.
IMAGES = answers(
    hits=[[1, 1, 1, 0]], p=[[0.9, 0.8, 0.6, 0.1]], feature_alone=[1, 1, 0, 1], neither=[0] * 4
)
CONTROLS = answers(
    hits=[[1, 0, 0]], p=[[0.6, 0.3, 0.1]], feature_alone=[0] * 3, neither=[0, 1, 1], image=[2, 0, 1]
)


def _logit(p):
    return np.log(p) - np.log1p(-np.array(p))


def test_every_estimator_is_the_number_worked_out_by_hand():
    worked = {
        "accuracy": 3 / 4,
        "effect": 3 / 4 - 1 / 3,
        "probability effect": 2.4 / 4 - 1.0 / 3,
        "log-odds effect": _logit([0.9, 0.8, 0.6, 0.1]).mean() - _logit([0.6, 0.3, 0.1]).mean(),
        # 0.9 and 0.8 beat all three, 0.6 beats two and ties one, 0.1 ties one: 9 / 12.
        "AUROC": (3 + 3 + 2.5 + 0.5) / 12,
        "seen effect": 2 / 3 - 0,
    }
    assert set(worked) == set(ESTIMATORS)
    for name, value in worked.items():
        controls = None if name == "accuracy" else CONTROLS
        assert estimate(name, IMAGES, controls) == pytest.approx([value])


def test_the_accuracy_takes_no_controls_and_the_others_do():
    assert estimate("accuracy", IMAGES, CONTROLS) is None
    assert all(estimate(name, IMAGES, None) is None for name in ESTIMATORS if name != "accuracy")


def test_an_estimate_of_nothing_is_not_a_number():
    none_seen = answers(hits=[[1, 1]], p=[[0.9, 0.9]], feature_alone=[0, 0], neither=[0, 0])
    assert np.isnan(estimate("seen effect", none_seen, CONTROLS)).all()
    assert np.isnan(estimate("seen effect", IMAGES, IMAGES)).all()


def test_the_auroc_is_that_of_pairs_counted_one_by_one_for_each_classifier():
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.01, 0.99, (3, 20)).round(1), rng.uniform(0.01, 0.6, (3, 15)).round(1)
    p, q = p.clip(0.05, 0.95), q.clip(0.05, 0.95)
    told = estimate(
        "AUROC", answers(hits=p > 0.5, p=p), answers(hits=q > 0.5, p=q, image=range(15))
    )
    assert told == pytest.approx([auroc(a, b) for a, b in zip(p, q, strict=True)])

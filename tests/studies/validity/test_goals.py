from __future__ import annotations

from types import SimpleNamespace

from spurbench.studies.validity.goals import reached
from spurbench.studies.validity.results import Figure


def _figure(value, low=None):
    return Figure(value=value, low=low, high=value)


def _row(**changes):
    against = {
        "tau_classifiers": _figure(0.1, changes.get("low", 0.01)),
        "tau_pairs": _figure(0.1, 0.02),
        "calibration_error": _figure(changes.get("calibration", -1.0)),
    }
    agreement = SimpleNamespace(
        figures={"tau_classifiers": _figure(0.95), "tau_pairs": _figure(changes.get("tau", 0.7))},
        against={"real": against, "doctored": against, "real, accuracy": {}},
    )
    spurious = _figure(changes.get("spurious", 0.05), changes.get("spurious_low", 0.01))
    row = SimpleNamespace(
        measures={
            "novelty": _figure(changes.get("novelty", 0.9)),
            "object_free": _figure(changes.get("free", 0.98)),
            "seed_range": _figure(changes.get("range", 0.08)),
        },
        measures_against={
            "real": {"spurious_accuracy": spurious},
            "doctored": {"spurious_accuracy": _figure(-1.0, -1.0)},
        },
    )
    return reached(row, agreement, ("real", "doctored"))


def test_all_goals_are_reached_at_their_limits():
    assert set(_row().values()) == {True}


def test_each_goal_is_missed_by_its_own_number_alone():
    for changes, missed in (
        ({"tau": 0.69}, "tau, pairs 0.7"),
        ({"low": 0.0}, "tau, classifiers above baselines"),
        ({"calibration": 0.1}, "calibration error below"),
        ({"spurious": 0.04}, "spurious accuracy 5 points above real"),
        ({"spurious_low": -0.01}, "spurious accuracy 5 points above real"),
        ({"novelty": 0.89}, "novelty 90 %"),
        ({"free": 0.97}, "object-free 98 %"),
        ({"range": 0.09}, "seeds within 8 points"),
    ):
        goals = _row(**changes)
        assert [name for name, is_reached in goals.items() if not is_reached] == [missed]


def test_what_is_not_known_is_neither_reached_nor_missed():
    goals = _row(range=None, novelty=None)
    assert goals["seeds within 8 points"] is None and goals["novelty 90 %"] is None
    assert _row(spurious_low=None)["spurious accuracy 5 points above real"] is None

from __future__ import annotations

from types import SimpleNamespace

from spurbench.studies.validity.plan import Making, Search
from spurbench.studies.validity.results import Figure
from spurbench.studies.validity.search import choose

NAMES = ("a", "b", "c", "d")


def _row(name, tau, free=1.0, novel=0.9, spurious=0.5):
    measures = {"object_free": free, "novelty": novel, "spurious_accuracy": spurious}
    agreement = SimpleNamespace(figures={"tau_pairs": Figure(value=tau)})
    return SimpleNamespace(
        name=name,
        measures={key: Figure(value=value) for key, value in measures.items()},
        of=lambda control, estimator: (
            agreement if (control, estimator) == ("twin-base", "effect") else None
        ),
    )


def _rule():
    rows = tuple(Making(name=name, description="") for name in NAMES)
    return Search(
        world="mini", classes=("x",), images=25, object_free=0.95, novelty=0.85, tie=0.02, rows=rows
    )


def _chosen(*rows):
    found = choose(_rule(), rows)
    return found.qualified, found.winner


def test_the_highest_tau_of_those_that_qualify_wins():
    rows = (
        _row("a", 0.9, free=0.94),
        _row("b", 0.9, novel=0.84),
        _row("c", 0.6, free=0.95, novel=0.85),
        _row("d", 0.5, spurious=0.9),
    )
    assert _chosen(*rows) == (("c", "d"), "c")


def test_ties_are_with_the_best_and_broken_by_spurious_accuracy():
    rows = (
        _row("a", 0.70, spurious=0.3),
        _row("b", 0.69, spurious=0.4),
        _row("c", 0.675, spurious=0.9),  # within a tie of b, but not of the best
    )
    assert _chosen(*rows)[1] == "b"


def test_what_is_not_known_does_not_qualify_and_other_rows_are_no_candidates():
    assert _chosen(_row("a", 0.9, novel=None), _row("elsewhere", 0.9)) == ((), None)
    assert _chosen(_row("a", None), _row("b", -0.1)) == (("a", "b"), "b")

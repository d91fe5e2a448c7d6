from __future__ import annotations

import pytest

from makers.engines import CountingWork, tree
from spurbench.engines import ledger as ledgers
from spurbench.engines.ledger import ATTEMPTS, Ledger
from spurbench.engines.work import Unit


def names(units):
    return [unit.name for unit in units]


@pytest.fixture
def work(tmp_path):
    return CountingWork(tmp_path, [*tree(2, 3), Unit("light", weight=0.5)])


def do(work, unit):
    work.open()(unit)


def test_a_unit_is_ready_when_what_it_needs_is_in_the_store(work):
    ledger = Ledger(work)
    assert names(ledger.ready()) == ["prior/noun0", "prior/noun1", "light"]
    first = ledger.ready()[0]
    ledger.begin(first)
    assert names(ledger.ready()) == ["prior/noun1", "light"]
    do(work, first)
    ledger.succeed(first)
    assert names(ledger.ready()) == ["class0", "class2", "prior/noun1", "light"]


def test_what_the_store_holds_is_never_begun(work):
    do(work, work.units[0])
    assert names(Ledger(work).ready()) == ["class0", "class2", "prior/noun1", "light"]


def test_a_success_that_the_store_does_not_show_is_waited_for_and_then_lost(work, monkeypatch):
    ledger, unit = Ledger(work), work.units[0]
    ledger.begin(unit)
    ledger.succeed(unit)
    assert unit.name not in names(ledger.ready())
    assert not ledger.finished
    monkeypatch.setattr(ledgers.time, "monotonic", lambda: 1e9)
    assert unit.name in names(ledger.ready())
    late = Ledger(work)
    late.begin(unit)
    late.succeed(unit)
    do(work, unit)
    assert names(late.ready())[0] == "class0"


def test_a_failure_is_final_and_takes_with_it_what_needs_the_unit(work):
    ledger = Ledger(work)
    ledger.begin(work.units[0])
    ledger.fail(work.units[0], "no flower to be had")
    assert ledger.failed["prior/noun0"] == "no flower to be had"
    assert set(ledger.failed) == {"prior/noun0", "class0", "class2"}
    assert "prior/noun0, which it needs, failed: no flower" in ledger.failed["class2"]
    assert names(ledger.ready()) == ["prior/noun1", "light"]


def test_a_lost_worker_costs_an_attempt_and_the_last_one_the_unit(work):
    ledger, unit = Ledger(work), work.units[-1]
    for _ in range(ATTEMPTS):
        assert unit.name in names(ledger.ready())
        ledger.begin(unit)
        ledger.lose(unit, "by SIGKILL")
    assert unit.name not in names(ledger.ready())
    assert f"ended {ATTEMPTS} times, the last time by SIGKILL" in ledger.failed["light"]


@pytest.mark.parametrize("end", ["fail", "lose"])
def test_whatever_a_worker_says_the_store_decides(work, end):
    ledger, unit = Ledger(work), work.units[-1]
    ledger.begin(unit)
    do(work, unit)
    getattr(ledger, end)(unit, "it says")
    assert not ledger.failed
    assert unit.name not in names(ledger.ready())

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from makers.engines import CountingWork, alive, lines, tree
from spurbench.core.errors import SpurbenchError
from spurbench.engines.local import LocalEngine
from spurbench.engines.work import Unit

TWO = LocalEngine.on_cores(2)


@pytest.fixture
def expected(tmp_path):
    """What the units of ``tree(2, 4)`` write."""
    (tmp_path / "alone").mkdir()
    work = CountingWork(tmp_path / "alone", tree(2, 4))
    do = work.open()
    for unit in work.units:
        do(unit)
    return work.made()


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def test_every_unit_is_done_after_what_it_needs_by_workers_that_open_once(store, expected):
    work = CountingWork(store, tree(2, 4), seconds=0.1)
    assert TWO.run(work) == {}
    assert work.made() == expected
    begun = [line.split() for line in lines(store / "begun.log")]
    order = [name for name, _ in begun]
    assert len(order) == 6
    assert all(order.index(need) < order.index(u.name) for u in work.units for need in u.needs)
    opened = lines(store / "opened.log")
    assert len(opened) == len({*opened}) == 2
    assert {pid for _, pid in begun} == {*opened}


def test_what_is_done_starts_no_worker(store):
    work = CountingWork(store, tree(1, 1))
    assert LocalEngine.on_cores(1).run(work) == {}
    assert len(lines(store / "opened.log")) == 1
    TWO.run(work)
    assert len(lines(store / "opened.log")) == 1


def test_a_crash_costs_its_own_unit_an_attempt(store, expected, caplog):
    work = CountingWork(store, tree(2, 4), dying={"class1": 2})
    assert TWO.run(work) == {}
    assert work.made() == expected
    assert work.begun("class1") == 3
    assert len(lines(store / "begun.log")) == 6 + 2
    assert "class1: its worker ended (with status 3)" in caplog.text


def test_a_unit_that_fails_is_named_and_the_others_go_on(store):
    work = CountingWork(store, tree(2, 4), failing=("prior/noun1",), dying={"class0": 9})
    failed = TWO.run(work)
    assert failed["prior/noun1"] == "prior/noun1 can't be done"
    assert set(failed) == {"prior/noun1", "class1", "class3", "class0"}
    assert "with status 3" in failed["class0"]
    assert set(work.made()) == {"prior/noun0", "class2"}


def test_a_work_that_can_not_be_opened_ends_the_run_with_its_reason(store):
    with pytest.raises(SpurbenchError, match="no such base"):
        TWO.run(CountingWork(store, tree(1, 1), unopened="no such base"))


def test_a_work_of_a_killed_worker_is_taken_up_by_another(store, expected):
    work = CountingWork(store, tree(2, 4), seconds=0.3)
    thread = threading.Thread(target=TWO.run, args=(work,))
    thread.start()
    killed: set[str] = set()
    while thread.is_alive():
        for line in lines(store / "begun.log"):
            name, pid = line.split()
            if len(killed) < 3 and name not in killed and not work.file(name).exists():
                os.kill(int(pid), signal.SIGKILL)
                killed.add(name)
        time.sleep(0.05)
    assert len(killed) == 3
    assert work.made() == expected


def test_each_worker_has_gpus_of_its_own_and_one_thread_on_a_processor():
    engine = LocalEngine.on_gpus(2, 2, ["0", "3", "5", "6"])
    assert [e["CUDA_VISIBLE_DEVICES"] for e in engine.environments] == ["0,3", "5,6"]
    assert all(e["OMP_NUM_THREADS"] == "1" for e in TWO.environments)
    with pytest.raises(SpurbenchError, match="3 workers of 2 GPUs need 6, and there are 4"):
        LocalEngine.on_gpus(3, 2, ["0", "3", "5", "6"])


SCRIPT = """
    import pickle, sys
    from spurbench.cli.endings import terminating_in_order
    from spurbench.engines.local import LocalEngine
    work = pickle.load(open(sys.argv[1], "rb"))
    with terminating_in_order():
        LocalEngine.on_cores(2).run(work)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_who_started_them_ends_all_workers_within_a_second(tmp_path, store, sent):
    work = CountingWork(store, [Unit("a"), Unit("b")], seconds=60)
    (tmp_path / "work.pickle").write_bytes(pickle.dumps(work))
    (tmp_path / "lead.py").write_text(textwrap.dedent(SCRIPT))
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    lead = subprocess.Popen(
        [sys.executable, tmp_path / "lead.py", tmp_path / "work.pickle"],
        env=os.environ | {"PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    while len(lines(store / "begun.log")) < 2:
        assert lead.poll() is None
        time.sleep(0.02)
    lead.send_signal(sent)
    begun = time.monotonic()
    lead.wait(timeout=5)
    pids = [int(line.split()[1]) for line in lines(store / "begun.log")]
    while any(map(alive, pids)):
        assert time.monotonic() - begun < 1
        time.sleep(0.02)
    assert not work.made()

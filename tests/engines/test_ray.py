"""Ray's own cluster for tests: two nodes with a core each on this machine, and no network."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import types
from collections import Counter
from pathlib import Path

import pytest

from makers.engines import CountingWork, lines, tree
from spurbench.core.errors import SpurbenchError
from spurbench.engines.ledger import ATTEMPTS
from spurbench.engines.ray import RayEngine
from spurbench.engines.work import Unit

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    # Names of sockets have at most 107 characters, which pytest's folders take up.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_health_check_period_ms", "500")  # five missed ones are a node's death
        patch.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))
        quiet = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        head = NODE | {"num_cpus": 0, "temp_dir": folder} | quiet
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster
        cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def two(cluster):
    """The engine on two nodes that can be killed; it is connected to a third, which has no core."""
    missing = [cluster.add_node(wait=False, **NODE) for _ in range(2 - len(cluster.worker_nodes))]
    if missing:
        cluster.wait_for_nodes()
    return RayEngine(workers=None, gpus=0, address=cluster.address)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def alone(folder, units):
    """What the units write where nothing disturbs them."""
    folder.mkdir()
    work = CountingWork(folder, units)
    do = work.open()
    for unit in units:
        do(unit)
    return work.made()


def running(work):
    """The units in work and the process that has each, read from outside."""
    begun = [line.split() for line in lines(work.folder / "begun.log")]
    return {name: int(pid) for name, pid in begun if not work.file(name).exists() and alive(pid)}


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for_end(pids, until):
    while any(map(alive, pids)):
        assert time.monotonic() < until
        time.sleep(0.02)


def descendants(pid):
    """Processes that it started, and what they started."""
    found = {pid}
    everyone = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    while more := {p for p in everyone if p not in found and parent(p) in found}:
        found |= more
    return found - {pid}


def parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except FileNotFoundError:
        return None


def node_of(pid, cluster):
    """The node whose child a process is."""
    nodes = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    return nodes[parent(pid)]


def when(condition, act):
    """A thread that acts once, as soon as the condition gives something."""

    def watch():
        while not (found := condition()):
            time.sleep(0.02)
        act(found)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_every_unit_is_done_after_what_it_needs_by_workers_that_open_once(two, store, tmp_path):
    work = CountingWork(store, tree(2, 4), seconds=0.2)
    assert two.run(work) == {}
    assert work.made() == alone(tmp_path / "alone", work.units)
    begun = [line.split() for line in lines(store / "begun.log")]
    order = [name for name, _ in begun]
    assert len(order) == 6
    assert all(order.index(need) < order.index(u.name) for u in work.units for need in u.needs)
    opened = lines(store / "opened.log")
    assert len(opened) == len({*opened}) == 2
    assert {pid for _, pid in begun} == {*opened}
    assert not any(map(alive, opened))


def test_a_worker_that_is_killed_costs_its_unit_an_attempt_and_failures_are_named(
    two, store, caplog
):
    work = CountingWork(store, [*tree(2, 4), Unit("killed", weight=9)], 0.3, ("prior/noun1",))
    when(lambda: running(work).get("killed"), lambda pid: os.kill(pid, signal.SIGKILL))
    failed = two.run(work)
    assert failed["prior/noun1"] == "prior/noun1 can't be done"
    assert "prior/noun1, which it needs, failed" in failed["class3"]
    assert set(failed) == {"prior/noun1", "class1", "class3"}
    assert set(work.made()) == {"prior/noun0", "class0", "class2", "killed"}
    assert work.begun("killed") == 2
    assert "killed: its worker ended (its worker process has died" in caplog.text


@pytest.mark.slow
def test_a_work_that_can_not_be_opened_ends_the_run_with_its_reason(two, store):
    one = dataclasses.replace(two, workers=1)
    with pytest.raises(SpurbenchError, match="no such base"):
        one.run(CountingWork(store, tree(1, 1), unopened="no such base"))


def test_a_cluster_without_what_a_worker_needs_is_not_waited_for(two, store):
    with pytest.raises(SpurbenchError, match="no machine of the Ray cluster has a core and 2 GPUs"):
        dataclasses.replace(two, gpus=2).run(CountingWork(store, tree(1, 1)))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1 .*refused.*`ray start --head`"),
        ("ray://node1:10001", "'ray://node1:10001' is neither HOST:PORT nor auto"),
        ("node1", "'node1' is neither HOST:PORT nor auto"),
        ("node1:99999", "'node1:99999' is neither HOST:PORT nor auto"),
    ],
)
def test_an_address_without_a_cluster_is_said_at_once_in_a_line(store, address, says):
    engine, begun = RayEngine(workers=None, gpus=0, address=address), time.monotonic()
    with pytest.raises(SpurbenchError, match=says) as caught:
        engine.run(CountingWork(store, tree(1, 1)))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 10


def test_what_is_done_asks_for_no_cluster(store):
    work = CountingWork(store, [])
    assert RayEngine(workers=None, gpus=0, address="127.0.0.1:1").run(work) == {}


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpurbenchError, match=re.escape("pip install 'spurbench[ray]'")):
        RayEngine(workers=None, gpus=0)


def test_an_interruption_leaves_no_worker(two, store):
    work = CountingWork(store, [Unit("a"), Unit("b")], seconds=60)
    found = []

    def interrupt(units):
        found.extend([*units.values(), time.monotonic()])
        os.kill(os.getpid(), signal.SIGINT)

    when(lambda: len(units := running(work)) == 2 and units, interrupt)
    with pytest.raises(KeyboardInterrupt):
        two.run(work)
    *pids, at = found
    assert len(pids) == 2
    wait_for_end(pids, at + 2)
    assert not work.made()


@pytest.mark.slow
def test_a_work_whose_code_workers_lack_ends_the_run_with_its_reason(two, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "nowhere", module := types.ModuleType("nowhere"))
    module.Stranger = type("Stranger", (CountingWork,), {"__module__": "nowhere"})
    with pytest.raises(SpurbenchError, match=r"can't be taken up on .*No module named 'nowhere'"):
        two.run(module.Stranger(store, tree(1, 1)))


@pytest.mark.slow
def test_output_is_the_same_after_a_dozen_kills_of_nodes_and_workers(two, cluster, store, tmp_path):
    work = CountingWork(store, tree(3, 21), seconds=1)
    failed = []
    thread = threading.Thread(target=lambda: failed.append(two.run(work)), daemon=True)
    thread.start()
    kills = Counter()
    lost = Counter()
    while thread.is_alive() and lost.total() < 12:
        fresh = {n: pid for n, pid in running(work).items() if lost[n] < ATTEMPTS - 1}
        for name, pid in [*fresh.items()][:1]:
            if lost.total() % 3 == 0:
                kills["node"] += 1
                cluster.remove_node(node_of(pid, cluster), allow_graceful=False)
                cluster.add_node(**NODE)  # which starts in the main thread alone
            else:
                kills["worker"] += 1
                os.kill(pid, signal.SIGKILL)
            lost[name] += 1
            wait_for_end([pid], time.monotonic() + 10)
        time.sleep(0.02)
    thread.join()
    assert failed == [{}]
    assert work.made() == alone(tmp_path / "alone", work.units)
    assert kills == {"node": 4, "worker": 8}
    assert len(lines(store / "begun.log")) == len(work.units) + lost.total()


SCRIPT = """
    import logging, pickle, sys
    from spurbench.cli.endings import terminating_in_order
    from spurbench.engines.ray import RayEngine
    logging.basicConfig(level="INFO")
    work = pickle.load(open(sys.argv[1], "rb"))
    with terminating_in_order():
        print(RayEngine(workers=2, gpus=0, address=None).run(work))
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, None])
def test_a_cluster_of_its_own_ends_with_it(tmp_path, store, sent):
    work = CountingWork(store, [Unit("a"), Unit("b")], seconds=60 if sent else 0.1)
    (tmp_path / "work.pickle").write_bytes(pickle.dumps(work))
    (tmp_path / "lead.py").write_text(textwrap.dedent(SCRIPT))
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    lead = subprocess.Popen(
        [sys.executable, tmp_path / "lead.py", tmp_path / "work.pickle"],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if sent:
        while len(units := running(work)) < 2:
            assert lead.poll() is None
            time.sleep(0.02)
        started = descendants(lead.pid)
        assert {*units.values()} < started
        lead.send_signal(sent)
        begun = time.monotonic()
        if sent == signal.SIGKILL:  # of which Ray's own processes take note one by one
            wait_for_end(units.values(), begun + 10)
            for pid in filter(alive, started):
                os.kill(pid, signal.SIGKILL)
        else:
            wait_for_end(units.values(), begun + 2)
            wait_for_end(started, begun + 20)
    said, errors = lead.communicate(timeout=300)
    if sent:
        assert not work.made()
    else:
        assert work.made() == {"a": "a()", "b": "b()"}
        assert said == "{}\n"
        assert "a begins on" in errors
        assert "a is done" in errors


def test_a_node_that_dies_costs_its_unit_an_attempt(two, cluster, store, tmp_path, caplog):
    work = CountingWork(store, tree(1, 3), seconds=1)
    lost = []

    def kill(units):
        (name, pid), *_ = units.items()
        lost.append(name)
        cluster.remove_node(node_of(pid, cluster), allow_graceful=False)

    when(lambda: running(work), kill)
    assert two.run(work) == {}
    assert work.made() == alone(tmp_path / "alone", work.units)
    assert [work.begun(name) for name in lost] == [2]
    assert len(lines(store / "begun.log")) == 4 + 1
    assert f"{lost[0]}: its worker ended (" in caplog.text

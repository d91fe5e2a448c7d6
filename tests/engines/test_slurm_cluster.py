"""The Slurm engine on a real cluster of two nodes, whose jobs, nodes and leads are killed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from makers.engines import CountingWork, alive, lines, tree
from makers.slurm_cluster import cluster, missing, wait
from spurbench.engines.work import Unit

pytestmark = pytest.mark.slurm

SCRIPT = """
    import json, logging, pickle, sys
    from spurbench.cli.endings import terminating_in_order
    from spurbench.core.errors import SpurbenchError
    from spurbench.engines import slurm
    logging.basicConfig(level=logging.INFO)
    slurm.ASK = 1.0
    work, options = pickle.load(open(sys.argv[1], "rb"))
    with terminating_in_order():
        try:
            print(json.dumps(dict(slurm.SlurmEngine(options, 2, 0).run(work))))
        except SpurbenchError as error:
            sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def slurm():
    pytest.importorskip("submitit", reason="submitit is not installed")
    if packages := missing():
        pytest.skip(f"no Slurm; Debian: apt install {' '.join(packages)}")
    with cluster() as made:
        yield made


class Lead:
    """The engine in a process of its own, and the work that it has done."""

    def __init__(self, folder: Path, **toy) -> None:
        self._folder = folder
        (folder / "store").mkdir()
        self.work = CountingWork(folder / "store", **{"units": tree(2, 4)} | toy)
        self._process = None

    def start(self, **options) -> None:
        from spurbench.engines.slurm import SlurmOptions

        made = SlurmOptions(folder=self._folder / "jobs", **options)
        (self._folder / "work.pickle").write_bytes(pickle.dumps((self.work, made)))
        (self._folder / "lead.py").write_text(textwrap.dedent(SCRIPT))
        self._process = subprocess.Popen(
            [sys.executable, self._folder / "lead.py", self._folder / "work.pickle"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            stdout=(self._folder / "out").open("wb"),
            stderr=(self._folder / "err").open("wb"),
        )

    def send(self, what: signal.Signals) -> None:
        self._process.send_signal(what)

    def ends(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> dict[str, str]:
        """Why units failed."""
        assert self._process.wait(timeout=120) == 0, self.said
        return json.loads((self._folder / "out").read_text())

    @property
    def said(self) -> str:
        return (self._folder / "err").read_text()

    @property
    def jobs_folder(self) -> Path:
        return self._folder / "jobs"

    def in_work(self) -> list[tuple[str, int]]:
        """Units that were begun last and are not done, and the processes that have them."""
        begun = dict(line.split() for line in lines(self.work.folder / "begun.log"))
        return [(n, int(pid)) for n, pid in begun.items() if not self.work.file(n).exists()]

    def next_begun(self) -> None:
        """Wait until a further unit is in work."""
        before = len(lines(self.work.folder / "begun.log"))
        wait(lambda: self.ends() or len(lines(self.work.folder / "begun.log")) > before)
        assert not self.ends(), self.said


@pytest.fixture(scope="module")
def record(request):
    """Takes kills; says at the end how many there were."""
    kills: Counter[str] = Counter()
    yield lambda how: kills.update([how])
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        request.config.get_terminal_writer().line(f"\n{kills.total()} kills: {dict(kills)}")


@pytest.fixture
def expected(tmp_path):
    """What the units of ``tree(2, 4)`` write."""
    (tmp_path / "alone").mkdir()
    work = CountingWork(tmp_path / "alone", tree(2, 4))
    do = work.open()
    for unit in work.units:
        do(unit)
    return work.made()


def test_every_unit_is_done_after_what_it_needs_by_jobs_that_open_once(slurm, tmp_path, expected):
    lead = Lead(tmp_path, seconds=1)
    lead.start()
    assert lead.end() == {}
    assert lead.work.made() == expected
    begun = [line.split() for line in lines(lead.work.folder / "begun.log")]
    order = [name for name, _ in begun]
    assert len(order) == 6
    assert all(order.index(need) < order.index(u.name) for u in lead.work.units for need in u.needs)
    assert len(lines(lead.work.folder / "opened.log")) == len({pid for _, pid in begun}) == 2
    assert not slurm.jobs("RUNNING,PENDING")
    assert not lead.jobs_folder.exists()


def kill_process(slurm, lead):
    os.kill(lead.in_work()[-1][1], signal.SIGKILL)


def cancel(slurm, lead):
    slurm.say("scancel", slurm.jobs()[0][0])


def down_a_node(slurm, lead):
    slurm.say("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    wait(lambda: not [node for _, node in slurm.jobs() if node == "n2"])
    slurm.revive("n2")


def preempt(slurm, lead):
    slurm.say("sbatch", "--partition=urgent", "--output=/dev/null", "--wrap=sleep 1")


@pytest.mark.parametrize("kill", [kill_process, cancel, down_a_node, preempt])
def test_units_of_jobs_that_die_are_done_by_others(slurm, tmp_path, expected, kill, record):
    lead = Lead(tmp_path, seconds=2)
    lead.start()
    for _ in range(2):
        lead.next_begun()
        wait(lambda: len(slurm.jobs()) == 2 and len(lead.in_work()) == 2)
        kill(slurm, lead)
        record(kill.__name__)
    assert lead.end() == {}
    assert lead.work.made() == expected
    assert lead.said.count("it begins again") == 2
    assert not slurm.jobs("RUNNING,PENDING")


def test_a_job_that_is_said_to_have_failed_and_goes_on_does_no_harm(
    slurm, tmp_path, expected, record
):
    lead = Lead(tmp_path, seconds=2, units=tree(2, 4)[:2])
    lead.start()
    wait(lambda: len(slurm.jobs()) == 2 and len(lead.in_work()) == 2)
    slurm.kill("n2")
    (stopped,) = [pid for _, pid in lead.in_work() if node_of(pid) == "n2"]
    os.kill(stopped, signal.SIGSTOP)
    slurm.say("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    record("kill_node")
    lead.next_begun()
    os.kill(stopped, signal.SIGCONT)
    assert lead.end() == {}
    slurm.revive("n2")
    assert len(lines(lead.work.folder / "begun.log")) == 3
    assert len(lead.work.made()) == 2 and lead.work.made().items() <= expected.items()


def node_of(pid: int) -> str:
    """The node on which a job's process runs."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in environment if entry)["SLURMD_NODENAME"]


def test_slurm_begins_no_job_again_by_itself(slurm, tmp_path, expected):
    """Else it could meet the one that the engine begins for it."""
    lead = Lead(tmp_path, seconds=2)
    lead.start()
    lead.next_begun()
    job = slurm.jobs()[0][0]
    answer = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    assert answer.returncode != 0 and "disabled" in answer.stderr
    assert lead.end() == {}
    assert len(lines(lead.work.folder / "begun.log")) == 6


@pytest.mark.parametrize("moment", ["prior", "class"])
def test_another_lead_takes_up_what_a_killed_one_left(slurm, tmp_path, expected, moment, record):
    lead = Lead(tmp_path, seconds=2)
    lead.start()
    wait(lambda: any(name.startswith(moment) for name, _ in lead.in_work()))
    lead.send(signal.SIGKILL)
    record("kill_lead")
    wait(lead.ends)
    lead.start()
    assert lead.end() == {}
    assert lead.work.made() == expected


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_lead_ends_its_jobs_within_a_second_and_no_others(slurm, tmp_path, sent):
    lead = Lead(tmp_path, units=[Unit("a"), Unit("b"), Unit("c")], seconds=60)
    lead.start()
    wait(lambda: len(lead.in_work()) == 2)
    # What waits in the queue is ended too, but for what others have there.
    other = slurm.say("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 0")
    pids = [pid for _, pid in lead.in_work()]
    lead.send(sent)
    begun = time.monotonic()
    while any(map(alive, pids)):
        assert time.monotonic() - begun < 1
        time.sleep(0.02)
    wait(lead.ends)
    assert not lead.work.made()
    wait(
        lambda: (other, "n1") in slurm.jobs("COMPLETED") or (other, "n2") in slurm.jobs("COMPLETED")
    )


def test_a_unit_that_fails_is_named_and_the_others_go_on(slurm, tmp_path):
    lead = Lead(tmp_path, failing=("prior/noun1",), dying={"class0": 9})
    lead.start()
    failed = lead.end()
    assert failed["prior/noun1"] == "prior/noun1 can't be done"
    assert set(failed) == {"prior/noun1", "class1", "class3", "class0"}
    assert "FAILED" in failed["class0"] and lead.work.begun("class0") == 3
    assert set(lead.work.made()) == {"prior/noun0", "class2"}
    assert str(lead.jobs_folder) in lead.said
    logs = "".join(path.read_text() for path in lead.jobs_folder.rglob("*.err"))
    assert "SpurbenchError: prior/noun1 can't be done" in logs


def test_a_controller_that_is_away_for_a_while_costs_no_unit(slurm, tmp_path, expected):
    lead = Lead(tmp_path, seconds=3)
    lead.start()
    lead.next_begun()
    slurm.stop_controller()
    wait(lambda: "squeue fails" in lead.said, seconds=60)
    slurm.start_controller()
    assert lead.end() == {}
    assert lead.work.made() == expected
    assert len(lines(lead.work.folder / "begun.log")) == 6


@pytest.mark.parametrize(
    ("toy", "options", "said"),
    [
        ({"unopened": "no such base"}, {}, "no such base\n"),
        ({}, {"partition": "nowhere"}, "sbatch refuses: "),
        ({}, {"setup": ["exit 1"]}, "3 arrays of jobs ended (FAILED) without taking a unit"),
    ],
)
def test_where_no_worker_can_be_had_the_run_ends_with_the_reason(
    slurm, tmp_path, toy, options, said
):
    lead = Lead(tmp_path, **toy)
    lead.start(**options)
    wait(lead.ends, seconds=60)
    last = lead.said.splitlines(keepends=True)[-1]
    assert last.startswith(said)
    assert "Traceback" not in lead.said
    assert not slurm.jobs("RUNNING,PENDING")

"""The Slurm engine without Slurm; test_slurm_cluster.py has it on a cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from makers.engines import CountingWork, lines, tree
from spurbench.core.errors import SpurbenchError
from spurbench.engines import slurm
from spurbench.engines.offers import Offers
from spurbench.engines.slurm import SlurmEngine, SlurmOptions, read_options, work_off
from spurbench.engines.work import Unit

submitit = pytest.importorskip("submitit", reason="submitit is not installed")

FULL = """
partition = "gpu"
account = "vision"
qos = "long"
constraint = "h200"
time = 240
mem = 48
cpus_per_task = 12
setup = ["module load cuda"]
folder = "jobs"

[sbatch]
exclude = "node7"
exclusive = true
overcommit = false
"""


def batch_file(options: SlurmOptions, gpus: int) -> list[str]:
    """The lines that sbatch gets."""
    from submitit.slurm.slurm import _make_sbatch_string

    return _make_sbatch_string("run", "logs", **options.parameters(gpus)).splitlines()


def test_options_reach_sbatch(tmp_path):
    (tmp_path / "slurm.toml").write_text(FULL)
    text = batch_file(read_options(tmp_path / "slurm.toml"), gpus=2)
    asked = {line.removeprefix("#SBATCH --") for line in text if line.startswith("#SBATCH")}
    assert asked >= {
        "partition=gpu",
        "account=vision",
        "qos=long",
        "constraint=h200",
        "time=240",
        "mem=49152M",
        "cpus-per-task=12",
        "gpus-per-node=2",
        "exclude=node7",
        "exclusive",
        "no-requeue",
    }
    assert not any("overcommit" in line for line in asked)
    assert text.index("module load cuda") < text.index("run")


def test_an_option_by_its_name_at_sbatch_is_in_place_of_ours():
    text = batch_file(SlurmOptions(sbatch={"gpus-per-node": "h200:2"}), gpus=2)
    assert [line for line in text if "gpus" in line] == ["#SBATCH --gpus-per-node=h200:2"]


def test_what_is_not_said_is_the_clusters(monkeypatch):
    monkeypatch.setattr(sys, "path", ["", "/with blank"])
    text = batch_file(SlurmOptions(), gpus=0)
    asked = {line.removeprefix("#SBATCH --").split("=")[0] for line in text if "#SBATCH" in line}
    assert asked == {
        *("cpus-per-task", "error", "job-name", "no-requeue", "nodes", "open-mode", "output"),
        "signal",
    }
    assert "#SBATCH --cpus-per-task=1" in text
    assert "export OMP_NUM_THREADS=1" in text
    assert "export PYTHONPATH='/with blank'" in text
    of_gpus = batch_file(SlurmOptions(), gpus=2)
    assert "#SBATCH --cpus-per-task=16" in of_gpus
    assert not any("OMP_NUM_THREADS" in line for line in of_gpus)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('partitoin = "gpu"', "unknown key 'partitoin'; nearest: partition"),
        ("time = 0", "time: Input should be greater than 0, got 0"),
        ('[sbatch]\narray = "0-3"', "sbatch.array is set by the engine; leave it out"),
        ("[sbatch]\nno_requeue = true", "sbatch.no_requeue is set by the engine"),
        ("partition = gpu", "is not valid TOML"),
    ],
)
def test_wrong_options_are_refused(tmp_path, text, said):
    (tmp_path / "slurm.toml").write_text(text)
    with pytest.raises(SpurbenchError, match=said):
        read_options(tmp_path / "slurm.toml")


def test_missing_options_are_refused(tmp_path):
    with pytest.raises(SpurbenchError, match=r"slurm\.toml is missing"):
        read_options(tmp_path / "slurm.toml")


def test_missing_programs_are_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SpurbenchError, match="needs sbatch, which is not here"):
        SlurmEngine(SlurmOptions(), None, 0)
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(SpurbenchError, match=r"pip install 'spurbench\[slurm\]'"):
        SlurmEngine(SlurmOptions(), None, 0)


def test_every_offer_is_taken_once_the_first_ones_first(tmp_path):
    offers = Offers(tmp_path / "run")
    offers.open()
    for number in range(200):
        offers.offer(number, number % 7)

    def take_all(taker: str) -> list[tuple[str, int]]:
        return list(iter(lambda: offers.take(taker), None))

    with ThreadPoolExecutor(3) as pool:
        got = dict(zip("abc", pool.map(take_all, "abc"), strict=True))
    everything = sorted(offer for taken in got.values() for offer in taken)
    assert everything == [(f"{n:06}-{n % 7}", n % 7) for n in range(200)]
    assert all(taken == sorted(taken) for taken in got.values())
    assert {offer: taken.taker for offer, taken in offers.taken().items()} == {
        offer: taker for taker, taken in got.items() for offer, _ in taken
    }


@pytest.fixture
def in_a_job(tmp_path, monkeypatch):
    """Offers of all units of ``tree(1, 2)`` and a last one that fails, in a job's environment."""
    handlers = {number: slurm.signal.getsignal(number) for number in (15, 12)}
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    monkeypatch.setattr(slurm, "LINGER", 0)
    work = CountingWork(tmp_path, [*tree(1, 2), Unit("bad")], failing=("bad",))
    offers = Offers(tmp_path / "run")
    offers.open()
    for number in range(4):
        offers.offer(number, number)
    yield work, offers
    for number, handler in handlers.items():
        slurm.signal.signal(number, handler)


def test_a_job_opens_once_and_does_all_that_is_offered(in_a_job, tmp_path):
    work, offers = in_a_job
    work_off(work, tmp_path / "run", None)
    assert set(work.made()) == {"prior/noun0", "class0", "class1"}
    assert len(lines(tmp_path / "opened.log")) == 1
    said = [(taken.taker, taken.ended) for _, taken in sorted(offers.taken().items())]
    assert said == [("7_1", "")] * 3 + [("7_1", "bad can't be done")]
    work_off(work, tmp_path / "run", None)
    assert len(lines(tmp_path / "opened.log")) == 1


def test_a_job_that_can_not_open_the_work_says_why(in_a_job, tmp_path):
    work, offers = in_a_job
    object.__setattr__(work, "unopened", "no such base")
    with pytest.raises(SpurbenchError):
        work_off(work, tmp_path / "run", None)
    assert offers.refused() == "no such base"


def test_a_job_takes_no_unit_for_which_its_time_may_not_do(in_a_job, tmp_path, monkeypatch):
    work, offers = in_a_job
    clock = iter(range(0, 600, 25))
    monkeypatch.setattr(slurm.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(CountingWork, "_do", lambda *_: None)
    work_off(work, tmp_path / "run", 3)
    # Each look at the clock takes 25 seconds here, and a unit one of them.
    assert 1 <= len(offers.taken()) <= 2


class Queue:
    """Slurm in this process: what a job does, it does when it is submitted.

    Args:
        job: takes a job's id, work and offers, and returns the state in which the job is then.
        asked: called whenever Slurm is asked or told something.
    """

    def __init__(
        self,
        job: Callable[[str, CountingWork, Offers], str | None],
        asked: Callable[[], object] = lambda: None,
    ) -> None:
        self._job, self._asked = job, asked
        self.arrays: list[int] = []
        self.states: dict[str, str] = {}
        self.commands: list[str] = []
        self.parameters: dict[str, Any] = {}
        self.silent = 0

    def executor(self, folder: Path) -> Queue:
        return self

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters |= parameters

    def map_array(self, task, works, folders, minutes) -> list[Any]:
        assert task is work_off
        self.arrays.append(len(works))
        jobs = [f"{len(self.arrays)}_{n}" for n in range(len(works))]
        for job, work, folder in zip(jobs, works, folders, strict=True):
            if state := self._job(job, work, Offers(folder)):
                self.states[job] = state
        return [type("Job", (), {"job_id": job}) for job in jobs]

    def answer(self, command: str, name: str, *_: str) -> subprocess.CompletedProcess[str]:
        assert name == self.parameters["job_name"]
        self.commands.append(command)
        self._asked()
        assert len(self.commands) < 500, "it never ends"
        self.silent -= 1
        said = "".join(f"{job}|{state}|None\n" for job, state in self.states.items())
        return subprocess.CompletedProcess([], int(self.silent >= 0), said, "error: no answer\n")


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """Runs a work, two jobs at a time, in a queue."""
    monkeypatch.setattr(slurm, "LOOK", 0)
    monkeypatch.setattr(slurm, "ASK", 0)
    monkeypatch.setattr(slurm.shutil, "which", lambda command: command)

    def run(work: CountingWork, queue: Queue) -> dict[str, str]:
        monkeypatch.setattr(submitit, "SlurmExecutor", queue.executor)
        monkeypatch.setattr(slurm, "_slurm", queue.answer)
        return dict(SlurmEngine(SlurmOptions(folder=tmp_path / "jobs"), 2, 0).run(work))

    return run


def work_well(job: str, work: CountingWork, offers: Offers) -> str:
    while taken := offers.take(job):
        work.open()(work.units[taken[1]])
        offers.end(taken[0])
    return "COMPLETED"


def test_no_more_jobs_than_workers_and_units(tmp_path, engine):
    queue = Queue(work_well)
    work = CountingWork(tmp_path, tree(1, 5))
    assert engine(work, queue) == {}
    assert len(work.made()) == 6
    assert queue.arrays == [1, 2]
    assert queue.commands[-1] == "scancel"
    assert not (tmp_path / "jobs").exists()
    assert engine(work, queue) == {} and len(queue.arrays) == 2


@pytest.mark.parametrize("state", ["CANCELLED", "NODE_FAIL", "PREEMPTED", "TIMEOUT", None])
def test_a_unit_whose_job_died_begins_again_three_times_at_most(tmp_path, engine, state):
    def job(job: str, work: CountingWork, offers: Offers) -> str | None:
        offers.take(job)
        return state

    queue = Queue(job)
    failed = engine(CountingWork(tmp_path, [Unit("a")]), queue)
    said = state or "gone from the queue"
    assert failed == {"a": f"its worker ended 3 times, the last time job 3_0: {said}"}
    assert queue.arrays == [1, 1, 1]


def test_what_a_dead_job_had_done_is_done(tmp_path, engine):
    def job(job: str, work: CountingWork, offers: Offers) -> str:
        work.open()(work.units[offers.take(job)[1]])
        return "NODE_FAIL"

    queue = Queue(job)
    assert engine(CountingWork(tmp_path, [Unit("a")]), queue) == {}
    assert queue.arrays == [1]


def test_success_that_the_store_does_not_show_is_none(tmp_path, engine, monkeypatch):
    monkeypatch.setattr("spurbench.engines.ledger.SETTLING", 0)

    def job(job: str, work: CountingWork, offers: Offers) -> str:
        offers.end(offers.take(job)[0])
        return "COMPLETED"

    failed = engine(CountingWork(tmp_path, [Unit("a")]), Queue(job))
    assert "not in the store" in failed["a"]


def test_jobs_that_take_nothing_end_the_run(tmp_path, engine):
    queue = Queue(lambda *_: "FAILED")
    with pytest.raises(SpurbenchError, match=r"3 arrays of jobs ended \(FAILED\) without taking"):
        engine(CountingWork(tmp_path, tree(1, 2)), queue)
    assert len(queue.arrays) == 3
    assert queue.commands[-1] == "scancel"


def test_a_unit_that_fails_is_not_begun_again(tmp_path, engine):
    def job(job: str, work: CountingWork, offers: Offers) -> str:
        offers.end(offers.take(job)[0], "it can't be done")
        return "RUNNING"

    queue = Queue(job)
    assert engine(CountingWork(tmp_path, [Unit("a")]), queue) == {"a": "it can't be done"}
    assert queue.arrays == [1]
    assert list((tmp_path / "jobs").iterdir())


@pytest.mark.parametrize(("state", "silent"), [("COMPLETED", 0), ("RUNNING", 20)])
def test_neither_a_slow_file_system_nor_a_silent_slurm_costs_a_unit(
    tmp_path, engine, caplog, state, silent
):
    """What the job made is seen only some time after Slurm says, or would say, that it is over."""

    def job(job: str, work: CountingWork, offers: Offers) -> str:
        offers.take(job)
        return state

    def later() -> None:
        if len(queue.commands) == 20:
            work.open()(work.units[0])
            queue.states["1_0"] = "COMPLETED"

    queue, work = Queue(job, later), CountingWork(tmp_path, [Unit("a")])
    queue.silent = silent
    caplog.set_level("INFO", "spurbench")
    assert engine(work, queue) == {}
    assert queue.arrays == [1] and "begins again" not in caplog.text
    assert caplog.text.count("squeue fails (error: no answer)") == (silent > 0)


def test_an_interruption_in_the_midst_of_a_submission_cancels_it_too(tmp_path, engine):
    def job(*_: Any) -> str:
        raise KeyboardInterrupt

    queue = Queue(job)
    with pytest.raises(KeyboardInterrupt):
        engine(CountingWork(tmp_path, [Unit("a")]), queue)
    assert queue.commands == ["scancel"]

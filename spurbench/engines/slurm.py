"""The Slurm engine: arrays of jobs, submitted by submitit, that share units out among themselves.

Each job opens the work once and takes units as long as there are any, so the price of opening is
paid once a job, a job that waits in the queue holds nothing up, and no array is larger than the
number of workers. What jobs say lies in the run's folder; whether a unit is done the store says.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import Field

from spurbench.core.atomic import explained
from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError, described
from spurbench.engines.ledger import ATTEMPTS, Ledger
from spurbench.engines.local import ONE_THREAD
from spurbench.engines.offers import Offers, Taken
from spurbench.engines.view import View
from spurbench.engines.work import Unit, Work

log = logging.getLogger(__name__)

WORKERS = 64
"""Jobs in the queue at a time, unless said otherwise."""

CPUS_A_GPU = 8

LOOK = 1.0
"""Seconds between two looks into the run's folder."""

ASK = 5.0
"""Seconds between two questions to Slurm."""

LINGER = 15.0
"""Seconds for which a job that opened the work waits for a unit: those that need what it has just
made are offered a moment later."""

OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
"""States of jobs that won't come back."""

OURS = {"array", "error", "job-name", "no-requeue", "open-mode", "output", "requeue", "signal"}
"""Options of sbatch that the engine depends on."""


class SlurmOptions(Document):
    """What jobs ask Slurm for; what is not said is left to the cluster's defaults."""

    partition: str | None = Field(None, description="where jobs queue; several by commas")
    account: str | None = Field(None, description="who pays")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that nodes must have")
    time: int | None = Field(
        None,
        gt=0,
        description="minutes that a job may take; it takes a further unit if its longest fits in",
    )
    mem: float | None = Field(None, gt=0, description="memory of a job, in GB")
    cpus_per_task: int | None = Field(
        None, gt=0, description=f"cores of a job; {CPUS_A_GPU} a GPU, or one"
    )
    setup: tuple[str, ...] = Field(
        (), description="lines of shell before Python starts, such as `module load cuda`"
    )
    sbatch: dict[str, bool | int | str] = Field(
        {},
        description="further options of sbatch, or others than ours, by long names: gres, exclude",
    )
    folder: Path = Field(
        Path("spurbench-slurm"),
        description="for what jobs are told and their logs; every node must see it",
    )

    def parameters(self, gpus: int) -> dict[str, Any]:
        """What submitit makes an sbatch file of.

        Args:
            gpus: of each job.
        """
        environment = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        environment |= {} if gpus else ONE_THREAD
        asked = self.model_dump(
            include={"partition", "account", "qos", "constraint"}, exclude_none=True
        )
        if self.mem is not None:
            asked["mem"] = f"{round(self.mem * 1024)}M"
        if gpus:
            asked["gpus_per_node"] = gpus
        further = {k.replace("-", "_"): v for k, v in self.sbatch.items() if v is not False}
        return asked | {
            "time": self.time,
            "cpus_per_task": self.cpus_per_task or max(1, CPUS_A_GPU * gpus),
            # What can be imported here can be imported there, whatever the site exports.
            "setup": [f"export {k}={shlex.quote(v)}" for k, v in environment.items()]
            + [*self.setup],
            # A step of srun's would see one of the job's cores.
            "use_srun": False,
            "wckey": None,
            # A job that Slurm began again could meet the one that this engine began for it.
            "additional_parameters": {**further, "no_requeue": True},
        }


def read_options(path: Path) -> SlurmOptions:
    """The options in a TOML file.

    Raises:
        SpurbenchError: if it is missing, holds what is no option, or what the engine says itself.
    """
    try:
        options = validated(SlurmOptions, read_toml(path), str(path), SlurmOptions.model_fields)
    except FileNotFoundError:
        raise SpurbenchError(f"{path} is missing; --engine-options takes a TOML file") from None
    for name in options.sbatch:
        if name.replace("_", "-") in OURS:
            raise SpurbenchError(f"{path}: sbatch.{name} is set by the engine; leave it out")
    return options


class SlurmEngine:
    """Jobs on a Slurm cluster.

    Args:
        options: see :class:`SlurmOptions`.
        workers: how many jobs may be in the queue at a time; None for :data:`WORKERS`.
        gpus: of each job.

    Raises:
        SpurbenchError: if submitit or Slurm's commands are missing.
    """

    def __init__(self, options: SlurmOptions, workers: int | None, gpus: int) -> None:
        if find_spec("submitit") is None:
            raise SpurbenchError("--engine slurm needs submitit; pip install 'spurbench[slurm]'")
        for command in ("sbatch", "squeue", "scancel", "srun"):
            if shutil.which(command) is None:
                raise SpurbenchError(
                    f"--engine slurm needs {command}, which is not here; run it on a Slurm "
                    "cluster's login node, or choose another engine"
                )
        self._options, self._workers, self._gpus = options, workers or WORKERS, gpus

    def run(self, work: Work) -> Mapping[str, str]:
        """Have every unit done; see :meth:`spurbench.engines.work.Engine.run`."""
        ledger = Ledger(work)
        if ledger.finished:
            return ledger.failed
        with self._jobs(work) as jobs, View(len(work.units)) as view:
            counter = _Counter(work, ledger, jobs, view)
            while not ledger.finished:
                counter.offer()
                if counter.waiting:
                    jobs.submit(min(self._workers, counter.waiting + counter.busy))
                jobs.ask()
                counter.heed()
                view.settle(ledger.left)
                time.sleep(LOOK)
        if ledger.failed:
            log.warning("what the jobs said is in %s", jobs.folder)
        else:
            shutil.rmtree(jobs.folder, ignore_errors=True)
            with suppress(OSError):  # another run's folder is there too
                jobs.folder.parent.rmdir()
        return ledger.failed

    @contextmanager
    def _jobs(self, work: Work) -> Iterator[_Jobs]:
        """None yet; all that come are ended with the block, whatever ends it."""
        # submitit finds its files by a job's id, and Slurm's ids come again.
        name = f"spurbench-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder = self._options.folder.absolute() / name
        jobs = _Jobs(work, folder, name, self._options.time)
        try:
            jobs.open(self._options.parameters(self._gpus))
            yield jobs
        finally:
            jobs.cancel()


class _Jobs:
    """All jobs of a run. They have a name of their own, by which Slurm is asked and told."""

    def __init__(self, work: Work, folder: Path, name: str, minutes: int | None) -> None:
        self.folder, self.offers, self._name = folder, Offers(folder), name
        self._arguments = (work, folder, minutes)
        self._states: dict[str, str] = {}
        self._asked = 0.0
        self._barren = 0
        self._said = ""

    def open(self, parameters: Mapping[str, Any]) -> None:
        """Make ready to submit; ``parameters`` as submitit has them.

        Raises:
            SpurbenchError: if the folder can't be made.
        """
        from submitit import SlurmExecutor

        with explained(self.folder, "name another `folder` in --engine-options"):
            self.folder.mkdir(parents=True)
            self.offers.open()
        self._executor = SlurmExecutor(self.folder / "logs")
        self._executor.update_parameters(job_name=self._name, **parameters)

    def submit(self, wanted: int) -> None:
        """Have ``wanted`` jobs in the queue, if there are fewer.

        Raises:
            SpurbenchError: if there are none, and sbatch refuses or the last arrays ended without
                taking a unit.
        """
        alive = len(self._alive())
        if wanted <= alive:
            return
        if not alive:
            self._count_arrays()
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        count = wanted - alive
        self._executor.update_parameters(array_parallelism=count)
        try:
            with redirect_stderr(StringIO()):  # sbatch's errors, which are said below
                jobs = self._executor.map_array(work_off, *([it] * count for it in self._arguments))
        except (FailedJobError, FailedSubmissionError) as error:
            if not alive:
                raise SpurbenchError(f"sbatch refuses: {_last(str(error))}") from None
            self._say(f"sbatch refuses ({_last(str(error))}); going on with {alive} jobs")
            return
        self._states |= {job.job_id: "PENDING" for job in jobs}
        log.info(
            "Slurm has %d jobs more, %s; `scancel --name=%s` ends all of this run",
            count,
            jobs[0].job_id.split("_")[0],
            self._name,
        )

    def ask(self) -> None:
        """Have Slurm say what became of the jobs, unless it was asked a moment ago."""
        if time.monotonic() < self._asked + ASK:
            return
        answer = _slurm(
            "squeue", self._name, "--noheader", "--array", "--states=all", "--format=%i|%T|%r"
        )
        self._asked = time.monotonic()
        if answer.returncode:  # which says nothing of the jobs
            self._say(f"squeue fails ({_last(answer.stderr)}); asking again")
            return
        jobs = [line.strip().split("|", 2) for line in answer.stdout.splitlines()]
        self._states = {job: state for job, state, _ in jobs}
        alive = [(state, why) for _, state, why in jobs if state not in OVER]
        if alive and all(state == "PENDING" and why != "None" for state, why in alive):
            self._say(f"{len(alive)} jobs wait in the queue ({alive[0][1]})")

    def state(self, job: str) -> str | None:
        """Of a job that won't come back, in Slurm's word; None of one that may still work."""
        state = self._states.get(job, "gone from the queue")
        return None if job in self._alive() else state

    def worked(self) -> None:
        """One of them took a unit."""
        self._barren = 0

    def cancel(self) -> None:
        """End all that are left."""
        # By name: also what is being submitted while an interruption comes, and has no known id.
        answer = _slurm("scancel", self._name)
        if answer.returncode:
            log.warning(
                "scancel fails (%s); say `scancel --name=%s`", _last(answer.stderr), self._name
            )

    def _alive(self) -> set[str]:
        return {job for job, state in self._states.items() if state not in OVER}

    def _count_arrays(self) -> None:
        if self._barren == ATTEMPTS:
            ends = ", ".join(sorted(set(self._states.values()))) or "gone from the queue"
            raise SpurbenchError(
                f"{ATTEMPTS} arrays of jobs ended ({ends}) without taking a unit; their logs are "
                f"in {self.folder}, which every node must see"
            )
        self._barren += 1

    def _say(self, what: str) -> None:
        if what != self._said:
            log.info("Slurm: %s", what)
        self._said = what


class _Counter:
    """Where units go out to jobs and come back."""

    def __init__(self, work: Work, ledger: Ledger, jobs: _Jobs, view: View) -> None:
        self._ledger, self._jobs, self._view = ledger, jobs, view
        self._units = list(work.units)
        self._places = {unit.name: place for place, unit in enumerate(self._units)}
        self._offered = 0
        self._open: set[str] = set()
        self._closed: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many units are offered and not taken."""
        return self._offered - len(self._open) - len(self._closed)

    @property
    def busy(self) -> int:
        """How many units are in work."""
        return len(self._open)

    def offer(self) -> None:
        """Offer what is ready."""
        for unit in self._ledger.ready():
            self._ledger.begin(unit)
            self._jobs.offers.offer(self._offered, self._places[unit.name])
            self._offered += 1

    def heed(self) -> None:
        """Take note of what jobs took, what they say of it, and whose jobs are over.

        Raises:
            SpurbenchError: if one can't open the work.
        """
        if why := self._jobs.offers.refused():
            raise SpurbenchError(why)
        for offer, taken in sorted(self._jobs.offers.taken().items()):
            unit = self._units[taken.unit]
            if offer not in self._open | self._closed:
                self._open.add(offer)
                self._jobs.worked()
                self._view.begin(unit.name)
                log.info("%s: begun by job %s", unit.name, taken.taker)
            if offer in self._open and self._over(unit, taken):
                self._open.remove(offer)
                self._closed.add(offer)
                self._view.end(unit.name)

    def _over(self, unit: Unit, taken: Taken) -> bool:
        """Tell the ledger how it ended, if it did."""
        state = self._jobs.state(taken.taker)
        if taken.ended:
            self._ledger.fail(unit, taken.ended)
        elif taken.ended == "" or state == "COMPLETED":  # it may have said so, unseen as yet
            self._ledger.succeed(unit)
            log.info("%s: done", unit.name)
        elif state:
            self._ledger.lose(unit, f"job {taken.taker}: {state}")
        else:
            return False
        return True


def work_off(work: Work, folder: Path, minutes: int | None) -> None:
    """In a job: take units and do them, as long as there are any.

    Args:
        work: what they belong to.
        folder: of the run, where they are offered.
        minutes: that the job may take.
    """
    # submitit catches these to have a job begin again; here, one that is told to end does so.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    from submitit import JobEnvironment

    logging.basicConfig(level=logging.INFO)
    job, offers = JobEnvironment().job_id, Offers(folder)
    start = idle = time.monotonic()
    longest, do = 0.0, None
    while minutes is None or time.monotonic() + longest < start + 60 * minutes:
        taken = offers.take(job)
        if taken is None:
            if do is None or time.monotonic() > idle + LINGER:
                return
            time.sleep(LOOK)
            continue
        offer, place = taken
        begun = time.monotonic()
        if do is None:
            try:
                do = work.open()
            except Exception as error:
                offers.refuse(described(error))
                raise
        try:
            do(work.units[place])
        except Exception as error:  # one unit's failure must not cost the others
            log.exception("%s failed", work.units[place].name)
            offers.end(offer, described(error))
        else:
            offers.end(offer)
        idle = time.monotonic()
        longest = max(longest, idle - begun)


def _slurm(command: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Ask or tell Slurm about all jobs of a name."""
    return subprocess.run(
        [command, f"--name={name}", *options], capture_output=True, text=True, errors="replace"
    )


def _last(said: str) -> str:
    """The last line of what a command said."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "without a word")

"""The local engine: worker processes on this machine, one a GPU, or one a core with one thread."""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from spurbench.core.errors import SpurbenchError
from spurbench.engines.ledger import Ledger
from spurbench.engines.seat import heed
from spurbench.engines.view import View
from spurbench.engines.work import Unit, Work

log = logging.getLogger(__name__)

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""In the environment of every worker on a processor: two threads of each of two workers on two
cores would wait for each other, and sums that threads share out come out otherwise."""


@dataclass(frozen=True)
class LocalEngine:
    """Processes on this machine.

    Attributes:
        environments: what to set in each worker's environment; there are as many workers.
    """

    environments: Sequence[Mapping[str, str]]

    @classmethod
    def on_cores(cls, workers: int) -> LocalEngine:
        """Workers with one thread each."""
        return cls([ONE_THREAD] * workers)

    @classmethod
    def on_gpus(cls, workers: int, gpus_each: int, names: Sequence[str]) -> LocalEngine:
        """Workers that see GPUs of their own.

        Args:
            workers: how many.
            gpus_each: GPUs that one worker takes.
            names: of the GPUs, as ``CUDA_VISIBLE_DEVICES`` takes them.

        Raises:
            SpurbenchError: if there are too few.
        """
        if workers * gpus_each > len(names):
            raise SpurbenchError(
                f"{workers} workers of {gpus_each} GPUs need {workers * gpus_each}, and there are "
                f"{len(names)}; lower --workers or --gpus-per-class"
            )
        shares = [names[w * gpus_each : (w + 1) * gpus_each] for w in range(workers)]
        return cls([{"CUDA_VISIBLE_DEVICES": ",".join(share)} for share in shares])

    def run(self, work: Work) -> Mapping[str, str]:
        """Have every unit done; see :meth:`spurbench.engines.work.Engine.run`."""
        ledger, inbox = Ledger(work), queue.Queue[tuple[_Worker, dict[str, Any]]]()
        packed = pickle.dumps((logging.getLogger("spurbench").getEffectiveLevel(), work))
        with View(len(work.units)) as view, _workers(self.environments, packed, inbox) as workers:
            while not ledger.finished:
                free = [worker for worker in workers if worker.unit is None]
                for unit, worker in zip(ledger.ready(len(free)), free, strict=False):
                    ledger.begin(unit)
                    view.begin(unit.name)
                    worker.give(unit)
                with suppress(queue.Empty):
                    heed(*inbox.get(timeout=1), ledger, view)
                view.settle(ledger.left)
            return ledger.failed


class _Worker:
    """The place of a process, which is started when it is first given a unit."""

    def __init__(
        self,
        environment: Mapping[str, str],
        packed: bytes,
        inbox: queue.Queue[tuple[_Worker, dict[str, Any]]],
    ) -> None:
        self.unit: Unit | None = None
        self._environment, self._packed, self._inbox = environment, packed, inbox
        self._process: subprocess.Popen[bytes] | None = None

    def give(self, unit: Unit) -> None:
        """Have it do a unit."""
        self.unit = unit
        first = self._process is None
        process = self._process or self._start()
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, which its reader says
            process.stdin.write((self._packed if first else b"") + f"{unit.name}\n".encode())
            process.stdin.flush()

    def take(self) -> Unit:
        """The unit that it was given, of which it is free now."""
        unit, self.unit = self.unit, None
        assert unit is not None
        return unit

    def bury(self) -> tuple[Unit | None, str]:
        """The unit over which it ended, and how it did; another process takes its place."""
        assert self._process is not None
        status = self._process.wait()
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        self._errors.seek(0)
        words = [line for line in self._errors.read().decode(errors="replace").splitlines() if line]
        self._close()
        unit, self.unit = self.unit, None
        return unit, how + (f": {words[-1][:200]}" if words else "")

    def kill(self) -> None:
        """End it and all that it started, at once: the store takes no harm."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._errors.close()
        self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        # What can be imported here can be imported there.
        path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spurbench.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **path, **self._environment},
            # The terminal's Ctrl-C is for who started this; and all of a group can be ended.
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        return self._process

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):  # the last one of a process that was killed may not
                    self._inbox.put((self, json.loads(line)))
        self._inbox.put((self, {"event": "ended"}))


@contextmanager
def _workers(
    environments: Sequence[Mapping[str, str]],
    packed: bytes,
    inbox: queue.Queue[tuple[_Worker, dict[str, Any]]],
) -> Iterator[list[_Worker]]:
    """Places for workers; whoever is in one is ended with the block, whatever ends it."""
    workers = [_Worker(environment, packed, inbox) for environment in environments]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()

"""The ray engine: workers on the machines of a Ray cluster.

Each is an actor, which keeps its GPUs and what it has loaded. Plain tasks would not do: to free a
GPU, Ray ends the process of a task after one call, and without that gives it another GPU than the
one that its weights lie on.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import pickle
import queue
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from spurbench.core.errors import SpurbenchError, described, reason
from spurbench.engines.ledger import Ledger
from spurbench.engines.local import ONE_THREAD
from spurbench.engines.seat import heed
from spurbench.engines.view import View
from spurbench.engines.work import Unit, Work
from spurbench.engines.worker import Channel, serve

log = logging.getLogger(__name__)

STARTS = 3
"""Workers in a row that end before they are up, after which no more are asked for."""

ANSWER = 10.0
"""Seconds for which a cluster's address may not answer."""


@dataclass(frozen=True)
class RayEngine:
    """Actors on a Ray cluster, with one core each.

    Attributes:
        workers: how many at once; None: as many as the cluster has room for, whose nodes may come
            and go.
        gpus: GPUs of each.
        address: of a running cluster, ``HOST:PORT`` or ``auto`` for the one that this machine is
            part of. None: one is started on this machine, and ended after use.

    Raises:
        SpurbenchError: if Ray is not installed.
    """

    workers: int | None
    gpus: int
    address: str | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise SpurbenchError("--engine ray needs ray; pip install 'spurbench[ray]'")

    def run(self, work: Work) -> Mapping[str, str]:
        """Have every unit done; see :meth:`spurbench.engines.work.Engine.run`."""
        ledger = Ledger(work)
        if ledger.finished:  # no cluster is asked for nothing
            return ledger.failed
        packed = pickle.dumps((logging.getLogger("spurbench").getEffectiveLevel(), work))
        with (
            View(len(work.units)) as view,
            _cluster(self.address),
            _crew(packed, self.workers, self.gpus) as crew,
        ):
            while not ledger.finished:
                ready = ledger.ready()
                crew.grow(len(ready))
                for unit, worker in zip(ready, crew.free(), strict=False):
                    ledger.begin(unit)
                    view.begin(unit.name)
                    worker.give(unit)
                    log.info("%s begins on %s", unit.name, worker.where)
                for worker, message in crew.hear(timeout=1):
                    if message["event"] == "done" and worker.unit is not None:
                        log.info("%s is done", worker.unit.name)
                    heed(worker, message, ledger, view)
                view.settle(ledger.left)
        return ledger.failed


class _Actor:
    """What Ray runs in a worker's process; several of its methods at once, in threads."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._names: queue.Queue[str] = queue.Queue()
        messages, channel = os.pipe()
        self._messages, self._channel = os.fdopen(messages, "rb"), Channel(channel)

    def where(self) -> str:
        """The machine and the process."""
        return f"{socket.gethostname()} (process {os.getpid()})"

    def serve(self) -> None:
        """Do units until the process is ended."""
        level, work = pickle.loads(self._packed)  # from the process that started this one
        serve(work, self._names, self._channel, level)

    def give(self, name: str) -> None:
        """Have it do a unit."""
        self._names.put(name)

    def hear(self) -> bytes:
        """Messages, a JSON object a line; waits for one."""
        lines = self._messages.read1()
        while not lines.endswith(b"\n"):
            lines += self._messages.read1()
        return lines


class _Worker:
    """An actor as who asked for it sees it.

    Attributes:
        where: it runs; None before it does.
        unit: what it has in work.
    """

    def __init__(self, actor: Any) -> None:
        self.where: str | None = None
        self.unit: Unit | None = None
        self._actor, self._how = actor, ""
        self._calls: dict[str, Any] = {"where": actor.where.remote()}

    @property
    def calls(self) -> Collection[Any]:
        """What it has yet to answer."""
        return self._calls.values()

    def give(self, unit: Unit) -> None:
        """Have it do a unit."""
        self.unit = unit
        self._actor.give.remote(unit.name)

    def take(self) -> Unit:
        """The unit that it was given, of which it is free now."""
        unit, self.unit = self.unit, None
        assert unit is not None
        return unit

    def bury(self) -> tuple[Unit | None, str]:
        """The unit over which it ended, and how it did."""
        unit, self.unit = self.unit, None
        return unit, self._how

    def kill(self) -> None:
        """End it, at once: the store takes no harm."""
        import ray

        ray.kill(self._actor)

    def answers(self, answered: Collection[Any]) -> Iterator[dict[str, Any]]:
        """Its messages, out of the calls that are answered; the last one may be of its end."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        for name, call in [(n, c) for n, c in self._calls.items() if c in answered]:
            del self._calls[name]
            try:
                answer = ray.get(call)
            except RayTaskError as error:  # our own code, before any unit
                raise SpurbenchError(
                    f"the work can't be taken up on {self.where}: {described(error.cause)}"
                ) from None
            except RayError as error:
                self._how = _how(error)
                self.kill()  # it may only be out of reach
                yield {"event": "ended"}
                return
            if name == "where":
                self.where = answer
                self._calls["serve"] = self._actor.serve.remote()
                self._calls["hear"] = self._actor.hear.remote()
            elif name == "hear":
                yield from map(json.loads, answer.splitlines())
                self._calls["hear"] = self._actor.hear.remote()


class _Crew:
    """The workers that there are, and those that are asked for."""

    def __init__(self, packed: bytes, limit: int | None, gpus: int) -> None:
        import ray

        self._limit, self._gpus = limit, gpus
        self._workers: list[_Worker] = []
        self._stillborn, self._short = 0, False
        self._actors = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=gpus,
            max_restarts=0,
            max_concurrency=3,
            runtime_env={"env_vars": {} if gpus else ONE_THREAD},
        )
        self._packed = ray.put(packed)
        if not (room := _room(gpus)):
            raise SpurbenchError(
                f"no machine of the Ray cluster has {_needs(gpus)} for a worker; add one with "
                "`ray start --address=HOST:PORT`"
            )
        log.info("the Ray cluster has room for %d workers with %s each", room, _needs(gpus))

    def grow(self, units: int) -> None:
        """Ask for workers for units that are ready, as long as there is room."""
        waiting = sum(worker.unit is None for worker in self._workers)
        if units <= waiting:
            return
        room = _room(self._gpus)
        if not room and not self._short:
            log.warning("no machine of the Ray cluster is left; waiting for one")
        self._short = not room
        limit = room if self._limit is None else self._limit
        for _ in range(min(units - waiting, limit - len(self._workers))):
            self._workers.append(_Worker(self._actors.remote(self._packed)))

    def free(self) -> Iterator[_Worker]:
        """Those that are up and have nothing to do."""
        return (worker for worker in self._workers if worker.where and worker.unit is None)

    def hear(self, timeout: float) -> Iterator[tuple[_Worker, dict[str, Any]]]:
        """What workers say; waits up to ``timeout`` seconds for the first message."""
        import ray

        calls = [call for worker in self._workers for call in worker.calls]
        if not calls:
            time.sleep(timeout)
            return
        ray.wait(calls, timeout=timeout)
        answered = set(ray.wait(calls, num_returns=len(calls), timeout=0)[0])
        for worker in list(self._workers):
            for message in worker.answers(answered):
                if message["event"] == "ended":
                    self._workers.remove(worker)
                    self._count(worker)
                yield worker, message
            if worker.where:
                self._stillborn = 0

    def _count(self, ended: _Worker) -> None:
        if ended.where:
            return
        self._stillborn += 1
        if self._stillborn == STARTS:
            raise SpurbenchError(
                f"no worker starts on the Ray cluster ({ended.bury()[1]}); is this version of "
                "spurbench installed on every machine of it?"
            )

    def end(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.kill()


@contextmanager
def _crew(packed: bytes, limit: int | None, gpus: int) -> Iterator[_Crew]:
    """Workers, that are ended with the block, whatever ends it."""
    crew = _Crew(packed, limit, gpus)
    try:
        yield crew
    finally:
        crew.end()


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """Join a cluster, or start one here, and leave it with the block; a started one ends."""
    # Read when Ray is imported. What a cluster does is nobody else's business; and under `uv run`
    # Ray would upload the working directory.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray

    if ray.is_initialized():
        raise SpurbenchError("this process is part of a Ray cluster; call ray.shutdown() first")
    which: dict[str, Any] = {"address": address}
    if address is None:
        which = {"address": "local", "include_dashboard": False}
    else:
        _check(address)
    on_termination = signal.getsignal(signal.SIGTERM)  # Ray puts its own in the place
    with redirect_stdout(_ToLog()):
        try:
            ray.init(**which, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())
            raise SpurbenchError(
                f"no Ray cluster can be {f'joined at {address}' if address else 'started'}: {said}"
            ) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_termination)
        try:
            yield
        finally:
            ray.shutdown()


class _ToLog(io.TextIOBase):
    """Ray prints what its nodes report, such as each worker that died, which we say ourselves."""

    def write(self, text: str) -> int:
        if text.strip():
            log.debug("%s", text.strip())
        return len(text)


def _check(address: str) -> None:
    """Ray itself would try for minutes, and can't be interrupted meanwhile.

    Raises:
        SpurbenchError: if nothing listens there.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise SpurbenchError(
            f"--address {address!r} is neither HOST:PORT nor auto; e.g. node1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except OSError as error:
        raise SpurbenchError(
            f"no Ray cluster answers at {address} ({error.strerror or reason(error)}); "
            "`ray start --head` starts one and says its address"
        ) from None


def _room(gpus: int) -> int:
    """How many workers the cluster could hold at once."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(
        int(min(node.get("CPU", 0), node.get("GPU", 0) // gpus if gpus else node.get("CPU", 0)))
        for node in nodes
    )


def _needs(gpus: int) -> str:
    return "a core" + (f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")


def _how(error: Exception) -> str:
    """How an actor ended, in a line, without its numbers and Ray's general advice."""
    from ray.exceptions import ActorUnavailableError

    if isinstance(error, ActorUnavailableError):
        return "out of reach, as where its machine is gone"
    said = " ".join(str(error).split())
    cause = said.rpartition("The actor is dead because ")[2]
    return cause.partition(" Some common causes")[0][:300]

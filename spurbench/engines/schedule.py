"""When which worker would do which unit: a simulation of what engines do, event by event.

Graham (1969): whatever the order, a list schedule of W workers ends within
``total / W + (1 - 1 / W) * critical path``, and none ends before the greater of
``total / W`` and the critical path.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import ceil, floor, inf

from spurbench.engines.ledger import ATTEMPTS
from spurbench.engines.work import Unit


@dataclass(frozen=True)
class Cluster:
    """Workers, and what holds them up.

    Attributes:
        workers: how many.
        loading: seconds until a worker that is given its first unit can begin it.
        loaded: bytes that it reads from the store for that.
        bandwidth: bytes a second of the store, shared equally by all that read or write; None: as
            many as anyone wants.
        between_failures: mean seconds of work between the failures of one worker, which come
            without memory; None: never. In a failed worker's place another one loads.
        checkpoint: share of a unit after which what is done of it outlives its worker; at 1 a lost
            unit begins from nothing.
        seed: of the failures.
    """

    workers: int
    loading: float = 0.0
    loaded: float = 0.0
    bandwidth: float | None = None
    between_failures: float | None = None
    checkpoint: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Run:
    """A worker's attempt at a unit, from its being given it, in seconds from the start."""

    unit: str
    worker: int
    start: float
    end: float
    lost: bool


@dataclass(frozen=True)
class Schedule:
    """What would happen.

    Attributes:
        cluster: where.
        runs: in the order of their ends.
        makespan: seconds until the last one's end.
        critical_path: names of the units that no number of workers would do at the same time, and
            take longest.
        critical_seconds: how long; neither loading nor the store counts.
        moving: worker-seconds in which the store was waited for.
        given_up: names of the units that were lost too often, or needed such a one.
    """

    cluster: Cluster
    runs: tuple[Run, ...]
    makespan: float
    critical_path: tuple[str, ...]
    critical_seconds: float
    moving: float
    given_up: tuple[str, ...]

    @property
    def busy(self) -> float:
        """Worker-seconds of all runs: loading, work, waiting for the store."""
        return sum(run.end - run.start for run in self.runs)

    @property
    def utilisation(self) -> float:
        """Share of the workers' time, from start to end, in which they were busy."""
        return self.busy / (self.cluster.workers * self.makespan) if self.makespan else 1.0

    @property
    def used(self) -> int:
        """Workers that were given a unit at all."""
        return len({run.worker for run in self.runs})


def simulate(
    units: Sequence[Unit],
    cluster: Cluster,
    *,
    seconds: Mapping[str, float] | None = None,
    moved: Mapping[str, float] | None = None,
) -> Schedule:
    """Do the units as an engine does: of those that are ready the heaviest, by whoever is free.

    Args:
        units: each after those that it needs. What one needs that is not among them is done.
        cluster: by whom.
        seconds: how long each takes, by its name; None: as many as it weighs.
        moved: bytes, by a unit's name, that it reads from the store and writes to it; they move
            after its seconds.
    """
    if seconds is None:
        seconds = {unit.name: unit.weight for unit in units}
    path, longest = _critical_path(units, seconds)
    simulation = _Simulation(units, cluster, seconds, moved or {})
    simulation.run()
    return Schedule(
        cluster=cluster,
        runs=tuple(simulation.runs),
        makespan=simulation.runs[-1].end if simulation.runs else 0.0,
        critical_path=path,
        critical_seconds=longest,
        moving=simulation.waited,
        given_up=tuple(simulation.given_up),
    )


@dataclass
class _Attempt:
    """A run that goes on.

    Attributes:
        parts: what is left of it, seconds and the bytes that move after them.
        begun: when the first of its parts began to compute or, where ``moving``, to move.
    """

    unit: Unit
    worker: int
    start: float
    parts: list[tuple[float, float]]
    begun: float
    moving: bool = False


class _Simulation:
    def __init__(
        self,
        units: Sequence[Unit],
        cluster: Cluster,
        seconds: Mapping[str, float],
        moved: Mapping[str, float],
    ) -> None:
        self.runs: list[Run] = []
        self.waited = 0.0
        self.given_up: dict[str, None] = {}
        self._units, self._cluster, self._moved = units, cluster, moved
        self._seconds, self._left = seconds, dict(seconds)
        self._position = {unit.name: i for i, unit in enumerate(units)}
        self._missing = {u.name: self._position.keys() & u.needs for u in units}
        self._needed_by: dict[str, list[Unit]] = defaultdict(list)
        for unit in units:
            for need in self._missing[unit.name]:
                self._needed_by[need].append(unit)
        self._lost: Counter[str] = Counter()
        self._ready: list[tuple[float, int]] = []
        self._free = list(range(min(cluster.workers, len(units))))  # no more are ever used
        self._warm: set[int] = set()
        self._going: dict[int, _Attempt] = {}
        self._random = random.Random(cluster.seed)
        self._now = 0.0
        # When, a number that breaks ties, of which attempt, and whether it is its worker's failure.
        self._events: list[tuple[float, int, _Attempt, bool]] = []
        # All who move bytes get equally many, so what each has got since the beginning is one
        # number, and the next to end is who needs least beyond it.
        self._got = 0.0
        self._movers: list[tuple[float, int, _Attempt]] = []
        self._moving = 0
        self._ties = count()

    def run(self) -> None:
        """Let everything happen."""
        for unit in self._units:
            if not self._missing[unit.name]:
                self._offer(unit)
        self._hand_out()
        while self._going:
            self._advance()
            self._hand_out()

    def _offer(self, unit: Unit) -> None:
        heapq.heappush(self._ready, (-unit.weight, self._position[unit.name]))

    def _hand_out(self) -> None:
        """Give each ready unit to a free worker, while there are both."""
        while self._ready and self._free:
            unit = self._units[heapq.heappop(self._ready)[1]]
            worker = heapq.heappop(self._free)
            parts = [(self._left[unit.name], self._moved.get(unit.name, 0.0))]
            if worker not in self._warm:
                parts.insert(0, (self._cluster.loading, self._cluster.loaded))
            attempt = self._going[worker] = _Attempt(unit, worker, self._now, parts, self._now)
            self._compute(attempt)
            if self._cluster.between_failures is not None:
                after = self._random.expovariate(1 / self._cluster.between_failures)
                self._at(self._now + after, attempt, failure=True)

    def _at(self, when: float, attempt: _Attempt, *, failure: bool = False) -> None:
        heapq.heappush(self._events, (when, next(self._ties), attempt, failure))

    def _compute(self, attempt: _Attempt) -> None:
        attempt.begun, attempt.moving = self._now, False
        self._at(self._now + attempt.parts[0][0], attempt)

    def _advance(self) -> None:
        """Go on to the next moment at which something happens, and let all of it happen."""
        while self._movers and not self._goes_on(self._movers[0][2]):
            heapq.heappop(self._movers)
        rate = (self._cluster.bandwidth or inf) / max(1, self._moving)
        due = self._now + (self._movers[0][0] - self._got) / rate if self._movers else inf
        moment = min(due, self._events[0][0] if self._events else inf)
        if self._movers:
            # What is due has got all that it asked for, whatever rounding says.
            last = self._movers[0][0]
            self._got = last if due <= moment else self._got + (moment - self._now) * rate
        self._now = moment
        while self._movers and self._movers[0][0] <= self._got:
            attempt = heapq.heappop(self._movers)[2]
            if self._goes_on(attempt):
                self._end_part(attempt)
        while self._events and self._events[0][0] <= self._now:
            _, _, attempt, failure = heapq.heappop(self._events)
            if not self._goes_on(attempt):
                continue
            if failure:
                self._fail(attempt)
            else:
                self._computed(attempt)

    def _goes_on(self, attempt: _Attempt) -> bool:
        return self._going.get(attempt.worker) is attempt

    def _computed(self, attempt: _Attempt) -> None:
        size = attempt.parts[0][1]
        attempt.begun, attempt.moving = self._now, True
        self._moving += 1
        if self._cluster.bandwidth is None or not size:
            self._end_part(attempt)
        else:
            heapq.heappush(self._movers, (self._got + size, next(self._ties), attempt))

    def _end_part(self, attempt: _Attempt) -> None:
        self._stop_moving(attempt)
        attempt.parts.pop(0)
        self._warm.add(attempt.worker)
        if attempt.parts:
            self._compute(attempt)
            return
        self._end(attempt, lost=False)
        for other in self._needed_by[attempt.unit.name]:
            self._missing[other.name].discard(attempt.unit.name)
            if not self._missing[other.name]:
                self._offer(other)

    def _stop_moving(self, attempt: _Attempt) -> None:
        self._moving -= 1
        self.waited += self._now - attempt.begun

    def _fail(self, attempt: _Attempt) -> None:
        unit, share = attempt.unit, self._cluster.checkpoint
        seconds = self._seconds[unit.name]
        if len(attempt.parts) == 1 and seconds:  # it was done with loading
            computed = attempt.parts[0][0] if attempt.moving else self._now - attempt.begun
            done = (seconds - attempt.parts[0][0] + computed) / seconds
            # The last share is kept by the unit's end, bytes and all.
            shares = min(floor(done / share), ceil(1 / share) - 1)
            self._left[unit.name] = seconds * (1 - shares * share)
        if attempt.moving:
            self._stop_moving(attempt)
        self._warm.discard(attempt.worker)
        self._end(attempt, lost=True)
        self._lost[unit.name] += 1
        if self._lost[unit.name] == ATTEMPTS:
            self._give_up(unit)
        else:
            self._offer(unit)

    def _end(self, attempt: _Attempt, *, lost: bool) -> None:
        del self._going[attempt.worker]
        heapq.heappush(self._free, attempt.worker)
        self.runs.append(Run(attempt.unit.name, attempt.worker, attempt.start, self._now, lost))

    def _give_up(self, unit: Unit) -> None:
        open_ = [unit]
        while open_:
            name = open_.pop().name
            self.given_up[name] = None
            open_ += [other for other in self._needed_by[name] if other.name not in self.given_up]


def _critical_path(
    units: Sequence[Unit], seconds: Mapping[str, float]
) -> tuple[tuple[str, ...], float]:
    """The chain of needs that takes longest, and its seconds."""
    ends: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for unit in units:
        latest = max(
            (need for need in unit.needs if need in ends), key=ends.__getitem__, default=None
        )
        before[unit.name] = latest
        ends[unit.name] = seconds[unit.name] + (ends[latest] if latest is not None else 0.0)
    path: list[str] = []
    name = max(ends, key=ends.__getitem__, default=None)
    longest = ends[name] if name is not None else 0.0
    while name is not None:
        path.insert(0, name)
        name = before[name]
    return tuple(path), longest

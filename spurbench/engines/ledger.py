"""Which units are to be done, by whom it may be tried, and what became of them."""

from __future__ import annotations

import logging
import time
from bisect import bisect_left, insort
from collections import Counter, defaultdict

from spurbench.engines.work import Unit, Work

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a unit is begun whose worker dies over it, before it is given up."""

SETTLING = 60.0
"""Seconds for which a finished unit may be unseen: a network file system's memory of what was
there."""


class Ledger:
    """The state of a work while an engine runs it; the engine says what it begins and what ended.

    What is done is asked of the work, hence of the store: whatever a worker, a future or a job's
    state says of success is a reason to look, and no more.

    Attributes:
        failed: why, by name, of the units that are given up.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._open = {unit.name: unit for unit in work.units if not work.done(unit)}
        self._order = {
            unit.name: (-unit.weight, place) for place, unit in enumerate(self._open.values())
        }
        self._lacking: dict[str, set[str]] = {}
        self._needed_by: defaultdict[str, list[str]] = defaultdict(list)
        self._ready: list[tuple[tuple[float, int], str]] = []
        self._settling: dict[str, float] = {}
        self._lost: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        for unit in self._open.values():
            self._lacking[unit.name] = {need for need in unit.needs if need in self._open}
            for need in self._lacking[unit.name]:
                self._needed_by[need].append(unit.name)
            if not self._lacking[unit.name]:
                self._put(unit.name)

    @property
    def left(self) -> int:
        """How many units are neither done nor given up."""
        self._settle()
        return len(self._open)

    @property
    def finished(self) -> bool:
        """Whether none is left."""
        return not self.left

    def ready(self, most: int | None = None) -> list[Unit]:
        """Units that may begin now, the heaviest first; ``most`` of them at most."""
        self._settle()
        return [self._open[name] for _, name in self._ready[:most]]

    def begin(self, unit: Unit) -> None:
        """A worker has it now."""
        del self._ready[bisect_left(self._ready, (self._order[unit.name], unit.name))]

    def succeed(self, unit: Unit) -> None:
        """A worker says that it did it; it is done as soon as the store shows it."""
        self._settling[unit.name] = time.monotonic() + SETTLING
        self._settle()

    def fail(self, unit: Unit, why: str) -> None:
        """A worker says that it can't be done, and lives; another attempt would end the same."""
        if self._work.done(unit):
            self._close(unit.name)
        else:
            self._give_up(unit.name, why)

    def lose(self, unit: Unit, how: str) -> None:
        """Its worker is gone, ``how`` says in words; unless it is done, it may begin again."""
        if self._work.done(unit):
            self._close(unit.name)
            return
        self._lost[unit.name] += 1
        if self._lost[unit.name] == ATTEMPTS:
            how = f"its worker ended {ATTEMPTS} times, the last time {how}"
            self._give_up(unit.name, how)
        else:
            log.warning("%s: its worker ended (%s); it begins again", unit.name, how)
            self._put(unit.name)

    def _settle(self) -> None:
        for name, until in list(self._settling.items()):
            unit = self._open[name]
            if self._work.done(unit):
                del self._settling[name]
                self._close(name)
            elif time.monotonic() > until:
                del self._settling[name]
                self.lose(unit, "and what it says to have made is not in the store")

    def _put(self, name: str) -> None:
        """It may begin."""
        insort(self._ready, (self._order[name], name))

    def _close(self, name: str) -> None:
        """It is done; what needs nothing else may begin."""
        del self._open[name]
        for other in self._needed_by.pop(name, ()):
            self._lacking[other].discard(name)
            if other in self._open and not self._lacking[other]:
                self._put(other)

    def _give_up(self, name: str, why: str) -> None:
        """It failed, and with it all that needs it."""
        del self._open[name]
        self.failed[name] = why
        for other in self._needed_by.pop(name, ()):
            if other in self._open:
                self._give_up(other, f"{name}, which it needs, failed: {why}")

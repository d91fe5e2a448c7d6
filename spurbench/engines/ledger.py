"""Which units are to be done, by whom it may be tried, and what became of them."""

from __future__ import annotations

import logging
import time
from collections import Counter

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
        self._running: set[str] = set()
        self._settling: dict[str, float] = {}
        self._lost: Counter[str] = Counter()
        self.failed: dict[str, str] = {}

    @property
    def left(self) -> int:
        """How many units are neither done nor given up."""
        self._settle()
        return len(self._open)

    @property
    def finished(self) -> bool:
        """Whether none is left."""
        return not self.left

    def ready(self) -> list[Unit]:
        """Units that may begin now, the heaviest first."""
        self._settle()
        idle = self._open.keys() - self._running - self._settling.keys()
        units = [self._open[name] for name in self._open if name in idle]
        units = [unit for unit in units if not any(need in self._open for need in unit.needs)]
        return sorted(units, key=lambda unit: -unit.weight)

    def begin(self, unit: Unit) -> None:
        """A worker has it now."""
        self._running.add(unit.name)

    def succeed(self, unit: Unit) -> None:
        """A worker says that it did it; it is done as soon as the store shows it."""
        self._running.discard(unit.name)
        self._settling[unit.name] = time.monotonic() + SETTLING
        self._settle()

    def fail(self, unit: Unit, why: str) -> None:
        """A worker says that it can't be done, and lives; another attempt would end the same."""
        self._running.discard(unit.name)
        if self._work.done(unit):
            self._open.pop(unit.name, None)
        else:
            self._give_up(unit, why)

    def lose(self, unit: Unit, how: str) -> None:
        """Its worker is gone, ``how`` says in words; unless it is done, it may begin again."""
        self._running.discard(unit.name)
        if self._work.done(unit):
            self._open.pop(unit.name, None)
            return
        self._lost[unit.name] += 1
        if self._lost[unit.name] == ATTEMPTS:
            self._give_up(unit, f"its worker ended {ATTEMPTS} times, the last time {how}")
        else:
            log.warning("%s: its worker ended (%s); it begins again", unit.name, how)

    def _settle(self) -> None:
        for name, until in list(self._settling.items()):
            unit = self._open[name]
            if self._work.done(unit):
                del self._open[name], self._settling[name]
            elif time.monotonic() > until:
                del self._settling[name]
                self.lose(unit, "and what it says to have made is not in the store")

    def _give_up(self, unit: Unit, why: str) -> None:
        """It failed, and with it all that needs it."""
        del self._open[unit.name]
        self.failed[unit.name] = why
        for other in list(self._open.values()):
            if unit.name in other.needs and other.name in self._open:
                self._give_up(other, f"{unit.name}, which it needs, failed: {why}")

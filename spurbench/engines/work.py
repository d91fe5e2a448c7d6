"""What an engine runs: units of work whose results lie in a store that every worker reaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Unit:
    """A piece of work that one worker does.

    Attributes:
        name: what people read of it, unique within its work: ``prior/flower``, ``105_koala``.
        needs: names of the units whose results it takes from the store.
        weight: how long it takes beside the other units of its work; the heaviest start first.
    """

    name: str
    needs: tuple[str, ...] = ()
    weight: float = 1.0


class Work(Protocol):
    """Units, how one is done, and whether it is.

    It is pickled to the workers: small, and without any model.
    """

    @property
    def units(self) -> Sequence[Unit]:
        """All of them, each after those that it needs."""
        ...

    def done(self, unit: Unit) -> bool:
        """Whether the store holds what the unit makes.

        Asked again and again, by a process without models: it reads markers, not contents.
        """
        ...

    def open(self) -> Callable[[Unit], None]:
        """In a worker, once: load what the units share; what is returned does one unit.

        Raises:
            SpurbenchError: if it can't be loaded. The same for what is returned: if a unit can't
                be done, now or at another attempt.
        """
        ...


class Engine(Protocol):
    """Workers, somewhere."""

    def run(self, work: Work) -> Mapping[str, str]:
        """Have every unit done that is not; what is left undone is named.

        A worker that dies costs its unit an attempt (:class:`spurbench.engines.ledger.Ledger`). An
        interruption ends every worker.

        Returns:
            Why, by name, of each unit that is not done.

        Raises:
            SpurbenchError: if no worker can be had.
        """
        ...

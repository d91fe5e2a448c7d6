"""A work for engines' tests: files that say what they were made from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.engines.work import Unit


@dataclass(frozen=True)
class CountingWork:
    """Units that write ``NAME.txt``: their name, and in brackets what their needs wrote.

    Every beginning leaves the line ``NAME PID`` in ``begun.log``, every opening ``PID`` in
    ``opened.log``.

    Attributes:
        folder: the store.
        units: see :class:`spurbench.engines.work.Work`.
        seconds: that a unit takes, in small steps.
        failing: units that fail.
        dying: units whose worker dies over them, as often as said.
        unopened: say why, instead of opening.
    """

    folder: Path
    units: Sequence[Unit]
    seconds: float = 0.0
    failing: tuple[str, ...] = ()
    dying: dict[str, int] = field(default_factory=dict)
    unopened: str | None = None

    def file(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '-')}.txt"

    def done(self, unit: Unit) -> bool:
        return self.file(unit.name).exists()

    def open(self) -> Callable[[Unit], None]:
        if self.unopened:
            raise SpurbenchError(self.unopened)
        append(self.folder / "opened.log", str(os.getpid()))
        return self._do

    def _do(self, unit: Unit) -> None:
        append(self.folder / "begun.log", f"{unit.name} {os.getpid()}")
        if unit.name in self.failing:
            raise SpurbenchError(f"{unit.name} can't be done")
        if self.begun(unit.name) <= self.dying.get(unit.name, 0):
            os._exit(3)
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            time.sleep(0.01)
        needed = ", ".join(self.file(need).read_text() for need in unit.needs)
        atomic.write_text(self.file(unit.name), f"{unit.name}({needed})")

    def begun(self, name: str) -> int:
        """How often a unit was begun."""
        return sum(line.split()[0] == name for line in lines(self.folder / "begun.log"))

    def made(self) -> dict[str, str]:
        """What the units wrote, by name."""
        return {u.name: self.file(u.name).read_text() for u in self.units if self.done(u)}


def tree(nouns: int, classes: int) -> list[Unit]:
    """Priors, and the classes that share them."""
    priors = [Unit(f"prior/noun{n}") for n in range(nouns)]
    return priors + [
        Unit(f"class{c}", needs=(f"prior/noun{c % nouns}",), weight=2.0) for c in range(classes)
    ]


def append(path: Path, line: str) -> None:
    """Add a line in one write, which other processes' lines don't get into."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def lines(path: Path) -> list[str]:
    """Those of a file; none without it."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be noticed as dead does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

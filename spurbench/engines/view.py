"""All workers' progress in one place: a bar for the whole, and one for each unit in work."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TaskID as Bar

from spurbench.core.text import printable

log = logging.getLogger(__name__)


class View:
    """Bars on the terminal while the block runs; nothing where standard error is none.

    Args:
        units: how many the work has.
    """

    def __init__(self, units: int) -> None:
        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or not log.isEnabledFor(logging.INFO),
        )
        self._all = self._bars.add_task("all", total=units)
        self._units: dict[str, Bar] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def begin(self, name: str) -> None:
        """A worker has the unit now."""
        self._units[name] = self._bars.add_task(escape(printable(name)), total=None)

    def advance(self, name: str, label: str, at: int, of: int) -> None:
        """The unit's worker is at ``at`` of ``of`` steps of what ``label`` says."""
        said = escape(printable(f"{name}: {label}"))
        self._bars.update(self._units[name], description=said, completed=at, total=of)

    def end(self, name: str) -> None:
        """The unit's worker has it no longer."""
        self._bars.remove_task(self._units.pop(name))

    def settle(self, left: int) -> None:
        """``left`` units are neither done nor given up."""
        total = self._bars.tasks[0].total or 0
        self._bars.update(self._all, completed=total - left)

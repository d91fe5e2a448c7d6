"""How far a long loop is: a bar on the terminal, or in a worker a message to who started it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Report = Callable[[str, int, int], None]
"""Takes what is being done, how far it is, and of how many."""

_report: ContextVar[Report | None] = ContextVar("report", default=None)

Advance = Callable[[int], object]

Step = TypeVar("Step")

INTERVAL = 0.2
"""Seconds between two messages of one loop, at least."""


@contextmanager
def reporting_to(report: Report) -> Iterator[None]:
    """Within the block, :func:`progress` sends messages and draws nothing."""
    token = _report.set(report)
    try:
        yield
    finally:
        _report.reset(token)


@contextmanager
def progress(label: str, total: int, *, done: int = 0, unit: str = "it") -> Iterator[Advance]:
    """Show a loop's progress while the block runs.

    Args:
        label: what is being done.
        total: how many steps there are.
        done: steps that were made before.
        unit: what a step is called.

    Yields:
        What takes the number of steps that were made since.
    """
    report = _report.get()
    if report is not None:
        yield _Messages(report, label, total, done)
        return
    from tqdm import tqdm

    with tqdm(desc=label, total=total, initial=done, unit=unit, leave=False, disable=None) as bar:
        yield bar.update


def tracked(
    steps: Iterable[Step], label: str, total: int, *, done: int = 0, unit: str = "it"
) -> Iterator[Step]:
    """The steps, one after another, shown as :func:`progress` does."""
    with progress(label, total, done=done, unit=unit) as advance:
        for step in steps:
            yield step
            advance(1)


class _Messages:
    """Not one a step: a pipe is no bar."""

    def __init__(self, report: Report, label: str, total: int, done: int) -> None:
        self._report, self._label, self._total, self._done = report, label, total, done
        self._next = 0.0

    def __call__(self, steps: int) -> None:
        self._done += steps
        now = time.monotonic()
        if now >= self._next or self._done == self._total:
            self._report(self._label, self._done, self._total)
            self._next = now + INTERVAL

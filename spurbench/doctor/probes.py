"""Looking at what may be broken or slow: a finding in any case, in a few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from spurbench.core.checks import Check, Status
from spurbench.core.errors import SpurbenchError, reason

PATIENCE = 3.0
"""Seconds that a model source may take to answer, and a cache to be counted."""

Probe = Callable[[], Sequence[Check]]


class Waiting:
    """A probe in a thread that is abandoned when it takes too long.

    Name resolution and network file systems have no timeout of their own. The thread is a daemon,
    so that it does not hold up the end of the program either. ``status`` is what it means if there
    is no answer.
    """

    def __init__(self, name: str, probe: Probe, status: Status = "warn") -> None:
        self.name, self.status = name, status
        self.checks: Sequence[Check] | None = None
        self._thread = threading.Thread(target=self._run, args=(probe,), daemon=True)
        self._thread.start()

    def _run(self, probe: Probe) -> None:
        self.checks = guarded(self.name, probe, self.status)

    def result(self, deadline: float) -> Sequence[Check]:
        """The checks, or one that says that they were not there by ``deadline`` (monotonic)."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self.checks is None:
            return [Check(self.name, self.status, f"no answer within {PATIENCE:g} s")]
        return self.checks


def guarded(name: str, probe: Probe, status: Status) -> Sequence[Check]:
    """The probe's checks, or one that says how the probe itself broke."""
    try:
        return probe()
    except SpurbenchError as error:
        return [Check(name, status, str(error))]
    except Exception as error:  # a doctor must not fall ill itself
        return [Check(name, status, f"{type(error).__name__}: {reason(error)}")]


def size(count: float) -> str:
    """Bytes in words."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1000:.0f} kB"

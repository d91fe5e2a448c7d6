"""How a command ends: its status, and the one line for what went wrong."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from spurbench.core.errors import reason

# As shells count them: 128 and the signal that would have ended the program.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
READER_GONE = 128 + 13  # SIGPIPE, which not every system has

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = tuple(os.strerror(code) for code in sorted(_FULL))
_NO_MEMORY_TEXTS = ("out of memory", "can't allocate memory", "Cannot allocate memory")


def explained(error: BaseException) -> str | None:
    """The line for what a file, a full disk or little memory can cause.

    Returns:
        What is wrong and what to do; None for what only we can mend.
    """
    causes = list(_causes(error))
    for cause in causes:
        if _means(cause, _FULL, _FULL_TEXTS):
            name = getattr(cause, "filename", None)
            return (
                f"{f'{name}: ' if name else ''}the disk, or your share of it, is full "
                f"({reason(cause)}); free some space and give the same command again"
            )
    for cause in causes:
        if isinstance(cause, MemoryError) or _means(cause, {errno.ENOMEM}, _NO_MEMORY_TEXTS):
            return (
                f"memory ran out ({reason(cause)}); close other programs, or take a smaller batch "
                "(--batch-size of eval, sample.batch_size of a recipe)"
            )
    if isinstance(error, RecursionError):
        return f"a file or a value is nested too deep ({reason(error)}); make it flatter"
    if isinstance(error, UnicodeError):
        return f"a name or a text is no valid UTF-8 ({reason(error)}); rename or mend it"
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return f"a path holds a NUL character ({reason(error)}); no file is called so"
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):  # OSError from 3.13 on
        return f"a path goes round in a circle of links ({reason(error)}); name another"
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return name + (error.strerror or reason(error))
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from; libraries hide a full disk behind errors of their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _means(error: BaseException, codes: set[int], texts: tuple[str, ...]) -> bool:
    return (isinstance(error, OSError) and error.errno in codes) or any(
        text in str(error) for text in texts
    )


@contextmanager
def terminating_in_order() -> Iterator[None]:
    """On SIGTERM, end as by ``sys.exit``: what is half written is removed, locks are given back."""

    def end(*_: Any) -> None:
        sys.exit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave_output() -> None:
    """Nobody reads on, as in ``| head``, or the disk is full: what is still buffered goes nowhere.

    Else the interpreter would try once more as it ends, and complain.
    """
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)

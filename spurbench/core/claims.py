"""Temporary files and folders whose maker, if it was killed, can be told to be dead.

A maker holds a lock (``flock``) on what it made. The system releases it when the process ends,
however it ends, and on no account before; so what nobody holds is nobody's. Where there are no such
locks (Windows, some network file systems), nothing is ever taken for abandoned.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(make: Callable[[], Path]) -> Iterator[Path]:
    """Hold what ``make`` creates, a file or a folder of a name that was never used, for a block."""
    while True:
        path = make()
        try:
            descriptor = _lock(path)
        except FileNotFoundError:
            continue  # someone who removes the abandoned was quicker than this
        if path.exists():
            break
        _release(descriptor)
    try:
        yield path
    finally:
        _release(descriptor)


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Remove those files and folders whose makers are dead; what can't be removed stays."""
    for path in paths:
        try:
            descriptor = _lock(path, wait=False)
        except OSError:  # it is held, gone, a link, or another user's
            continue
        if descriptor is not None:
            remove(path)
            _release(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock(path: Path, *, wait: bool = True) -> int | None:
    """A descriptor that holds the lock; None where there are no locks.

    Raises:
        FileNotFoundError: if it is gone.
        OSError: if it can't be opened; or without ``wait`` if it is held, or there are no locks.
    """
    if fcntl is None:
        return None
    # Never wait for a pipe's other end; never follow a link out of the folder.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        if wait:
            return None
        raise
    return descriptor


def _release(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)

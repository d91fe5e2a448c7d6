"""Files and folders that are either whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spurbench.core import claims
from spurbench.core.errors import SpurbenchError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
}


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file whose content becomes that of ``path`` when the block succeeds.

    A crash leaves the old content or the new, never a part. Parent folders are created. The
    temporary file lies beside ``path``, so the rename stays within one file system; those that
    killed writers of ``path`` left there are removed.

    Raises:
        SpurbenchError: if ``path`` can't be written here, or the disk is full.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        claims.remove_abandoned(file for file in _leftovers(path, "tmp") if not file.is_dir())
        with claims.claimed(lambda: _new_file(path)) as temporary:
            try:
                with temporary.open("r+b") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``; see :func:`writing`."""
    with writing(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON; NaN and infinity are refused (``ValueError``)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block succeeds.

    An existing ``path`` is replaced only then; when the block raises, it stays as it was. What
    killed writers of ``path`` left beside it is removed.

    Raises:
        SpurbenchError: if someone else is writing ``path``, it can't be written here, or the disk
            is full.
    """
    temporary = _beside(path, "tmp")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path):
            _settle(path)
            for leftover in _leftovers(path, "tmp"):
                claims.remove(leftover)
            temporary.mkdir()
            try:
                yield temporary
                for item in temporary.rglob("*"):
                    if item.is_file():
                        with item.open("rb") as file:
                            os.fsync(file.fileno())
                replace_folder(temporary, path)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise


def replace_folder(source: Path, target: Path) -> None:
    """Rename the folder ``source`` to ``target``, removing what ``target`` held before.

    If that fails, ``target`` is what it was. Only one process may do so at a time.
    """
    _settle(target)
    if target.exists():
        # A folder can't be renamed over a full one: move the old one aside first, so that the
        # moment without ``target`` is two renames long.
        retired = _beside(target, "old")
        target.rename(retired)
        try:
            source.rename(target)
        except BaseException:
            retired.rename(target)
            raise
        claims.remove(retired)
    else:
        source.rename(target)
    _sync_folder(target.parent)


@contextmanager
def explained(
    path: Path, advice: str = "write elsewhere, or make room for it there"
) -> Iterator[None]:
    """Say in one line that ``path`` can't be written, when the block finds so.

    For whatever writes: plain files, and libraries that have errors of their own for it.

    Args:
        path: what is being written.
        advice: what to do about it.

    Raises:
        SpurbenchError: if the disk is full, or ``path`` can't be written. What has to do with
            other files is raised as it is.
    """
    try:
        yield
    except SpurbenchError:
        raise
    except Exception as error:
        code = refusal(error)
        named = getattr(error, "filename", None)
        if code is None or (code in _CLOSED and not _is_of(path, named)):
            raise
        raise SpurbenchError(f"{path} can't be written: {os.strerror(code)}; {advice}") from error


def refusal(error: BaseException) -> int | None:
    """The ``errno`` by which the system refused to write, told by ``error`` or by its cause.

    Libraries tell it in many ways: Rust's in words, ``datasets`` before it tries.
    """
    cause: BaseException | None = error
    while cause is not None:
        code = cause.errno if isinstance(cause, OSError) else None
        if code in _FULL | _CLOSED:
            return code
        found = re.search(r"\(os error (\d+)\)", str(cause))
        if found and int(found[1]) in _FULL:
            return int(found[1])
        if isinstance(cause, OSError) and "Not enough disk space" in str(cause):
            return errno.ENOSPC
        cause = cause.__cause__
    return None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Refuse to go on where another process, or thread, is writing ``path``."""
    import filelock

    lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise SpurbenchError(
            f"{path} is being written by another process; wait for it, or write elsewhere"
        ) from None
    try:
        yield
    finally:
        # Where an open file can't be removed (Windows) it stays; it is empty.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _settle(target: Path) -> None:
    """End what a killed :func:`replace_folder` left half done."""
    for retired in sorted(_leftovers(target, "old"), key=lambda old: old.lstat().st_ctime):
        if target.exists():
            claims.remove(retired)
        else:  # it was killed between its two renames
            retired.rename(target)


def _leftovers(path: Path, purpose: str) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{12}}\.{purpose}")
    return [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]


def _beside(path: Path, purpose: str) -> Path:
    """A hidden name that nothing has, in the same folder and so on the same file system."""
    if path.name in ("", ".."):
        raise SpurbenchError(f"{path} can't be replaced as a whole; name a new folder inside it")
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{purpose}")


def _new_file(path: Path) -> Path:
    temporary = _beside(path, "tmp")
    temporary.touch(exist_ok=False)
    return temporary


def _is_of(path: Path, named: Any) -> bool:
    """Whether an error that names the file ``named``, or none, is about writing ``path``."""
    if not isinstance(named, str):
        return True
    found = Path(named)
    return (
        path in (found, *found.parents)
        or found in path.parents
        or any(part.startswith(f".{path.name}.") for part in found.parts)
    )


def _sync_folder(path: Path) -> None:
    # Windows can't open a folder to sync it; the rename itself is still atomic there.
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

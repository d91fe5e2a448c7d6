"""Files and folders that are either whole or not there."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from spurbench.core.errors import SpurbenchError


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a binary file whose content becomes that of ``path`` when the block succeeds.

    A crash leaves the old content or the new, never a part. Parent folders are created. The
    temporary file lies beside ``path``, so the rename stays within one file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    try:
        with temporary.open("xb") as file:
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

    An existing ``path`` is replaced only then; when the block raises, it stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
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

    If that fails, ``target`` is what it was.
    """
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
        _remove(retired)
    else:
        source.rename(target)
    _sync_folder(target.parent)


def _beside(path: Path, purpose: str) -> Path:
    """A hidden name that nothing has, in the same folder and so on the same file system."""
    if path.name in ("", ".."):
        raise SpurbenchError(f"{path} can't be replaced as a whole; name a new folder inside it")
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.{purpose}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _sync_folder(path: Path) -> None:
    # Windows can't open a folder to sync it; the rename itself is still atomic there.
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""Temporary folders that a killed process does not leave behind for ever."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spurbench.core import claims
from spurbench.core.atomic import explained
from spurbench.core.errors import SpurbenchError, reason

PREFIX = "spurbench-scratch-"

ADVICE = "set TMPDIR to a folder with space"


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder in ``TMPDIR``, removed after the block.

    Those of earlier processes of this user that were killed are removed too.

    Raises:
        SpurbenchError: if none can be made, or the file system is full.
    """
    try:
        root = Path(tempfile.gettempdir())
    except OSError as error:
        raise SpurbenchError(f"no folder for temporary files: {reason(error)}; {ADVICE}") from None

    def make() -> Path:
        folder = root / f"{PREFIX}{secrets.token_hex(6)}"
        with explained(folder, ADVICE):
            folder.mkdir(mode=0o700)
        return folder

    claims.remove_abandoned(_of_this_user(root))
    with claims.claimed(make) as folder:
        try:
            with explained(folder, ADVICE):
                yield folder
        finally:
            claims.remove(folder)


def _of_this_user(root: Path) -> Iterator[Path]:
    with os.scandir(root) as entries:
        for entry in entries:
            if re.fullmatch(rf"{PREFIX}[0-9a-f]{{12}}", entry.name) and _is_mine(entry):
                yield Path(entry.path)


def _is_mine(entry: os.DirEntry[str]) -> bool:
    if os.name != "posix":
        return True
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.getuid()
    except FileNotFoundError:  # the process that made it has removed it since it was listed
        return False

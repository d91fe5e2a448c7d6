"""The stage store: finished stages kept by what went into them, unfinished ones resumed.

A stage's folder is named by the fingerprint of everything its output depends on, so a changed
recipe never meets a stale stage, an unchanged one is never computed twice, and two dataset versions
share what they have in common.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field

from spurbench.core import atomic
from spurbench.core.documents import Document, read_json, read_text, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256, fingerprint

log = logging.getLogger(__name__)

MARKER = "stage.json"


@dataclass(frozen=True)
class Stage:
    """A finished stage."""

    folder: Path
    fingerprint: str
    seconds: float
    reused: bool

    def json(self, name: str) -> Any:
        """The content of one of its JSON files."""
        return read_json(self.folder / name)


class Marker(Document):
    """``stage.json``: what makes a folder a finished stage."""

    stage: str
    fingerprint: str
    inputs: dict[str, Any]
    files: dict[str, str]
    """sha256 of each, by its path in the folder."""
    seconds: float = Field(ge=0, allow_inf_nan=False)


class StageStore:
    """Stages under ``root/SUBJECT/STAGE-FINGERPRINT``; a subject is a class, or a shared prior."""

    def __init__(self, root: Path, *, force: bool = False) -> None:
        self.root = root
        self.force = force
        self._made: set[Path] = set()

    def run(
        self,
        subject: str,
        name: str,
        inputs: Mapping[str, Any],
        make: Callable[[Path], None],
    ) -> Stage:
        """The stage made from ``inputs``: the stored one if it is whole, else ``make`` makes it.

        Args:
            subject: folder below the root.
            name: of the stage.
            inputs: everything the output depends on, as JSON values; its hash is the identity.
            make: fills the folder it is given. After an interruption it is given the same folder
                again, with what it left there, to go on from.

        Raises:
            SpurbenchError: if ``subject`` is no folder below the root.
            Exception: whatever ``make`` raises; the partial folder then stays for the next run.
        """
        identity = fingerprint({"stage": name, **inputs})
        if Path(subject).is_absolute() or ".." in Path(subject).parts:
            raise SpurbenchError(f"{subject!r} is not a folder below {self.root}; rename it")
        final = self.root / subject / f"{name}-{identity[:16]}"
        partial = final.with_name(final.name + ".partial")
        final.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that share a store (classes sharded over devices) meet at shared priors.
        with FileLock(final.with_name(f".{final.name}.lock")):
            if self.force and final not in self._made:
                remove(final)
                remove(partial)
            stored = _whole(final, identity)
            if stored is not None:
                return Stage(final, identity, stored.seconds, reused=True)
            if not partial.is_dir():
                remove(partial)
                partial.mkdir()
            for unfinished in partial.rglob(".*.tmp"):  # of a write that was killed
                unfinished.unlink()
            earlier = _seconds_spent(partial)
            start = time.perf_counter()
            try:
                make(partial)
            finally:
                seconds = earlier + time.perf_counter() - start
                atomic.write_json(partial / ".seconds", seconds)
            (partial / ".seconds").unlink()
            files = {
                str(path.relative_to(partial)): file_sha256(path)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            }
            marker = Marker(
                stage=name, fingerprint=identity, inputs=dict(inputs), files=files, seconds=seconds
            )
            atomic.write_json(partial / MARKER, marker.model_dump())
            atomic.replace_folder(partial, final)
            self._made.add(final)
            return Stage(final, identity, seconds, reused=False)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _whole(folder: Path, identity: str) -> Marker | None:
    """The marker of a whole stage; None if there is no stage or its files aren't what it lists."""
    try:
        marker = validated(Marker, read_json(folder / MARKER), MARKER)
        if marker.fingerprint != identity:
            raise SpurbenchError(f"its {MARKER} is of another stage")
        for name, digest in marker.files.items():
            if not (folder / name).is_file() or file_sha256(folder / name) != digest:
                raise SpurbenchError(f"{name} differs from its {MARKER}")
    except FileNotFoundError:
        return None
    except (SpurbenchError, OSError, ValueError) as error:
        log.warning("%s is damaged (%s); making it again", folder, reason(error))
        remove(folder)
        return None
    return marker


def _seconds_spent(partial: Path) -> float:
    """Seconds of earlier runs; a bad note of them costs no more than the number."""
    try:
        seconds = float(read_text(partial / ".seconds"))
        if not 0 <= seconds < math.inf:
            raise ValueError(f"{seconds} seconds")
    except FileNotFoundError:
        return 0.0
    except (SpurbenchError, ValueError) as error:
        log.warning(
            "%s: the time spent can't be read (%s); counting from now", partial, reason(error)
        )
        remove(partial / ".seconds")
        return 0.0
    return seconds

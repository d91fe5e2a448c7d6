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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import SoftFileLease
from pydantic import Field

from spurbench.core import atomic
from spurbench.core.documents import Document, read_json, read_text, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256, fingerprint

log = logging.getLogger(__name__)

MARKER = "stage.json"

WEIGHTS = ".safetensors"

LEASE = 30.0
"""Seconds after which a holder that another machine no longer hears of is taken for dead."""


class NotStoredError(SpurbenchError):
    """A stage that should be in the store is not."""


@dataclass(frozen=True)
class Stage:
    """A finished stage.

    Attributes:
        folder: its files.
        fingerprint: of what it was made from.
        seconds: that it took.
        reused: whether it was there.
        device: where it was made; None: unknown, of an older store.
    """

    folder: Path
    fingerprint: str
    seconds: float
    reused: bool
    device: str | None = None

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
    device: str | None = None
    """Where it was made."""
    run: str | None = None
    """Of a forced run that made it."""


class StageStore:
    """Stages under ``root/SUBJECT/STAGE-FINGERPRINT``; a subject is a class, or a shared prior.

    Processes on several machines may share it, if one sees in their file system what another wrote.

    Args:
        root: the folder.
        device: what to note of where stages are made.
        run: makes every stage anew that was not made by this forced run; a name of its own.
        complete: it holds every stage that will be asked for, and makes none; whose weights are
            thus not looked at.
    """

    def __init__(
        self,
        root: Path,
        *,
        device: str | None = None,
        run: str | None = None,
        complete: bool = False,
    ) -> None:
        self.root = root
        self._device, self._run, self._complete = device, run, complete

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
            NotStoredError: if it is not there, in a complete store.
            SpurbenchError: if ``subject`` is no folder below the root, or another process took the
                stage over, which had not heard of this one for long.
            Exception: whatever ``make`` raises; the partial folder then stays for the next run.
        """
        identity = fingerprint({"stage": name, **inputs})
        if Path(subject).is_absolute() or ".." in Path(subject).parts:
            raise SpurbenchError(f"{subject!r} is not a folder below {self.root}; rename it")
        final = self.root / subject / f"{name}-{identity[:16]}"
        if self._complete:
            if (stored := self._stored(final, identity)) is None:
                raise NotStoredError(f"{final} is not in the store")
            return stored
        final.parent.mkdir(parents=True, exist_ok=True)
        with _partial(final, self._run) as partial:
            if (stored := self._stored(final, identity)) is not None:
                return stored
            folder = partial()
            earlier = _seconds_spent(folder)
            start = time.perf_counter()
            try:
                make(folder)
            finally:
                seconds = earlier + time.perf_counter() - start
                if folder.is_dir():
                    atomic.write_json(folder / ".seconds", seconds)
            partial.require_mine()
            (folder / ".seconds").unlink()
            files = {
                str(path.relative_to(folder)): file_sha256(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
            marker = Marker(
                stage=name,
                fingerprint=identity,
                inputs=dict(inputs),
                files=files,
                seconds=seconds,
                device=self._device,
                run=self._run,
            )
            atomic.write_json(folder / MARKER, marker.model_dump())
            partial.require_mine()
            atomic.replace_folder(folder, final)
            return Stage(final, identity, seconds, reused=False, device=self._device)

    def _stored(self, final: Path, identity: str) -> Stage | None:
        marker = _whole(final, identity, weights=not self._complete)
        if marker is None or (self._run is not None and marker.run != self._run):
            return None
        return Stage(final, identity, marker.seconds, reused=True, device=marker.device)


class _Partial:
    """The unfinished folder of a stage, in the hands of whoever holds its lease.

    A lease holds on network file systems too, where locks of the system may not; its price is that
    one whose holder stood still for long can be taken over while he lives. So each holder works
    under a name of his own, to which he renames what there is: the former one finds his folder gone
    and can't put it in the stage's place.
    """

    def __init__(self, final: Path, token: str, run: str | None) -> None:
        self._final, self._mark = final, f".{run}." if run else "."
        self._folder = final.with_name(f"{final.name}{self._mark}{token[:8]}.partial")
        self._inode = 0

    def __call__(self) -> Path:
        """Take over what there is, of a forced run's own, or begin anew."""
        for left in self._final.parent.glob(f"{self._final.name}*.partial"):
            if left.is_dir() and self._mark in left.name and not self._folder.exists():
                left.rename(self._folder)
            else:
                remove(left)
        self._folder.mkdir(exist_ok=True)
        for unfinished in self._folder.rglob(".*.tmp"):  # of a write that was killed
            unfinished.unlink()
        self._inode = self._folder.stat().st_ino
        return self._folder

    def require_mine(self) -> None:
        """Refuse to go on with what another process took over."""
        if not self._folder.is_dir() or self._folder.stat().st_ino != self._inode:
            raise SpurbenchError(
                f"another process took over {self._final}, not having heard of this one for "
                f"{LEASE:.0f} s; it will finish it"
            )


@contextmanager
def _partial(final: Path, run: str | None) -> Iterator[_Partial]:
    """Hold a stage's lease; waits while another process does."""
    lease = SoftFileLease(
        final.with_name(f".{final.name}.lease"), lease_duration=LEASE, thread_local=False
    )
    with lease:
        yield _Partial(final, str(lease.token), run)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _whole(folder: Path, identity: str, *, weights: bool) -> Marker | None:
    """The marker of a whole stage; None if there is no stage or its files aren't what it lists.

    Without ``weights`` those, the most of the bytes, are not read.
    """
    try:
        marker = validated(Marker, read_json(folder / MARKER), MARKER)
        if marker.fingerprint != identity:
            raise SpurbenchError(f"its {MARKER} is of another stage")
        for name, digest in marker.files.items():
            if name.endswith(WEIGHTS) and not weights:
                continue
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

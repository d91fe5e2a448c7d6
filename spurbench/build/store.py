"""The stage store: finished stages kept by what went into them, unfinished ones resumed.

A stage's folder is named by the fingerprint of everything its output depends on, so a changed
recipe never meets a stale stage, an unchanged one is never computed twice, and two dataset versions
share what they have in common.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from spurbench.core import atomic
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
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


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
            Exception: whatever ``make`` raises; the partial folder then stays for the next run.
        """
        identity = fingerprint({"stage": name, **inputs})
        final = self.root / subject / f"{name}-{identity[:16]}"
        partial = final.with_name(final.name + ".partial")
        final.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that share a store (classes sharded over devices) meet at shared priors.
        with FileLock(final.with_name(f".{final.name}.lock")):
            if self.force and final not in self._made:
                shutil.rmtree(final, ignore_errors=True)
                shutil.rmtree(partial, ignore_errors=True)
            stored = _read_marker(final, identity)
            if stored is not None:
                return Stage(final, identity, stored["seconds"], reused=True)
            partial.mkdir(exist_ok=True)
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
            marker = {
                "stage": name,
                "fingerprint": identity,
                "inputs": inputs,
                "files": files,
                "seconds": seconds,
            }
            atomic.write_json(partial / MARKER, marker)
            atomic.replace_folder(partial, final)
            self._made.add(final)
            return Stage(final, identity, seconds, reused=False)


def _read_marker(folder: Path, identity: str) -> dict[str, Any] | None:
    """The marker of a whole stage; None if there is no stage or its files aren't what it lists."""
    try:
        marker: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        marker = {}
    whole = marker.get("fingerprint") == identity and all(
        (folder / name).is_file() and file_sha256(folder / name) == digest
        for name, digest in marker["files"].items()
    )
    if not whole:
        log.warning("%s is damaged (files differ from its %s); making it again", folder, MARKER)
        shutil.rmtree(folder)
        return None
    return marker


def _seconds_spent(partial: Path) -> float:
    try:
        return float((partial / ".seconds").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0.0

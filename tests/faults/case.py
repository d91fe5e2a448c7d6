"""A bad input, and the verdict on how a command took it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults.process import Ending, run

DEPTH = "1/2/3/4/5/run"
"""The folder that commands run in; a path that climbs out of it is still in the case's."""

Prepare = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        kind: its line in the table.
        name: what is wrong.
        arguments: of the command line.
        prepare: lays the bad thing into the folder that the command runs in.
        takes: what may become of it: ``any``; ``refused``; ``said``, success only with a word
            about it; ``mended``, success, for the program can make the thing again.
        output: what a success writes.
        keeps: what may stay even of a failure, such as finished stages.
        unread: nobody reads what is printed.
        before: called in the command's process.
    """

    kind: str
    name: str
    arguments: tuple[str, ...]
    prepare: Prepare = lambda folder: None
    takes: str = "any"
    output: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    unread: bool = False
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a case came to.

    Attributes:
        verdict: refused, accepted, or a fault: executed, hung, unexpected, silent, left behind.
        seen: of a fault.
    """

    verdict: str
    seen: str
    seconds: float


def executed(folder: Path) -> Path:
    """The file that code out of a case's input makes, given the folder that the command runs in."""
    return folder.parents[5] / "EXECUTED"


def judge(case: Case, root: Path, seconds: float) -> Outcome:
    """Run a case in a folder of its own and say what it came to."""
    folder = root / DEPTH
    folder.mkdir(parents=True)
    case.prepare(folder)
    earlier = _files(root)
    ending = run(case.arguments, folder, seconds=seconds, unread=case.unread, before=case.before)
    verdict, seen = _verdict(case, root, folder, earlier, ending)
    shutil.rmtree(root, ignore_errors=True)
    return Outcome(verdict, seen, ending.seconds)


def _verdict(
    case: Case, root: Path, folder: Path, earlier: set[str], ending: Ending
) -> tuple[str, str]:
    said = f"{ending.status}: {ending.err[-500:]}"
    if executed(folder).exists():
        return "executed", said
    if ending.status is None:
        return "hung", said
    clean = ending.status == 0 and not ending.errors and not ending.is_unexpected
    if case.unread:
        clean = not (ending.errors or ending.is_unexpected or "BrokenPipe" in ending.err)
    if not (clean or ending.is_one_line):
        return "unexpected", said
    if case.takes == "mended" and not clean:
        return "unexpected", said
    silent = case.takes == "said" and not ending.err.strip()
    if clean and (silent or case.takes == "refused"):
        return "silent", ending.out[-300:]
    places = (*case.keeps, *(case.output if clean else ()))
    allowed = tuple(os.path.normpath(os.path.join(DEPTH, place)) for place in places)  # noqa: PTH118
    left = {path for path in _files(root) - earlier if not path.startswith(allowed or ("\0",))}
    if left:
        return "left behind", f"{sorted(left)[:4]}; {said}"
    return "accepted" if clean else "refused", ""


def _files(root: Path) -> set[str]:
    """Everything below ``root`` but empty folders, names as they are on disk."""
    found = set()
    for folder, _, files in os.walk(root):
        found |= {os.path.relpath(os.path.join(folder, name), root) for name in files}  # noqa: PTH118
        if "spurbench-" in folder:
            found.add(os.path.relpath(folder, root))
    return found

"""Every command that writes: killed in the midst, or on a disk that is full."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from faults.commands import Command
from faults.disk import Disk
from faults.process import run
from makers.hub_server import TOKEN, running_hub

SEED = 0
MOMENTARY = frozenset(
    {"created", "seconds", "manifest_sha256", "sha256", "predictions_sha256", "dateCreated"}
    | {"datePublished", "dateModified"}
)
"""Keys of JSON that differ from run to run."""

ASIDE = re.compile(r"\..+\.[0-9a-f]+\.(tmp|old)|.+\.partial|spurbench-.*|tmp.*")
"""Names of what a command makes on the way and is to take away."""

State = dict[str, str]
"""Files below the published paths, and the digest of what each says."""


@dataclass
class Attempt:
    """One kill or full disk, and what came of it."""

    command: str
    failure: str
    at: int
    faults: dict[str, str] = field(default_factory=dict)
    """Column of the table, and what was seen."""


@dataclass(frozen=True)
class Undisturbed:
    """A command where nothing disturbs it.

    Attributes:
        old: what it finds.
        new: what it publishes.
        paths: all that lies about after it.
        operations: on files, on the way.
    """

    old: State
    new: State
    paths: set[str]
    operations: int


class Trial:
    """A command to disturb; ``undisturbed`` is what :meth:`prepare` returned."""

    undisturbed: Undisturbed

    def __init__(self, command: Command, root: Path) -> None:
        self.command, self.root, self.template = command, root, root / "template"

    def prepare(self) -> Undisturbed:
        """What the command finds, and what it makes of that where nothing disturbs it."""
        (self.template / "run").mkdir(parents=True)
        for arguments in self.command.earlier:
            ending = run(arguments, self.template / "run", seconds=300)
            if ending.status:
                raise RuntimeError(f"{arguments} fails: {ending.err}")
        old = self._state(self.template / "run", None)
        with self._hub() as hub:
            folder = self._fresh("undisturbed")
            disk = Disk(folder.parent, reads=self.command.hub)
            ending = run(
                self.command.arguments, folder, disk=disk, seconds=300, before=self._before(hub)
            )
            if ending.status:
                raise RuntimeError(f"{self.command.name} of sound things fails: {ending.err}")
            return Undisturbed(
                old, self._state(folder, hub), _paths(folder.parent), disk.operations
            )

    def attempts(self) -> Iterator[tuple[str, int]]:
        """Which failures at which operation."""
        rng = random.Random(f"{SEED} {self.command.name}")
        for failure, count in (("kill", self.command.kills), ("full", self.command.fills)):
            for at in sorted(rng.choices(range(1, self.undisturbed.operations + 1), k=count)):
                yield failure, at

    def disturb(self, failure: str, at: int, name: str) -> Attempt:
        """One failure, and the same command again."""
        command = self.command
        attempt = Attempt(command.name, failure, at)
        with self._hub() as hub:
            folder = self._fresh(name)
            disk = Disk(folder.parent, failure, at, reads=command.hub)  # type: ignore[arg-type]
            ending = run(
                command.arguments, folder, disk=disk, seconds=120, before=self._before(hub)
            )
            if failure == "full" and not (ending.is_one_line or ending.status == 0):
                attempt.faults["not one line"] = f"{ending.status}: {ending.err[-600:]}"
            if failure == "full" and (left := _aside(folder.parent)):
                attempt.faults["left behind"] = left
            if failure == "kill" and ending.status not in (-9, 0):
                attempt.faults["not killed"] = f"{ending.status}: {ending.err[-600:]}"
            if torn := self._torn(folder, hub):
                attempt.faults["torn"] = torn
            ending = run(command.arguments, folder, seconds=120, before=self._before(hub))
            differing = self._differing(self._state(folder, hub))
            if ending.status and (differing or not command.once):
                attempt.faults["not again"] = f"{ending.status}: {ending.err[-600:]}"
            elif differing:
                attempt.faults["other content"] = differing
            left = sorted(_paths(folder.parent) - self.undisturbed.paths)
            if left and failure == "kill" and not ending.status:
                attempt.faults["left behind"] = " ".join(left)
        if not attempt.faults:
            shutil.rmtree(folder.parent)
        return attempt

    def _fresh(self, name: str) -> Path:
        shutil.copytree(self.template, self.root / name)
        return self.root / name / "run"

    @contextmanager
    def _hub(self) -> Iterator[_Hub | None]:
        if not self.command.hub:
            yield None
            return
        hub = _Hub()
        try:
            yield hub
        finally:
            hub.close()

    def _before(self, hub: _Hub | None) -> Callable[[], None] | None:
        return hub.enter if hub else self.command.before

    def _state(self, folder: Path, hub: _Hub | None) -> State:
        if hub is not None:
            return hub.state()
        state: State = {}
        for published in self.command.published:
            path = folder / published
            files = path.rglob("*") if path.is_dir() else [path]
            for file in sorted(files):
                hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
                if file.is_file() and not hidden:
                    state[file.relative_to(folder).as_posix()] = _digest(file)
        return state

    def _torn(self, folder: Path, hub: _Hub | None) -> str:
        """What at the published paths is neither the old nor the new; empty if nothing is."""
        now = self._state(folder, hub)
        if self.command.whole or hub:
            if not now and not hub and _aside(folder.parent):
                return ""  # between two renames; the old one lies beside, and is put back or made
            if self._differing(now) and now != self.undisturbed.old:
                return f"neither the old nor the new: {sorted(now)}"
            return ""
        wrong = [
            file
            for file, digest in now.items()
            if digest not in (self.undisturbed.old.get(file), self.undisturbed.new.get(file))
            and (file not in self.command.momentary or digest == "damaged")
        ]
        wrong += [
            file
            for file in self.undisturbed.old
            if file not in now and file in self.undisturbed.new
        ]
        return " ".join(wrong)

    def _differing(self, now: State) -> str:
        return " ".join(
            sorted(
                file
                for file in now.keys() | self.undisturbed.new.keys()
                if (file in now) != (file in self.undisturbed.new)
                or (now[file] != self.undisturbed.new[file] and file not in self.command.momentary)
                or now[file] == "damaged"
            )
        )


def _digest(file: Path) -> str:
    """Of what a file says, but for when it was said."""
    data = file.read_bytes()
    if file.suffix == ".json":
        try:
            data = json.dumps(_lasting(json.loads(data)), sort_keys=True).encode()
        except ValueError:
            return "damaged"
    return hashlib.sha256(data).hexdigest() if data else "damaged"


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(item) for key, item in value.items() if key not in MOMENTARY}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def _paths(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _aside(folder: Path) -> str:
    """Names of what was made on the way and is still there."""
    stages = {p for p in folder.rglob("*.partial") if ".stages" in p.parts or "stages" in p.parts}
    found = (path for path in folder.rglob("*") if ASIDE.fullmatch(path.name))
    return " ".join(
        sorted(
            path.relative_to(folder).as_posix()
            for path in found
            if path != folder / "tmp" and not ({path, *path.parents} & stages)
        )
    )


class _Hub:
    """A stand-in hub in a process of its own."""

    def __init__(self) -> None:
        self._ours, theirs = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                with running_hub() as hub:
                    theirs.send(hub.endpoint)
                    while theirs.recv() == "state":
                        theirs.send(_published(hub.repositories.get("o/toy")))
            finally:
                os._exit(0)
        self.endpoint: str = self._ours.recv()

    def enter(self) -> None:
        """Talk to it, in the process of a command."""
        from huggingface_hub import constants

        os.environ["HF_TOKEN"] = TOKEN
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
        constants.HF_HUB_OFFLINE = False
        constants.HF_HUB_DISABLE_XET = True
        constants.ENDPOINT = self.endpoint
        constants.HUGGINGFACE_CO_URL_TEMPLATE = (
            self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )

    def state(self) -> State:
        self._ours.send("state")
        return self._ours.recv()

    def close(self) -> None:
        self._ours.send("close")
        os.waitpid(self._pid, 0)


def _published(repository: Any) -> State:
    """The files that a reader of the hub sees: those of the tag."""
    if repository is None or "v1.0.0" not in repository.tags:
        return {}
    files = repository.commits[repository.tags["v1.0.0"]]
    return {path: hashlib.sha256(data).hexdigest() for path, (_, data) in files.items()}

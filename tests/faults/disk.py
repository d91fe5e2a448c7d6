"""A disk that fails: kills this process at the n-th operation on files, or is full from there on.

Operations are what changes files below a folder: opening for writing, writing, renaming, removing,
making folders. They are met where Python makes them (audit events and ``open``) and in safetensors,
which writes by itself. Installed once, in a process that is made to be thrown away.
"""

from __future__ import annotations

import builtins
import errno
import io
import mmap
import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any, Literal

import safetensors.torch

CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"}
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Failure = Literal["none", "kill", "full"]


class Disk:
    """Counts operations below ``folder``; at the ``at``-th (from 1) it fails.

    With ``reads``, opening for reading counts too.
    """

    def __init__(
        self, folder: Path, failure: Failure = "none", at: int = 0, *, reads: bool = False
    ) -> None:
        self._folder = str(folder)
        self._failure, self._at, self._reads = failure, at, reads
        self._count = mmap.mmap(-1, 8)  # shared with the process it is installed in

    @property
    def operations(self) -> int:
        """How many there were."""
        return int(struct.unpack("q", self._count[:8])[0])

    @property
    def full(self) -> bool:
        return self._failure == "full" and self.operations >= self._at

    def install(self) -> None:
        """From now on, in this process."""
        sys.addaudithook(self._audit)
        self._open = io.open
        builtins.open = io.open = self._opened  # type: ignore[assignment]
        self._serialize = safetensors.torch.serialize_file
        safetensors.torch.serialize_file = self._serialized

    def operation(self) -> None:
        self._count[:8] = struct.pack("q", self.operations + 1)
        if self.is_to_die():
            die()

    def is_to_die(self) -> bool:
        return self._failure == "kill" and self.operations == self._at

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if (self._reads or flags & WRITING) and self._holds(path):
                self.operation()
        elif event in CHANGES and self._holds(arguments[0]):
            self.operation()

    def _holds(self, path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return False
        absolute = path if os.path.isabs(path) else os.path.join(os.getcwd(), os.fsdecode(path))  # noqa: PTH109, PTH117, PTH118
        return os.fsdecode(absolute).startswith(self._folder)

    def _opened(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        if not set(mode) & set("wax+") or not self._holds(file):
            return self._open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        raw = _File(self, file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, encoding, errors, newline, buffering == 1)

    def _serialized(self, tensors: Any, file: Any, metadata: Any = None) -> None:
        self.operation()
        if self.full:
            Path(file).touch()
            raise safetensors.SafetensorError(
                "Error while serializing: I/O error: No space left on device (os error 28)"
            )
        self._serialize(tensors, file, metadata)
        self._count[:8] = struct.pack("q", self.operations + 1)
        if self.is_to_die():
            os.truncate(file, Path(file).stat().st_size // 2)
            die()


class _File(io.FileIO):
    """A file whose writing may be cut in half, or find no room."""

    def __init__(self, disk: Disk, file: Any, mode: str, closefd: bool, opener: Any) -> None:
        super().__init__(file, mode, closefd, opener)
        self._disk = disk

    def write(self, data: Any) -> int:
        if self._disk._at == self._disk.operations + 1 and self._disk._failure == "kill":
            super().write(bytes(data)[: memoryview(data).nbytes // 2])
        self._disk.operation()
        self._require_room()
        return super().write(data)

    def fileno(self) -> int:
        self._require_room()  # for who writes by the number, as numpy does
        return super().fileno()

    def _require_room(self) -> None:
        if self._disk.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

"""Commands in processes of their own, forked from one that has imported everything already."""

from __future__ import annotations

import atexit
import importlib
import io
import math
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import spurbench
from faults.disk import Disk

HEAVY = (
    *("torch", "torchvision.models", "timm", "datasets", "transformers", "safetensors.torch"),
    *("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion", "peft", "accelerate"),
    *("pandas", "pyarrow.parquet", "pyarrow.dataset", "sklearn.metrics", "scipy.stats"),
    *("statsmodels.stats.multitest", "statsmodels.stats.contingency_tables", "matplotlib.pyplot"),
    *("rich.console", "rich.table", "rich._emoji_codes", "jinja2", "huggingface_hub.hf_api"),
    *("diffusers.guiders", "datasets.io.parquet", "scipy.io", "yaml", "onnx", "open_clip"),
    *("makers.toy", "makers.networks", "makers.vlm"),
)
MEMORY = 6 * 2**30
"""Bytes that a command may take, lest one that reads for ever takes the machine."""


def import_everything() -> None:
    """So that a forked process has nothing left to import."""
    for name in HEAVY:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(spurbench.__path__, "spurbench."):
        importlib.import_module(module.name)
    Image.init()  # Pillow's formats


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        status: of the exit; minus the signal's number; None if it was stopped at the time limit.
        out: what it wrote to stdout.
        err: what it wrote to stderr.
        seconds: it took.
    """

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """Its lines that begin with Error, wherever they are."""
        return [li for li in (self.out + self.err).splitlines() if li.startswith("Error: ")]

    @property
    def is_one_line(self) -> bool:
        """Whether it failed as commands are to fail: in one line, the last, and expected."""
        said = self.err.rstrip().splitlines()
        return (
            self.status in (1, 2)
            and len(self.errors) == 1
            and said[-1:] == self.errors
            and len(said[-1]) > len("Error: ")
            and not self.is_unexpected
        )

    @property
    def is_unexpected(self) -> bool:
        text = self.out + self.err
        return "(unexpected" in text or "Traceback (most recent" in text


def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    disk: Disk | None = None,
    seconds: float = 20,
    before: Callable[[], None] | None = None,
    unread: bool = False,
) -> Ending:
    """Run ``spurbench ARGUMENTS`` in a folder, temporary files in ``tmp`` beside it.

    Args:
        arguments: of the command line.
        folder: to run in; it is there.
        disk: that fails.
        seconds: of processor time, and thrice as many of waiting, after which it is killed.
        before: called in the process before the command.
        unread: stdout is a pipe that nobody reads.
    """
    temporary = folder.parent / "tmp"
    temporary.mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            target = _closed_pipe() if unread else out.fileno()
            _be_command(arguments, folder, temporary, (target, err.fileno()), disk, seconds, before)
        status = _wait(pid, start + 3 * seconds)
        spent = time.monotonic() - start
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return Ending(status, *texts, spent)


def _wait(pid: int, deadline: float) -> int | None:
    pause = 0.002
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            ended = os.waitstatus_to_exitcode(status)
            return None if ended == -signal.SIGXCPU else ended
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def _be_command(
    arguments: Sequence[str],
    folder: Path,
    temporary: Path,
    outputs: tuple[int, int],
    disk: Disk | None,
    seconds: float,
    before: Callable[[], None] | None,
) -> None:
    """Never returns."""
    status = 70
    try:
        # What the process it was forked from wants done at its own end is none of ours.
        atexit._clear()
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, target in enumerate(outputs, start=1):
            os.dup2(target, number)
        # As Python opens them on a terminal that speaks UTF-8.
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8")
        sys.stderr = io.TextIOWrapper(
            io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True
        )
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.environ["SPURBENCH_HOME"] = str(folder / "home")
        os.environ.pop("SPURBENCH_DATA", None)
        for what, limit in (
            (resource.RLIMIT_DATA, MEMORY),
            (resource.RLIMIT_CPU, math.ceil(seconds)),
        ):
            _, most = resource.getrlimit(what)
            resource.setrlimit(what, (limit, most))
        if before is not None:
            before()
        if disk is not None:
            disk.install()
        sys.argv = ["spurbench", *arguments]
        status = _status_of_main()
        atexit._run_exitfuncs()
        weakref.finalize._exitfunc()  # type: ignore[attr-defined]
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            print("Exception ignored in: <stdout>\nBrokenPipeError", file=sys.stderr)  # noqa: T201
            status = 120
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _status_of_main() -> int:
    from spurbench.cli.main import main

    try:
        main()
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)  # noqa: T201
    except BaseException:
        traceback.print_exc()
    else:
        return 0
    return 1

"""Tests in forked children of a process that has the libraries loaded, but nothing of spurbench.

A child therefore costs its tests and not six seconds of imports, and can put a mutated module in
place of the file before anything imports it. The checkout itself is never edited.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

LIBRARIES = (
    "torch", "torchvision", "torchvision.transforms.v2", "timm", "transformers", "peft",
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "diffusers.models.autoencoders.autoencoder_tiny",
    "datasets", "huggingface_hub", "pandas", "pyarrow.parquet", "sklearn.metrics", "scipy.stats",
    "matplotlib.pyplot", "statsmodels.stats.multitest", "mlcroissant", "pydantic", "jinja2", "rich",
    "click.testing", "yaml", "tqdm", "accelerate", "hypothesis", "anyio.pytest_plugin",
)  # fmt: skip
MEMORY = 8 * 2**30
"""Bytes of data a child may have: a wrong size must not take the machine with it."""
FAST = "not slow and not browser and not slurm"


def load_libraries(bytecode: Path) -> None:
    """Import what the tests import from elsewhere, on one thread, so that a fork is safe.

    Args:
        bytecode: folder where children leave what they compiled of other files, for the next ones.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError as error:  # no test needs it then
            print(f"not loaded beforehand: {error}", file=sys.stderr)
    import torch

    torch.set_num_threads(1)
    sys.pycache_prefix, sys.dont_write_bytecode = str(bytecode), False
    gc.freeze()  # what is loaded is never collected: no child walks it
    assert "spurbench" not in sys.modules


@dataclass
class Child:
    """A running child.

    Attributes:
        pid: of the process, which leads a group of its own.
        folder: its private temporary folder.
        started: when, seconds of the monotonic clock.
    """

    pid: int
    folder: Path
    started: float


@dataclass(frozen=True)
class Ended:
    """What became of a child.

    Attributes:
        answer: what it returned; None where it died first.
        signal: that which ended it, 0 for none.
        seconds: how long it ran.
    """

    answer: Any
    signal: int
    seconds: float


def start(task: Callable[[Path], Any], root: Path, quiet: bool = True) -> Child:
    """Fork, and let the child do ``task`` with a temporary folder; its answer must be JSON."""
    folder = Path(tempfile.mkdtemp(prefix="spurbench-mutant-"))
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Child(pid, folder, time.monotonic())
    try:
        os.setsid()
        os.chdir(root)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if quiet:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
        answer = task(folder)
        (folder / "answer.json").write_text(json.dumps(answer))
    finally:
        os._exit(0)


def wait(children: dict[int, Child]) -> tuple[Child, Ended]:
    """The next of the children that ends, taken out of ``children``."""
    pid, status = os.waitpid(-1, 0)
    child = children.pop(pid)
    seconds = time.monotonic() - child.started
    # What a test left running would go on beside the next ones.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    answer = child.folder / "answer.json"
    found = json.loads(answer.read_text()) if answer.is_file() else None
    shutil.rmtree(child.folder, ignore_errors=True)
    return child, Ended(found, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, seconds)


def pytest_arguments(folder: Path, paths: list[str]) -> list[str]:
    """A quiet run without a cache, in a temporary folder of its own."""
    without = ("cacheprovider", "cov", "unraisableexception", "threadexception")
    plugins = [argument for name in without for argument in ("-p", f"no:{name}")]
    return ["-q", "--tb=short", *plugins, "-m", FAST, f"--basetemp={folder / 'tests'}", *paths]


class Mutated(importlib.abc.MetaPathFinder):
    """Serves one module from a text in place of its file."""

    def __init__(self, root: Path, file: str, text: str) -> None:
        self.path, self.text = root / file, text
        self.name = module_name(file)
        self.loaded = False

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = _TextLoader(self, fullname, str(self.path))
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class _TextLoader(importlib.machinery.SourceFileLoader):
    def __init__(self, mutated: Mutated, fullname: str, path: str) -> None:
        super().__init__(fullname, path)
        self.mutated = mutated

    def get_code(self, fullname: str) -> CodeType:
        self.mutated.loaded = True
        return compile(self.mutated.text, self.path, "exec", dont_inherit=True)


def module_name(file: str) -> str:
    """spurbench/a/b.py is spurbench.a.b."""
    return ".".join(Path(file).with_suffix("").parts).removesuffix(".__init__")


class Chosen:
    """A pytest plugin that runs the given tests in the given order, each within its time.

    Attributes:
        failed: the first test, or file, that failed, and the last line of why.
        ran: how many tests ran.
    """

    def __init__(self, limits: dict[str, float], collection: float) -> None:
        self.limits = limits
        self.failed: tuple[str, str] | None = None
        self.ran = 0
        signal.alarm(round(collection))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._fail(report)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        found = {item.nodeid: item for item in items}
        items[:] = [found[name] for name in self.limits if name in found]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        # Not caught: the process ends, and the one that waits for it sees by which signal.
        signal.alarm(round(self.limits[item.nodeid]) + 1)
        self.ran += 1
        result = yield
        signal.alarm(60)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._fail(report)

    def _fail(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if self.failed is None:
            lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.failed = report.nodeid, (lines[0][1:].strip() if lines else "")[:200]


def run_tests(folder: Path, limits: dict[str, float], mutated: Mutated | None) -> dict[str, Any]:
    """The chosen tests, in their order, until one fails; in a child."""
    if mutated:
        sys.meta_path.insert(0, mutated)
    chosen = Chosen(limits, collection=120)
    files = sorted({name.split("::")[0] for name in limits})
    code = pytest.main([*pytest_arguments(folder, files), "-x"], plugins=[chosen])
    signal.alarm(0)
    if code not in (0, 1, 2) and chosen.failed is None:
        raise RuntimeError(f"pytest ended with {code}")
    return {
        "failed": chosen.failed,
        "ran": chosen.ran,
        "loaded": mutated is None or mutated.loaded,
    }

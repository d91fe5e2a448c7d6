"""Fixtures that several test files share."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# Several processes share the cores: two that take all of them wait for each other. This stands
# before torch is imported, by a test or by a command that it runs.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

LONGEST = (
    # First of all: its processes are forked from this one, in which Ray's threads would end them.
    "faults/test_faults.py",
    "engines/test_ray.py",
    "test_wheel.py",
    "test_tutorial.py",
    "build/test_build.py",
    "build/test_units.py",
    "diffusion/test_finetune.py",
    "mini/test_assets.py",
    "evaluation/test_work.py",
    "leaderboard/test_page_browser.py",
    "dataset/test_verify.py",
    "build/test_sampling.py",
    "diffusion/test_objective.py",
)
"""Files that take ten seconds and more, the longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: one that a worker begins last runs while the others have nothing."""
    rank = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


# A shell has what it starts in the background ignore it, and all that it starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def what_a_command_says() -> Iterator[None]:
    """A command that a test runs in this process sets what is said; the next test starts anew."""
    loggers = [logging.getLogger(), logging.getLogger("spurbench")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    show = warnings.showwarning
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers = handlers
    warnings.showwarning = show


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs beside the checkout; tests skip where it is absent."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder of real photographs at {folder}")
    return folder


@pytest.fixture
def robustbench() -> None:
    """For tests that want robustbench installed; they skip where it is not."""
    if find_spec("robustbench") is None:
        pytest.skip("robustbench is not installed; make test-robustbench has it")

"""Whether the tools look at everything: some pass over folders that are called ``build``."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]


def folders(*names: str) -> set[str]:
    return {path.name for name in names for path in (ROOT / name).rglob("*") if path.is_dir()}


def test_pytest_collects_from_every_folder(request):
    passed_over = request.config.getini("norecursedirs")
    assert "build" in folders("tests")
    assert not [f for f in folders("tests") for p in passed_over if fnmatch(f, p)]


def test_ruff_checks_every_folder():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]
    seen = folders("spurbench", "tests", "benchmarks")
    assert not [f for f in seen for p in settings["exclude"] if fnmatch(f, p)]


def test_the_files_that_are_begun_first_are_there():
    from conftest import LONGEST

    assert not [name for name in LONGEST if not (ROOT / "tests" / name).is_file()]

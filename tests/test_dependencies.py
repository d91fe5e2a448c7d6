"""What is imported is declared, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

#: extra -> the packages for whose import users need it
EXTRAS = {
    "robustbench": {"robustbench", "pyautoattack"},
    "quality": {"pyiqa"},
    "onnx": {"onnx", "onnxruntime"},
    "open_clip": {"open-clip-torch"},
    "ray": {"ray"},
    "serve": {"starlette", "uvicorn"},
    "slurm": {"submitit"},
}


def names(requirements: list[str]) -> set[str]:
    """Distributions, by their normalised names."""
    return {re.split(r"[\[<>=!~ ;]", r)[0].lower().replace("_", "-") for r in requirements}


def imported(folder: Path) -> dict[str, set[str]]:
    """Modules that files import, at their top or in functions, and whose distribution they are."""
    packages = packages_distributions()
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules = [node.module]
            else:
                continue
            for module in (name.split(".")[0] for name in modules):
                if module not in sys.stdlib_module_names | {folder.name}:
                    # What is not installed, of an extra, is called what is imported.
                    found[module] = names(packages.get(module, [module]))
    return found


def test_every_import_is_declared():
    declared = names(PROJECT["dependencies"]) | set().union(*EXTRAS.values())
    assert not {
        module for module, owners in imported(ROOT / "spurbench").items() if not owners & declared
    }


def test_every_dependency_is_imported():
    used = set().union(*imported(ROOT / "spurbench").values())
    assert not names(PROJECT["dependencies"]) - used


def test_extras_bring_what_they_are_for():
    for extra, packages in EXTRAS.items():
        assert packages <= names(PROJECT["optional-dependencies"][extra])
        assert not packages & names(PROJECT["dependencies"])


def test_tests_run_with_the_packages_that_users_have():
    """robustbench pins old ones, so it stays out of the tests' own environment."""
    for extra in ("test", "docs", "dev"):
        asked = " ".join(PROJECT["optional-dependencies"][extra])
        assert "robustbench" not in asked and "timm" not in asked

"""The wheel works on its own: installed elsewhere, run from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that sees nothing of this checkout but what it is given."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(target: str, source: Path, output: Path) -> Path:
    """Build an ``sdist`` or a ``wheel`` from the project in ``source``."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", output, cwd=source)
    (made,) = output.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; its dependencies are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Folders added by a .pth come after site-packages, and theirs are not read: neither an
    # installed nor an editable spurbench of the tests' environment can stand in for the wheel.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_builders_and_cards_travel_in_the_wheel(wheel):
    expected = {
        f"spurbench/{file.relative_to(ROOT).as_posix()}"
        for folder in ("builders", "dataset_cards")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {Path(name).suffix for name in expected} >= {".toml", ".py", ".jinja"}
    assert expected <= names(wheel)
    templates = {f"spurbench/templates/leaderboard.{end}" for end in ("css", "js", "html.jinja")}
    assert templates <= names(wheel)
    assert not [name for name in names(wheel) if name.startswith(("tests/", "builders/"))]


def test_the_source_distribution_makes_the_same_wheel(wheel, tmp_path):
    archive = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    again = build("wheel", tmp_path / archive.name.removesuffix(".tar.gz"), tmp_path / "wheel")
    assert names(again) == names(wheel)


def test_it_runs_from_a_fresh_environment_and_another_folder(environment, tmp_path):
    script = "import spurbench; print(spurbench.__file__)"
    imported = Path(run(environment / "python", "-c", script, cwd=tmp_path).strip())
    assert imported.is_relative_to(environment.parent)
    command = environment / "spurbench"
    assert "leaderboard" in run(command, "--help", cwd=tmp_path)
    assert "hummingbird" in run(command, "classes", cwd=tmp_path)
    assert "fireboat" in run(command, "classes", "--recipe", "mini", cwd=tmp_path)
    said = run(command, "doctor", cwd=tmp_path)
    assert "recipe mini" in said and "recipe sd15" in said

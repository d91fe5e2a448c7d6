"""However it is installed, it finds its recipes and cards, from a fresh environment elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from spurbench.core.resources import builders

ROOT = Path(__file__).parents[1]
DATA = ("builders", "dataset_cards")


def run(*command: str | Path, cwd: Path) -> str:
    """The output of a command that sees nothing of this checkout but what it is given."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(target: str, source: Path, output: Path) -> Path:
    """Build an ``sdist``, a ``wheel`` or a ``wheel:editable`` from the project in ``source``."""
    run(sys.executable, "-m", "hatchling", "build", "-t", target, "-d", output, cwd=source)
    (made,) = output.iterdir()
    return made


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What git makes of the project on a system that has no links: they become text files."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository, so nothing to clone")
    folder = tmp_path_factory.mktemp("clone")
    settings = ("git", "-c", "core.symlinks=false")
    run(*settings, "checkout-index", "--all", f"--prefix={folder}/", cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_of_the_sdist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    archive = build("sdist", ROOT, folder / "made")
    with tarfile.open(archive) as file:
        assert not [member.name for member in file if member.issym() or member.islnk()]
        # Python 3.11.0 to 3.11.3 has no filters.
        file.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        file.extractall(folder)
    return build("wheel", folder / archive.name.removesuffix(".tar.gz"), folder / "wheel")


@pytest.fixture(scope="module")
def wheel_of_the_clone(clone, tmp_path_factory) -> Path:
    return build("wheel", clone, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def editable(clone, tmp_path_factory) -> Path:
    """What an editable install of the clone puts into an environment."""
    return build("wheel:editable", clone, tmp_path_factory.mktemp("editable"))


def install(wheel: Path, folder: Path) -> Path:
    """Make an environment with a wheel; its dependencies are those of the tests' environment.

    Returns:
        Its folder of programs.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    options = ("install", "--quiet", "--no-deps", "--no-index", "--no-compile", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *options, cwd=folder)
    # Folders added by a .pth come after site-packages, and theirs are not read: neither an
    # installed nor an editable spurbench of the tests' environment can stand in for the wheel.
    (packages(folder) / "zz-dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


@pytest.fixture(scope="module")
def programs(request, tmp_path_factory) -> Callable[[str], Path]:
    """The folder of programs of an environment with what a fixture builds; made once for each."""

    @cache
    def of(made: str) -> Path:
        return install(request.getfixturevalue(made), tmp_path_factory.mktemp(made))

    return of


def packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def test_nothing_in_the_tree_is_a_link():
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository to ask")
    links = [
        line for line in run("git", "ls-files", "-s", cwd=ROOT).splitlines() if line[:6] == "120000"
    ]
    assert not links


def test_recipes_and_cards_travel_in_the_wheel(wheel):
    expected = {
        f"spurbench/{file.relative_to(ROOT).as_posix()}"
        for folder in DATA
        for file in (ROOT / folder).rglob("*")
        if file.is_file()
    }
    assert {Path(name).suffix for name in expected} >= {".toml", ".safetensors", ".jinja"}
    assert expected <= names(wheel)
    templates = ROOT / "spurbench/leaderboard/templates"
    page = {file.relative_to(ROOT).as_posix() for file in templates.rglob("*") if file.is_file()}
    assert {Path(name).name for name in page} >= {
        "leaderboard.css",
        "leaderboard.html.jinja",
        "table.js",
        "LICENSE",
    }
    assert page <= names(wheel)
    assert not [name for name in names(wheel) if name.startswith(("tests/", "builders/"))]


def test_folders_of_data_hold_no_code():
    assert not [path for folder in DATA for path in (ROOT / folder).rglob("*.py")]


def test_the_source_distribution_makes_the_same_wheel(wheel, wheel_of_the_sdist):
    assert names(wheel_of_the_sdist) == names(wheel)


def test_a_clone_without_links_makes_a_wheel_with_every_tracked_recipe(clone, wheel_of_the_clone):
    tracked = run("git", "ls-files", *DATA, cwd=ROOT).splitlines()
    assert {f"spurbench/{name}" for name in tracked} <= names(wheel_of_the_clone)


def test_an_editable_install_holds_no_frozen_copy_of_the_recipes(editable):
    assert not [name for name in names(editable) if any(folder in name for folder in DATA)]


@pytest.mark.parametrize("made", ["wheel", "wheel_of_the_sdist", "wheel_of_the_clone", "editable"])
def test_it_runs_from_a_fresh_environment_and_another_folder(made, programs, request, tmp_path):
    folder = programs(made)
    home = request.getfixturevalue("clone") if made == "editable" else folder.parent
    script = (
        "import spurbench\nfrom spurbench.core.resources import builders, card_templates\n"
        "print(spurbench.__file__, card_templates(), *builders().values(), sep='\\n')"
    )
    places = run(folder / "python", "-c", script, cwd=tmp_path).splitlines()
    assert len(places) == 2 + len(builders())
    assert all(Path(place).is_relative_to(home) for place in places), places
    assert "fireboat" in run(folder / "spurbench", "classes", "--recipe", "mini", cwd=tmp_path)


def test_an_editable_install_reads_the_recipes_of_its_checkout(programs, clone, tmp_path):
    registry = clone / "builders" / "mini" / "classes.toml"
    before = registry.read_text()
    try:
        registry.write_text(before.replace("fireboat", "steamboat"))
        said = run(programs("editable") / "spurbench", "classes", "--recipe", "mini", cwd=tmp_path)
    finally:
        registry.write_text(before)
    assert "steamboat" in said and "fireboat" not in said

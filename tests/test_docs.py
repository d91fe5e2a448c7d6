"""What the documentation names is there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from spurbench import __version__
from spurbench.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"`([^`\n]+)`")

TO_BE_MADE = {"benchmarks/results/finetune-full-cuda.json"}  # on a machine with a GPU


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    folders = "spurbench|tests|docs|builders|benchmarks|dataset_cards|leaderboards"
    named = [
        name
        for name in CODE.findall(page.read_text())
        if re.fullmatch(rf"({folders})/[\w./-]*", name) and "NAME" not in name
    ]
    assert not [name for name in set(named) - TO_BE_MADE if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_that_pages_name_are_of_the_makefile(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE)
    assert set(named) <= targets


def test_make_help_lists_every_target():
    # As from a shell, though `make test` runs this: make within make says where it is.
    shell = {k: v for k, v in os.environ.items() if k not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    listed = subprocess.run(
        ["make", "help"], cwd=ROOT, env=shell, capture_output=True, text=True, check=True
    ).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[0] for line in listed.splitlines()} == set(phony.split())


def test_the_commands_of_make_loop_are_there_and_end_in_what_its_page_names():
    shell = {k: v for k, v in os.environ.items() if k not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    said = subprocess.run(
        ["make", "--dry-run", "loop"],
        cwd=ROOT,
        env=shell,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = re.findall(r"^\S*bin/spurbench (.*)$", said.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) == 13
    written = set()
    for line in lines:
        name, *words = line.split()
        command = main.commands[name]
        if isinstance(command, click.Group):
            command = command.commands[words[0] if words[0] in command.commands else "run"]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
        written |= {word for word in words if word.startswith("out/loop/")}
    page = (ROOT / "docs" / "loop.md").read_text()
    named = set(re.findall(r"out/loop/[\w/*.-]+", page.partition("## ")[0]))
    assert named and named - {"out/loop/compared"} <= written


def test_the_readme_is_a_front_door():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for name in main.commands:
        assert f"spurbench {name}" in text, name


def test_python_in_pages_is_python():
    for page in PAGES:
        for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            ast.parse(code, str(page))


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == __version__
    assert citation["title"] and citation["message"] and citation["authors"]
    assert len(citation["references"]) == 2

"""The driver itself: it sees what it is there to see. ``make test-faults`` runs it on all."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import click
import pytest

from faults import process
from faults.case import Case, executed, judge
from faults.disk import Disk
from faults.generate import as_json, as_toml, changed, examples
from spurbench.cli import main as cli


@pytest.fixture
def command(monkeypatch):
    """Has ``spurbench`` do something else."""
    return lambda does: monkeypatch.setattr(cli, "main", does)


def verdict(root: Path, **changes) -> str:
    return judge(Case("kind", "name", (), **changes), root / "case", seconds=5).verdict


def fail(text: str, status: int = 1) -> None:
    click.echo(text, err=True)
    sys.exit(status)


def test_one_line_that_is_an_error_is_a_refusal(command, tmp_path):
    command(lambda: fail("a warning\nError: x is wrong; mend it"))
    assert verdict(tmp_path) == "refused"


@pytest.mark.parametrize(
    "does",
    [
        lambda: fail("Error: KeyError: 'x' (unexpected; please report it)"),
        lambda: fail("Error: one\nError: two"),
        lambda: fail("Error: x\nand more of it"),
        lambda: fail("no word of it"),
        lambda: fail("Error: x", status=3),
        lambda: click.echo("Error: forged"),
        lambda: 1 / 0,
        lambda: os.kill(os.getpid(), 9),
    ],
)
def test_any_other_failure_is_unexpected(command, does, tmp_path):
    command(does)
    assert verdict(tmp_path) == "unexpected"


def compute() -> None:
    while True:
        pass


@pytest.mark.parametrize("does", [lambda: time.sleep(60), compute])
def test_what_waits_or_computes_for_ever_hangs(command, does, tmp_path):
    command(does)
    case = Case("kind", "name", ())
    assert judge(case, tmp_path / "case", seconds=0.2).verdict == "hung"


def test_code_that_an_input_had_executed_is_seen(command, tmp_path):
    command(lambda: executed(Path.cwd()).touch())
    assert verdict(tmp_path) == "executed"


@pytest.mark.parametrize("place", ["out/x", "../../x", "../tmp/spurbench-x/y"])
def test_files_that_a_failure_leaves_or_that_lie_elsewhere_are_seen(command, place, tmp_path):
    def does() -> None:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).touch()
        if place == "out/x":
            fail("Error: x")

    command(does)
    assert verdict(tmp_path, output=("out/",)) == "left behind"


def test_success_without_a_word_is_silent_where_one_is_due(command, tmp_path):
    command(lambda: None)
    assert verdict(tmp_path) == "accepted"
    assert verdict(tmp_path / "said", takes="said") == "silent"
    assert verdict(tmp_path / "refused", takes="refused") == "silent"
    command(lambda: click.echo("left out: x", err=True))
    assert verdict(tmp_path / "word", takes="said") == "accepted"


def write_three() -> None:
    for name in "abc":
        Path(name).write_text("whole")


def test_a_disk_counts_operations_and_kills_at_any_of_them(command, tmp_path):
    command(write_three)
    disk = Disk(tmp_path)
    assert process.run((), tmp_path, disk=disk).status == 0
    assert disk.operations == 6  # opened and written, three times
    for name in "abc":
        (tmp_path / name).unlink()
    ending = process.run((), tmp_path, disk=Disk(tmp_path, "kill", 4))
    assert ending.status == -9
    assert [p.read_text() for p in (tmp_path / "a", tmp_path / "b")] == ["whole", "wh"]
    assert not (tmp_path / "c").exists()


def test_a_full_disk_stays_full(command, tmp_path):
    def does() -> None:
        for name in "abc":
            try:
                Path(name).write_text("whole")
            except OSError as error:
                click.echo(error.strerror)

    command(does)
    ending = process.run((), tmp_path, disk=Disk(tmp_path, "full", 3))
    assert ending.out.splitlines() == ["No space left on device"] * 2
    assert [(tmp_path / name).stat().st_size for name in "abc"] == [5, 0, 0]


def test_bad_documents_are_the_same_at_every_run_and_differ_from_the_sound_one():
    sound = {"name": "x", "list": [1, 2.5], "table": {"on": True}}
    made = examples(changed(sound), 12)
    assert len(made) == 12
    assert list(map(repr, made)) == list(map(repr, examples(changed(sound), 12)))
    assert sum(as_json(document) != as_json(sound) for document in made) >= 11
    assert all(isinstance(as_toml(document), str) for document in made)


@pytest.mark.parametrize(
    ("arguments", "lay"),
    [
        (("classes", "--recipe", "nonsense"), None),
        (("classes", "--classes", "nonsense"), None),
        (("verify", "data"), lambda folder: os.mkfifo(folder / "data")),
        (("leaderboard", "board.json"), lambda folder: (folder / "board.json").write_text("{")),
    ],
)
def test_a_few_bad_inputs_end_in_one_line(arguments, lay, tmp_path):
    case = Case("kind", "name", arguments, lay or (lambda folder: None))
    outcome = judge(case, tmp_path / "case", seconds=60)
    assert outcome.verdict == "refused", outcome.seen

"""How commands end, whatever happens, and what they print of names from outside."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from makers.measured import save_dataset, save_result
from makers.toy import toy_recipe
from spurbench.cli.main import main
from spurbench.cli.tables import show
from spurbench.cli.terminal import say
from spurbench.core.errors import SpurbenchError
from spurbench.core.text import printable

HEAVY = ("torch", "timm", "diffusers", "datasets", "pandas", "transformers", "matplotlib")
EVIL = "a\nError: forged\x1b[31m\udcff[/b][red]é"


def command(*arguments: str | Path, **settings) -> subprocess.Popen:
    """A command on its own, with pipes for its output."""
    code = "from spurbench.cli.main import main; main(prog_name='spurbench')"
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], **settings)


@pytest.fixture
def ending(monkeypatch):
    """Runs a command whose body is a function; gives its result."""

    def run(body, *before: str):
        monkeypatch.setitem(main.commands, "it", click.Command("it", callback=body))
        return CliRunner().invoke(main, [*before, "it"])

    return run


def raiser(error: BaseException):
    def body():
        raise error

    return body


def from_inside(outer: Exception, inner: Exception) -> Exception:
    """An error that a library raises while it handles another."""
    outer.__context__ = inner
    return outer


ENDS = {
    "disk full": (OSError(errno.ENOSPC, "No space left on device", "a.png"), "a.png: the disk"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "free some space"),
    "full, as safetensors says it": (
        RuntimeError("Error while serializing: No space left on device (os error 28)"),
        "free some space",
    ),
    "full, behind another error": (
        from_inside(RuntimeError("unexpected pos 64"), OSError(errno.ENOSPC, "No space", "w.pt")),
        "w.pt: the disk",
    ),
    "memory": (MemoryError(), "memory ran out"),
    "memory, as torch says it": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        "memory ran out",
    ),
    "nested": (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
    "no text": ("\udcff".encode, "no valid UTF-8"),
    "no bytes": (b"\xff".decode, "no valid UTF-8"),
    "NUL": (Path("a\0b").stat, "NUL"),
    "a file": (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied"),
    "no file named": (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    "no number": (OSError("Invalid: magic bytes"), "magic bytes"),
    "ours": (SpurbenchError("say it so"), "say it so"),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_files_disks_and_memory_cause_is_one_line_and_never_unexpected(case, ending):
    cause, said = ENDS[case]
    done = ending(raiser(cause) if isinstance(cause, BaseException) else cause)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert said in done.stderr and "unexpected" not in done.stderr


def test_what_only_we_can_mend_is_to_be_reported(ending):
    done = ending(raiser(KeyError("what")))
    assert done.exit_code == 1 and "unexpected" in done.stderr and "report" in done.stderr


def test_an_interrupt_ends_with_the_status_of_one(ending):
    done = ending(raiser(KeyboardInterrupt()))
    assert (done.exit_code, done.stderr.strip()) == (130, "Interrupted")


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_nothing_half_written(sent, status, tmp_path):
    code = (
        "import sys, time, click\n"
        "from pathlib import Path\n"
        "from spurbench.cli.main import main\n"
        "from spurbench.core import atomic\n"
        "@main.command()\n"
        "def it():\n"
        "    with atomic.folder(Path(sys.argv[2])) as folder:\n"
        "        (folder / 'file').write_text('half')\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "main(['it'])\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code, "it", tmp_path / "made"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(sent)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == status
    assert b"Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_signals_are_as_before_once_a_command_has_ended(ending):
    before = signal.getsignal(signal.SIGTERM)
    during = []
    ending(lambda: during.append(signal.getsignal(signal.SIGTERM)))
    assert during != [before] and signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def test_a_reader_who_has_seen_enough_is_no_error():
    running = command("classes")
    running.stdout.close()  # as `| head` does, early
    errors = running.stderr.read()
    running.stderr.close()
    assert (running.wait(timeout=60), errors) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_to_a_full_disk_is_one_line():
    with Path("/dev/full").open("w") as full:
        running = command("classes", stdout=full)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 1
    assert errors.startswith(b"Error: the disk") and errors.count(b"\n") == 1


def test_names_show_what_they_hold():
    assert printable(EVIL) == r"a\nError: forged\x1b[31m\udcff[/b][red]é"
    assert printable("plain, with spaces and 漢字") == "plain, with spaces and 漢字"
    assert printable("\u202egnp.exe") == r"\u202egnp.exe"


def test_no_name_can_pass_for_a_line_of_ours(ending, monkeypatch):
    # pytest would pass on what is logged, as UTF-8.
    monkeypatch.setattr(logging.getLogger("spurbench"), "propagate", False)

    def body():
        from rich.table import Table

        table = Table("heading", title=EVIL)
        table.add_row(EVIL)
        show(table)
        say(EVIL)
        logging.getLogger("spurbench.it").warning("left out: %s", EVIL)
        raise SpurbenchError(f"{EVIL} is missing")

    done = ending(body)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert [line for line in lines if line.startswith("Error:")] == [
        rf"Error: {printable(EVIL)} is missing"
    ]
    assert len([line for line in lines if printable(EVIL) in line]) == 5
    assert "\x1b" not in done.output


def test_neither_side_of_a_comparison_can_pass_for_a_line_of_ours(tmp_path):
    images = save_dataset(tmp_path / "data")
    shares = {"real": 0.5, "generated": 0.5}
    sides = [save_result(tmp_path, images, n, shares) for n in ("a\nError: forged", "b")]
    said = CliRunner().invoke(
        main, ["compare", *map(str, sides), "--output", str(tmp_path / "out")]
    )
    assert said.exit_code == 0, said.output
    assert not [line for line in said.output.splitlines() if line.startswith("Error:")]


def test_a_path_that_is_a_circle_of_links_is_one_line(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    save_result(
        tmp_path / "r", save_dataset(tmp_path / "data"), "a", {"real": 0.5, "generated": 1.0}
    )
    said = CliRunner().invoke(
        main, ["leaderboard", "build", str(tmp_path / "r"), "--output", str(loop)]
    )
    assert said.exit_code == 1 and said.output.startswith("Error: ")
    assert said.output.count("\n") == 1 and "unexpected" not in said.output


def test_arguments_are_shown_as_names_are():
    for arguments in (["quality", EVIL], ["nothing\nError: x"], ["eval", "--split", "x\nError: y"]):
        said = CliRunner().invoke(main, arguments).output
        assert sum(line.startswith("Error:") for line in said.splitlines()) == 1, said


def test_an_output_that_lacks_a_character_shows_its_number(tmp_path):
    recipe = toy_recipe(tmp_path / "recipe")
    settings = (recipe / "recipe.toml").read_text()
    (recipe / "recipe.toml").write_text(settings.replace("Noise.", "Bruit é 漢."))
    for encoding in ("ascii", "latin-1"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
        running = command("classes", "--recipe", recipe, env=environment)
        out, errors = running.communicate(timeout=60)
        assert (running.returncode, errors) == (0, b"")
        assert b"Bruit" in out and "漢".encode() not in out


def test_quiet_shows_neither_notes_nor_warnings_nor_bars():
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    code = (
        "import logging, warnings, click\n"
        "from spurbench.cli.main import main\n"
        "@main.command()\n"
        "def it():\n"
        "    from tqdm import tqdm\n"
        "    warnings.warn('of the future', FutureWarning)\n"
        "    warnings.warn('of today', UserWarning)\n"
        "    logging.getLogger('spurbench').info('a note')\n"
        "    logging.getLogger('spurbench').warning('a fault')\n"
        "    logging.getLogger('spurbench').error('a failure')\n"
        "    list(tqdm(range(3), 'a bar', disable=None))\n"
        "main(prog_name='spurbench')\n"
    )
    said = {}
    for options in ((), ("-q",)):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        done = subprocess.run([sys.executable, "-c", code, *options, "it"], stderr=theirs)
        os.close(theirs)
        assert done.returncode == 0
        said[options] = os.read(ours, 65536).decode()
        os.close(ours)
    for shown in ("a note", "a fault", "a bar", "of today"):
        assert shown in said[()]
    assert "of the future" not in said[()]
    assert said[("-q",)].splitlines() == ["a failure"]


def test_a_command_leaves_the_warnings_of_its_caller_alone(ending):
    before = list(warnings.filters)
    ending(lambda: None, "-q")
    assert warnings.filters == before


def imported_by(runs: list[list[str]]) -> list[tuple[list[str], int, list[str]]]:
    """Each run's arguments, status, and the heavy modules that are imported after it."""
    code = (
        "import json, sys\n"
        "from click.testing import CliRunner\n"
        "from spurbench.cli.main import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    status = CliRunner().invoke(main, arguments).exit_code\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    print(json.dumps([arguments, status, heavy]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(runs)], capture_output=True, text=True, check=True
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def commands(group=main, path=()):
    yield list(path)
    for name, inner in getattr(group, "commands", {}).items():
        yield from commands(inner, (*path, name))


def test_no_help_imports_anything_heavy():
    paths = list(commands())
    assert len(paths) > 15
    for arguments, status, heavy in imported_by([[*path, "--help"] for path in paths]):
        assert (status, heavy) == (0, []), arguments


def test_a_mistake_is_found_before_anything_heavy_is_imported(tmp_path):
    nowhere = str(tmp_path / "nowhere")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "spurbench.json").write_text("{")
    broken = str(tmp_path / "broken")
    runs = [
        ["build", "--recipe", "minny"],
        ["build", "--set", "finetune.stepz=1"],
        ["build", "--classes", "nonsense"],
        ["build", "--version", "1.0"],
        ["build", "--device", "abacus"],
        ["build", "--output", str(Path(__file__).parent)],
        ["build", "--previous", broken],
        ["build", "--data", nowhere],
        ["ablate", "--recipe", "sd15"],
        ["ablate", "--rows", "nonsense"],
        ["ablate", "--classes", "nonsense"],
        ["ablate", "--device", "abacus"],
        ["validity", "--recipe", "sd15"],
        ["validity", "--rows", "nonsense"],
        ["validity", "--recipe", "mini", "--zoo", str(tmp_path)],
        ["validity", "--device", "abacus"],
        ["classes", "--classes", "nonsense"],
        ["verify", nowhere],
        ["quality", nowhere],
        ["quality", broken],
        ["push", broken, "--repo-id", "owner/name"],
        ["diff", broken, broken],
        ["mini", "measure", "x.json", "--scenes", "0"],
        ["mini", "measure", "x.json", "--device", "abacus"],
        ["mini", "positives", "x", "--images", "0"],
    ]
    for arguments, status, heavy in imported_by(runs):
        assert status != 0 and heavy == [], arguments

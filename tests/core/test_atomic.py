from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.core.scratch import scratch


def contents(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in folder.rglob("*") if f.is_file()}


def fail_to_rename(monkeypatch, method: str, source: Path | None = None) -> None:
    """Make renaming fail: every time, or of ``source`` only."""
    real = getattr(Path, method)

    def rename(self, target):
        if source is None or self == source:
            raise OSError("disk full")
        return real(self, target)

    monkeypatch.setattr(Path, method, rename)


def test_a_file_is_written_whole_with_its_parents(tmp_path):
    path = tmp_path / "deep" / "er" / "file.bin"
    atomic.write_bytes(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    atomic.write_text(path, "ü\n")
    assert path.read_bytes() == b"\xc3\xbc\n"
    assert [f.name for f in path.parent.iterdir()] == ["file.bin"]


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    fail_to_rename(monkeypatch, "replace")
    with pytest.raises(OSError, match="disk full"):
        atomic.write_text(path, "new")
    assert contents(tmp_path) == {"file": "old"}


def test_json_is_readable_and_not_a_number_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "file.json"
    atomic.write_json(path, {"name": "Žižka", "share": 0.1})
    assert path.read_text(encoding="utf-8") == '{\n  "name": "Žižka",\n  "share": 0.1\n}\n'
    with pytest.raises(ValueError, match="Out of range"):
        atomic.write_json(path, {"share": float("nan")})
    assert '"share": 0.1' in path.read_text(encoding="utf-8")


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.write_text(tmp_path / "file", "")
        with atomic.folder(tmp_path / "folder") as folder:
            assert folder.is_dir()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder")]
    assert modes == [0o640, 0o750]


def test_a_folder_appears_only_when_it_is_finished(tmp_path):
    target = tmp_path / "deep" / "folder"
    with atomic.folder(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("a")
        assert not target.exists()
        assert folder.parent == target.parent
    assert contents(tmp_path) == {"deep/folder/sub/a": "a"}


def test_a_finished_folder_replaces_the_old_one_entirely(tmp_path):
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with atomic.folder(target) as folder:
            (folder / name).write_text(name)
    assert contents(tmp_path) == {"folder/new": "new"}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_folder_leaves_the_old_one_and_nothing_beside_it(tmp_path, error):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(error), atomic.folder(target) as folder:
        (folder / "new").write_text("new")
        raise error
    assert contents(tmp_path) == {"folder/old": "old"}


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
        (folder / folder.name).write_text("x")
    fail_to_rename(monkeypatch, "rename", source)
    with pytest.raises(OSError, match="disk full"):
        atomic.replace_folder(source, target)
    assert contents(tmp_path) == {"source/source": "x", "target/target": "x"}


def test_replacing_a_link_to_a_folder_keeps_what_it_points_to(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with atomic.folder(tmp_path / "link") as folder:
        (folder / "b").write_text("b")
    assert contents(tmp_path) == {"elsewhere/a": "a", "link/b": "b"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "link"]


@pytest.mark.parametrize("path", [".", "..", "/"])
def test_a_folder_without_a_name_of_its_own_is_refused(path):
    with pytest.raises(SpurbenchError, match="name a new folder"), atomic.folder(Path(path)):
        pass


def killed(code: str, *arguments: Path) -> None:
    """Run code that says when it has come far enough, and kill it there."""
    program = f"import sys, time\nfrom pathlib import Path\n{code}"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"far enough\n"
        process.send_signal(signal.SIGKILL)


STOP = "print('far enough', flush=True); time.sleep(60)"
WRITE_FILE = (
    "from spurbench.core import atomic\n"
    f"with atomic.writing(Path(sys.argv[1])) as file: file.write(b'half'); {STOP}"
)
WRITE_FOLDER = (
    "from spurbench.core import atomic\n"
    f"with atomic.folder(Path(sys.argv[1])) as f: (f / 'half').write_text('half'); {STOP}"
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path):
    killed(WRITE_FILE, tmp_path / "a[1].json")
    killed(WRITE_FILE, tmp_path / "other")
    assert len(names(tmp_path)) == 2
    atomic.write_text(tmp_path / "a[1].json", "whole")
    assert len(names(tmp_path)) == 2, "others' leftovers are theirs"
    assert (tmp_path / "a[1].json").read_text() == "whole"
    atomic.write_text(tmp_path / "other", "whole")
    assert names(tmp_path) == ["a[1].json", "other"]


def test_what_a_living_writer_is_writing_is_left_alone(tmp_path):
    path = tmp_path / "file"
    with atomic.writing(path) as slow:
        slow.write(b"slow")
        for _ in range(3):
            atomic.write_text(path, "quick")
        assert path.read_text() == "quick"
    assert contents(tmp_path) == {"file": "slow"}


def test_many_writers_of_one_file_leave_it_whole_and_nothing_beside_it(tmp_path):
    path, faults = tmp_path / "file", []

    def write(i: int) -> None:
        try:
            for _ in range(30):
                atomic.write_text(path, str(i) * 1000)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert names(tmp_path) == ["file"]
    assert len(path.read_text()) == 1000 and len(set(path.read_text())) == 1


def test_files_that_only_look_like_leftovers_are_kept(tmp_path):
    for name in (".file.tmp", ".file.0123456789ab.tmp.txt", "file.0123456789ab.tmp", ".file.old"):
        (tmp_path / name).write_text("mine")
    os.mkfifo(tmp_path / ".file.0123456789ac.pipe")
    before = names(tmp_path)
    atomic.write_text(tmp_path / "file", "x")
    assert names(tmp_path) == sorted([*before, "file"])


def test_the_next_writer_of_a_folder_removes_what_a_killed_one_left(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").write_text("old")
    killed(WRITE_FOLDER, target)
    assert any(name.endswith(".tmp") for name in names(tmp_path))
    assert (target / "old").read_text() == "old"
    with atomic.folder(target) as folder:
        (folder / "new").write_text("new")
    assert contents(tmp_path) == {"folder/new": "new"}
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("renames", [1, 2])
def test_a_writer_killed_while_it_replaces_a_folder_costs_neither_version(tmp_path, renames):
    """Killed after so many of the two renames: the next writer settles it before it begins."""
    target = tmp_path / "folder"
    with atomic.folder(target) as folder:
        (folder / "old").write_text("old")
    code = (
        "from spurbench.core import atomic\n"
        "real, done = Path.rename, []\n"
        "def rename(self, target):\n"
        "    real(self, target)\n"
        "    done.append(1)\n"
        f"    if len(done) == {renames}: {STOP}\n"
        "Path.rename = rename\n"
        "with atomic.folder(Path(sys.argv[1])) as f: (f / 'new').write_text('new')"
    )
    killed(code, target)
    with pytest.raises(RuntimeError), atomic.folder(target):
        raise RuntimeError("a writer that fails, after it has settled")
    assert contents(tmp_path) == ({"folder/old": "old"} if renames == 1 else {"folder/new": "new"})
    assert names(tmp_path) == ["folder"]


def test_of_two_writers_of_a_folder_one_wins_and_the_other_is_told(tmp_path):
    target = tmp_path / "folder"
    with atomic.folder(target) as folder:
        (folder / "first").write_text("1")
        with (
            pytest.raises(SpurbenchError, match="is being written by another process; wait"),
            atomic.folder(target),
        ):
            raise AssertionError("two at once")
        code = "from spurbench.core import atomic\nwith atomic.folder(Path(sys.argv[1])): pass"
        program = f"import sys\nfrom pathlib import Path\n{code}"
        command = [sys.executable, "-c", program, str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "SpurbenchError" in done.stderr and "is being written" in done.stderr
    assert contents(tmp_path) == {"folder/first": "1"}
    assert names(tmp_path) == ["folder"]


@pytest.fixture
def full():
    """No file can grow beyond 64 kB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array(os.urandom(300_000))}), path, compression=None)


@pytest.mark.parametrize(
    "fill",
    [
        lambda folder: (folder / "a").write_bytes(bytes(100_000)),
        lambda folder: write_parquet(folder / "a"),
        lambda folder: save_file({"a": torch.zeros(100_000)}, folder / "a.safetensors"),
        lambda folder: atomic.write_bytes(folder / "a", bytes(100_000)),
    ],
)
def test_a_full_disk_is_said_in_one_line_whoever_writes(tmp_path, full, fill):
    with (
        pytest.raises(SpurbenchError, match=r"folder.* can't be written: .*; write elsewhere"),
        atomic.folder(tmp_path / "folder") as folder,
    ):
        fill(folder)
    assert names(tmp_path) == []
    with pytest.raises(SpurbenchError, match=r"file can't be written: "):
        atomic.write_bytes(tmp_path / "file", bytes(100_000))
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES"])
def test_what_the_system_refuses_is_said_of_the_target(tmp_path, monkeypatch, code):
    number = getattr(errno, code)

    def refused(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refused)
    said = f"^{tmp_path / 'f'} can't be written: {os.strerror(number)}; write elsewhere"
    with pytest.raises(SpurbenchError, match=said):
        atomic.write_text(tmp_path / "f", "x")
    assert names(tmp_path) == []


def test_a_file_in_the_way_is_said_and_other_errors_stay_what_they_are(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(SpurbenchError, match=r"f/g can.t be written: (Not|File)"):
        atomic.write_text(tmp_path / "f" / "g", "x")
    (tmp_path / "d").mkdir()
    with pytest.raises(SpurbenchError, match="d can't be written: Is a directory"):
        atomic.write_text(tmp_path / "d", "x")
    other = PermissionError(errno.EACCES, "Permission denied", "/somewhere/else")
    for error in (other, OSError("broken"), FileNotFoundError(errno.ENOENT, "no", "x")):
        with pytest.raises(type(error)) as raised, atomic.writing(tmp_path / "file"):
            raise error
        assert raised.value is error


def test_scratch_folders_of_killed_processes_are_removed_and_no_others(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code = f"from spurbench.core.scratch import scratch\nwith scratch() as f: {STOP}"
    killed(code)
    assert len(names(tmp_path)) == 1
    for name in ("spurbench-data", "spurbench-scratch-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_text("mine")
    with scratch() as living:
        (living / "x").write_text("x")
        with scratch() as other:
            assert (living / "x").read_text() == "x"
            expected = [living.name, other.name, "spurbench-data", "spurbench-scratch-mine"]
            assert names(tmp_path) == sorted(expected)
    assert names(tmp_path) == ["spurbench-data", "spurbench-scratch-mine"]


def test_a_full_temporary_folder_is_said_in_one_line(tmp_path, monkeypatch, full):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(SpurbenchError, match=r"can't be written: .*; set TMPDIR"), scratch() as f:
        (f / "a").write_bytes(bytes(100_000))
    assert names(tmp_path) == []

    def nowhere():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(SpurbenchError, match=r"no folder for temporary files: .*; set TMPDIR"):
        scratch().__enter__()

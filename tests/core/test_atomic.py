from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError


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

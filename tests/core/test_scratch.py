from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager

import pytest

from spurbench.core.scratch import PREFIX, scratch


def test_a_folder_that_another_process_removes_meanwhile_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    other = tmp_path / f"{PREFIX}{'0' * 12}"
    other.mkdir()
    scandir = os.scandir

    @contextmanager
    def then_it_is_gone(path):
        with scandir(path) as entries:
            listed = list(entries)
        other.rmdir()
        yield listed

    monkeypatch.setattr(os, "scandir", then_it_is_gone)
    with scratch() as folder:
        monkeypatch.undo()
        assert folder.is_dir() and folder.parent == tmp_path
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="abandoned folders are known by their locks")
def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    abandoned = tmp_path / f"{PREFIX}{'1' * 12}"
    abandoned.mkdir()
    with scratch(), scratch():
        assert not abandoned.exists()
        assert len(list(tmp_path.iterdir())) == 2

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from spurbench.core.errors import SpurbenchError
from spurbench.images import official
from spurbench.images.at_hand import at_hand, one_at_hand


@pytest.fixture(autouse=True)
def nothing(tmp_path, monkeypatch):
    """An empty folder to be in, and nothing fetched."""
    monkeypatch.delenv("SPURBENCH_DATA", raising=False)
    monkeypatch.setenv("SPURBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def fetched() -> Path:
    folder = official.default_folder()
    folder.mkdir(parents=True)
    folder.with_name(f"{folder.name}.json").write_text("{}")
    return folder


def built(folder: str, name: str, version: str, created: str = "2024-02-13", **other) -> str:
    path = Path("out") / folder
    path.mkdir(parents=True)
    manifest = {"schema": "spurbench.dataset/2", "name": name, "version": version, "files": {}}
    (path / "spurbench.json").write_text(json.dumps({**manifest, "created": created, **other}))
    return str(path)


def found(**arguments) -> list[str]:
    return [images.data for images in at_hand(**arguments)]


def test_nothing_is_one_line_with_the_two_commands_that_get_something():
    for ask in (at_hand, one_at_hand):
        with pytest.raises(SpurbenchError) as caught:
            ask()
        said = str(caught.value)
        assert "\n" not in said
        assert "spurbench fetch spurious-imagenet" in said
        assert "spurbench build --classes all" in said


def test_what_is_named_comes_before_what_is_fetched_before_what_is_built(monkeypatch):
    dataset = built("a", "spurbench-a", "1.0.0")
    assert found() == [dataset]
    photographs = fetched()
    assert found() == [str(photographs)]
    assert found(split="generated") == [dataset]  # photographs are not
    monkeypatch.setenv("SPURBENCH_DATA", "owner/name")
    assert found() == found(split="generated") == ["owner/name"]
    assert "SPURBENCH_DATA" in one_at_hand().why


def test_a_folder_that_no_fetch_finished_is_not_at_hand():
    official.default_folder().mkdir(parents=True)
    with pytest.raises(SpurbenchError, match="no images at hand"):
        at_hand()


def test_the_newest_of_each_name_is_by_version_then_date_not_by_folder_or_file_time():
    newest = built("b", "spurbench-toy", "1.10.0", created="2024-01-01")
    built("z", "spurbench-toy", "1.9.0", created="2024-02-01")
    again = built("a", "spurbench-other", "1.0.0", created="2024-03-02")
    built("c", "spurbench-other", "1.0.0", created="2024-03-01")
    assert found() == [again, newest]
    assert "1.10.0" in at_hand()[1].why


def test_what_is_no_finished_dataset_is_left_out_and_named(caplog):
    good = built("good", "spurbench-toy", "1.0.0")
    built("old", "spurbench-toy", "2.0.0", schema="spurbench.dataset/0")
    built("odd", "spurbench-toy", "newest")
    built("junk", "x", "1.0.0")
    Path("out/junk/spurbench.json").write_text("{")
    Path("out/results").mkdir()
    with caplog.at_level(logging.WARNING):
        assert found() == [good]
    assert all(name in caplog.text for name in ("out/old", "out/odd", "out/junk"))


def test_python_asks_for_one_where_several_are_at_hand():
    first = built("a", "spurbench-a", "1.0.0")
    assert one_at_hand().data == first
    second = built("b", "spurbench-b", "1.0.0")
    with pytest.raises(SpurbenchError, match=f"{first}, {second}"):
        one_at_hand()


def test_looking_imports_nothing_heavy():
    code = (
        "import sys; from spurbench.images.at_hand import at_hand\n"
        "try: at_hand()\n"
        "except Exception as error: print('no images' in str(error), end=' ')\n"
        "print(sorted({'torch', 'timm', 'pandas', 'pyarrow', 'datasets', 'transformers'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True []"

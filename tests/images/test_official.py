from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from makers.files_server import serving
from makers.photographs import official_archive, pairs, with_entries, without
from spurbench.core import download as downloading
from spurbench.core.errors import SpurbenchError
from spurbench.images import official
from spurbench.images.sources import open_images

CLASS = "images/spurious_class_094_hummingbird_component_2"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # once for every image


def test_there_are_a_hundred_pairs_of_75_images():
    assert (len(pairs()), official.IMAGES) == (100, 75)


@pytest.fixture
def small(monkeypatch):
    """Two images a class instead of 75."""
    monkeypatch.setattr(official, "IMAGES", 2)
    return official_archive(2)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refused(data: bytes, folder: Path, **arguments) -> str:
    """What is said of an archive of which nothing is to stay."""
    earlier = sorted(folder.parent.rglob("*"))
    with serving(data) as server, pytest.raises(SpurbenchError) as caught:
        official.fetch(folder, url=server.url, **arguments)
    assert sorted(folder.parent.rglob("*")) == earlier
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_the_archive_of_its_real_shape_is_taken(tmp_path):
    with serving(official_archive(75), cuts=[10_000, 300_000]) as server:
        official.fetch(tmp_path / "p", url=server.url)
    images = open_images(str(tmp_path / "p"), decode=False)
    assert len(images.records) == len({r.sha256 for r in images.records}) == 7500


def test_the_archive_becomes_a_folder_whose_features_have_names(small, tmp_path):
    folder = tmp_path / "deep" / "photographs"
    with serving(small, cuts=[10_000, 30_000]) as server:
        place = official.fetch(folder, url=server.url)
    assert place.is_new and place.folder == folder
    assert place.fetched.url == server.url
    assert place.fetched.bytes == len(small)
    assert place.fetched.sha256 == sha256(small)
    images = open_images(str(folder), decode=False)
    assert len(images.records) == 200 and images.info.name == "photographs"
    named = {r.class_index: (r.class_name, r.spurious_feature) for r in images.records}
    assert named == {p.index: (p.name, p.spurious_feature) for p in pairs()}
    recorded = json.loads((tmp_path / "deep" / "photographs.json").read_text())
    assert recorded["sha256"] == place.fetched.sha256 and recorded["bytes"] == place.fetched.bytes
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        "photographs",
        "photographs.json",
    ]

    # A second time nothing is fetched: the server is gone.
    again = official.fetch(folder, url=server.url)
    assert not again.is_new and again.fetched == place.fetched
    with pytest.raises(SpurbenchError, match="delete it to fetch"):
        official.fetch(folder, url=server.url, sha256="0" * 64)
    changed = next(folder.rglob("*.png"))
    before = changed.read_bytes()
    changed.write_bytes(b"another")
    with pytest.raises(SpurbenchError, match="not any more what was fetched"):
        official.fetch(folder)
    changed.write_bytes(before)
    (changed.parent / "more.png").write_bytes(before)
    with pytest.raises(SpurbenchError, match="not any more what was fetched"):
        official.fetch(folder)


def test_another_archive_than_last_time_is_refused_until_its_hash_is_given(
    small, tmp_path, monkeypatch
):
    folder = tmp_path / "photographs"
    record = official.Fetched(
        url="http://x", bytes=1, sha256="1" * 64, images="2" * 64, date="2024-02-13T00:00:00+00:00"
    )
    (tmp_path / "photographs.json").write_text(record.model_dump_json(by_alias=True))
    said = refused(small, folder)
    assert f"has sha256 {sha256(small)}, not {'1' * 64}" in said
    with serving(small) as server:
        place = official.fetch(folder, url=server.url, sha256=sha256(small))
    assert place.is_new and place.fetched.sha256 == sha256(small)


def test_the_hash_that_is_asked_for_is_insisted_on(small, tmp_path):
    assert "as expected" in refused(small, tmp_path / "p", sha256="0" * 64)
    with pytest.raises(SpurbenchError, match="64 hexadecimal"):
        official.fetch(tmp_path / "p", sha256="123")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("../escaped.png", "leads out"),
        (f"{CLASS}/0.png", "twice"),
        (f"{CLASS}/75.png", "3 images of spurious_class_094"),
        (f"again/{CLASS}/0.png", "two of spurious_class_094"),
        ("images/spurious_class_094_hummingbird_component_9/0.png", "component 9"),
        ("images/spurious_class_001_goldfish_component_1/0.png", "class 1,"),
    ],
    ids=str,
)
def test_a_hostile_or_wrong_archive_leaves_nothing_behind(small, tmp_path, entry, said):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of a name twice
        archive = with_entries(small, (entry, b"x"))
    assert said in refused(archive, tmp_path / "p")
    assert not list(tmp_path.parent.rglob("escaped*"))


def test_a_missing_image_or_class_is_named(small, tmp_path):
    one = refused(without(small, f"{CLASS}/1.png"), tmp_path / "p")
    assert "1 images of spurious_class_094_hummingbird_component_2, where 2 should be" in one
    whole = refused(without(small, CLASS), tmp_path / "p")
    assert ": 0 images of spurious_class_094" in whole


@pytest.mark.parametrize("data", [b"", b"<html>No such share</html>", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_of_images_is_one_line(small, tmp_path, data):
    assert "no whole zip archive" in (said := refused(data, tmp_path / "p")) or "0 images" in said


def test_an_archive_with_flipped_bits_or_cut_short_is_refused(small, tmp_path):
    flipped = bytearray(small)
    at = flipped.index(b"IDAT", len(flipped) // 2)
    flipped[at + 5] ^= 0xFF
    assert "no whole zip archive" in refused(bytes(flipped), tmp_path / "p")
    assert "no whole zip archive" in refused(small[:-100], tmp_path / "p")


def test_what_somebody_else_put_there_is_left_alone(small, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "mine").write_text("mine")
    assert "nothing says that it was fetched" in refused(small, tmp_path / "p")
    (tmp_path / "q.json").write_text("{}")
    assert "delete" in refused(small, tmp_path / "q")


def test_a_disk_without_room_for_the_images_is_said(small, tmp_path, monkeypatch):
    usage = official.archive.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(official.archive.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "make room there" in refused(small, tmp_path / "p")


def test_a_killed_fetch_goes_on_where_it_was(small, tmp_path):
    folder, packed = tmp_path / "photographs", tmp_path / ".photographs.zip"
    with serving(small, slow=threading.Event()) as server:
        code = (
            "import sys, pathlib; from spurbench.images import official; "
            f"official.fetch(pathlib.Path({str(folder)!r}), url={server.url!r})"
        )
        child = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 60
        while not (packed.is_file() and packed.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.wait()
        there = packed.stat().st_size
        assert 0 < there < len(small) and not folder.exists()
        server.slow.set()
        server.slow = None
        server.requests.clear()
        official.fetch(folder, url=server.url)
        assert server.requests == [f"bytes={there}-"]
    assert len(open_images(str(folder), decode=False).records) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photographs", "photographs.json"]


def test_the_default_folder_is_the_user_s_and_can_be_moved(tmp_path, monkeypatch):
    monkeypatch.delenv("SPURBENCH_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert official.default_folder() == tmp_path / "data" / "spurbench" / "spurious-imagenet"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert official.default_folder().is_relative_to(Path.home())
    monkeypatch.setenv("SPURBENCH_HOME", str(tmp_path))
    assert official.default_folder() == tmp_path / "spurious-imagenet"
    assert official.fetched_folder() is None

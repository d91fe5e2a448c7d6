from __future__ import annotations

import io
import stat
import warnings
import zipfile
from pathlib import Path

import pytest

from spurbench.core.errors import SpurbenchError
from spurbench.images import archive


def entry(name: str, mode: int = 0, packed: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = packed
    return info


def zipped(*entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        warnings.simplefilter("ignore")  # zipfile's, of a name twice
        made.writestr("a/0.png", b"picture")
        for info, content in entries:
            made.writestr(info, content)
    return buffer.getvalue()


def unpacked(folder: Path, data: bytes) -> list[str]:
    """Unpack everything; the paths below ``folder`` that this gives."""
    path = folder / "archive.zip"
    path.write_bytes(data)
    (folder / "to").mkdir()
    with archive.opened(path) as opened:
        files = {e.filename: e for e in opened.infolist() if not e.is_dir()}
        archive.unpack(opened, files, folder / "to")
    return sorted(p.relative_to(folder / "to").as_posix() for p in folder.rglob("to/**/*.*"))


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(SpurbenchError) as caught:
        unpacked(folder, data)
    assert "\n" not in str(caught.value)
    assert not list((folder / "to").rglob("*.*"))
    return str(caught.value)


def test_what_is_plain_is_unpacked(tmp_path):
    data = zipped(
        ("b/", b""),
        (entry("b/ä, long-name's 1.jpg", stat.S_IFREG | 0o644), b"x"),
        (entry("c/2..jpg", 0o600, zipfile.ZIP_DEFLATED), b"y" * 100),
    )
    assert unpacked(tmp_path, data) == ["a/0.png", "b/ä, long-name's 1.jpg", "c/2..jpg"]
    assert (tmp_path / "to" / "c" / "2..jpg").read_bytes() == b"y" * 100


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../escaped.png", "leads out"),
        ("a/../../escaped.png", "leads out"),
        ("a/..", "leads out"),
        ("/escaped.png", "leads out"),
        ("//escaped.png", "leads out"),
        ("a/./1.png", "leads out"),
        ("a//1.png", "leads out"),
        ("C:/escaped.png", "no system"),
        ("a/1.png:stream", "no system"),
        ("..\\escaped.png", "no system"),
        ("a/\x1b[2J1.png", "no system"),
        ("a/1.png\n", "no system"),
        (entry("a/link", stat.S_IFLNK | 0o777), "link"),
        (entry("a/pipe", stat.S_IFIFO | 0o666), "link or a device"),
        (entry("a/device", stat.S_IFCHR | 0o666), "link or a device"),
        (entry("a/1.png", packed=zipfile.ZIP_LZMA), "unusual"),
        ("a/0.png", "twice"),
        ("A/0.PNG", "twice"),
        ("a/0.png/", "twice"),
    ],
    ids=lambda value: repr(getattr(value, "filename", value)),
)
def test_what_could_do_harm_is_refused_before_anything_is_written(tmp_path, name, said):
    content = b"" if str(name).endswith("/") else b"/etc/passwd"
    assert said in refused(tmp_path, zipped((name, content)))
    assert not list(tmp_path.parent.rglob("escaped*"))


def test_an_encrypted_file_is_refused(tmp_path):
    data = bytearray(zipped())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + at] |= 1
    assert "encrypted" in refused(tmp_path, bytes(data))


def test_a_name_that_goes_on_after_a_nul_is_refused(tmp_path):
    data = zipped(("a/1.png?.exe", b"x")).replace(b"a/1.png?.exe", b"a/1.png\0.exe")
    assert "no system" in refused(tmp_path, data)


def test_bombs_are_refused_unopened(tmp_path, monkeypatch):
    bomb = zipped((entry("a/1.png", packed=zipfile.ZIP_DEFLATED), bytes(10_000_000)))
    assert len(bomb) < 100_000 and "10.0 MB in 0.0 MB" in refused(tmp_path, bomb)
    (tmp_path / "x").mkdir()
    monkeypatch.setattr(archive, "ENTRIES", 10)
    crowd = zipped(*((f"x/{i}", b"") for i in range(10)))
    assert "11 entries, more than 10" in refused(tmp_path / "x", crowd)
    (tmp_path / "y").mkdir()
    monkeypatch.setattr(archive, "UNPACKED", 20)
    assert "MB in" in refused(tmp_path / "y", zipped((entry("a/1.png"), bytes(20))))


def test_an_entry_never_gives_more_than_it_says(tmp_path):
    """The sizes in the archive's directory are its maker's word."""
    liar = bytearray(zipped((entry("b/1.png", packed=zipfile.ZIP_DEFLATED), bytes(10_000_000))))
    central = liar.rindex(b"b/1.png") - 46
    assert liar[central : central + 4] == b"PK\x01\x02"
    liar[central + 24 : central + 28] = (500).to_bytes(4, "little")
    path = tmp_path / "liar.zip"
    path.write_bytes(liar)
    with (
        pytest.raises(SpurbenchError, match="no whole zip archive: Bad CRC"),
        archive.opened(path) as opened,
    ):
        archive.unpack(opened, {"1.png": opened.getinfo("b/1.png")}, tmp_path)
    assert (tmp_path / "1.png").stat().st_size <= 500


def test_a_disk_without_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = archive.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: usage._replace(free=6))
    assert "make room there" in refused(tmp_path, zipped())

"""What is in memory while a dataset is written, read and compared does not grow with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from makers.rows import control, every_part, positive, provenance, row, write
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.dataset import diff, parquet
from spurbench.dataset import export as exporting
from spurbench.dataset import write as publish
from spurbench.dataset.export import export
from spurbench.dataset.manifest import Manifest, Snapshot, content_hash, read_rows
from spurbench.dataset.rows import OWN_PARTS, Row, features

IMAGE = 1_800  # bytes of one, about
GROUP = 4  # images in a row group of the tests


class Counted(bytes):
    """Encoded images of which it is known how many there are."""

    alive = peak = 0

    def __del__(self) -> None:
        Counted.alive -= 1


def counted(image: Row) -> Callable[[], bytes]:
    def read() -> bytes:
        data = Counted(image.read())
        Counted.alive += 1
        Counted.peak = max(Counted.peak, Counted.alive)
        return data

    return read


@pytest.fixture
def small_groups(monkeypatch):
    monkeypatch.setattr(parquet, "GROUP_BYTES", int(IMAGE * (GROUP + 0.5)))


@pytest.fixture
def many() -> dict[str, list[Row]]:
    rows = [row("generated", i) for i in range(18)]
    return {"real": [row("real", i) for i in range(11)], "generated": rows}


def data_files(folder: Path) -> dict[str, str]:
    return {file.name: file_sha256(file) for file in sorted(folder.glob("data/*"))}


def test_no_more_than_a_row_group_of_images_is_in_memory(tmp_path, small_groups, many):
    Counted.alive = Counted.peak = 0
    kept = {part: [replace(r, read=counted(r)) for r in rows] for part, rows in many.items()}
    write(tmp_path / "d", rows=kept)
    assert GROUP <= Counted.peak <= GROUP + 1  # the next is read before it is seen not to fit
    assert Counted.alive == 0
    with pq.ParquetFile(tmp_path / "d/data/generated-00000-of-00001.parquet") as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [4, 4, 4, 4, 2]


def test_rows_without_images_are_written_in_groups_too(tmp_path, monkeypatch):
    write(tmp_path / "d")
    monkeypatch.setattr(parquet, "GROUP_ROWS", 3)
    export(tmp_path / "d", tmp_path / "o", "imagefolder")
    table = pq.ParquetFile(tmp_path / "o" / "generated" / "metadata.parquet")
    assert [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)] == [3, 1]


def test_the_loader_finds_the_same_rows_and_types_in_many_groups_and_files(
    tmp_path, small_groups, many, monkeypatch
):
    write(tmp_path / "one", rows=many)
    monkeypatch.setattr(publish, "SHARD_BYTES", int(IMAGE * 7.5))
    write(tmp_path / "more", rows=many)
    names = [name for name in data_files(tmp_path / "more") if name.startswith("generated")]
    assert names == [f"generated-{i:05d}-of-00003.parquet" for i in range(3)]
    for folder in ("one", "more"):
        loaded = datasets.load_dataset(str(tmp_path / folder), cache_dir=str(tmp_path / "cache"))
        for split, rows in many.items():
            assert loaded[split].features == features(["entropy"])
            encoded = loaded[split].cast_column("image", datasets.Image(decode=False))
            images = [
                {"bytes": r.read(), "path": r.file_name} | {"columns": r.columns()} for r in rows
            ]
            found = [{**each.pop("image"), "columns": each} for each in encoded]
            assert found == images


def test_the_same_rows_give_the_same_bytes_wherever_their_images_lie(
    tmp_path, small_groups, monkeypatch
):
    monkeypatch.setattr(publish, "SHARD_BYTES", IMAGE * 3)
    write(tmp_path / "a", rows=every_part())
    write(tmp_path / "b", rows=every_part())
    write(tmp_path / "c", rows=read_rows(tmp_path / "a"))
    assert len(data_files(tmp_path / "a")) > len(OWN_PARTS)
    assert data_files(tmp_path / "a") == data_files(tmp_path / "b") == data_files(tmp_path / "c")


def test_the_content_hash_is_the_fingerprint_of_all_rows_at_once():
    rows = every_part()
    rows["generated"][0] = replace(rows["generated"][0], class_name='Ünïcode "q" \u2028')
    rows["positives-real"] = []
    whole = {part: [r.columns() for r in those] for part, those in rows.items() if those}
    known = {"provenance": provenance().as_json(), "rows": whole}
    assert content_hash(rows, provenance()) == fingerprint(known)
    bare = {"provenance": provenance().as_json(), "rows": {}}
    assert content_hash({}, provenance()) == fingerprint(bare)


def test_an_image_that_changed_since_it_was_examined_is_not_published(tmp_path):
    write(tmp_path / "x" / "d")
    before = Manifest.read(tmp_path / "x" / "d")
    other = replace(row("real", 1), read=row("real", 5).read)
    rows = {"real": [row("real", 0), other], "generated": [row("generated", 0)]}
    with pytest.raises(SpurbenchError, match=r"real/1\.png is not the image that was examined"):
        write(tmp_path / "x" / "d", rows=rows)
    assert Manifest.read(tmp_path / "x" / "d") == before
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["d"]


def test_a_comparison_goes_through_the_rows_once_and_reads_no_image():
    def unread() -> bytes:
        raise AssertionError("an image was read")

    old = every_part()
    new = old | {
        "generated": [
            replace(old["generated"][0], object_score=0.2),
            *old["generated"][1:3],
            row("generated", 9),
        ],
        "positives-generated": [positive(7)],
        "controls-generated": [control(image) for image in old["generated"][:2]],
    }

    def snapshot(version: str, rows, passes) -> Snapshot:
        return Snapshot("toy", version, provenance(), {p: passes(r) for p, r in rows.items()})

    once = [
        snapshot(version, rows, lambda rows: iter([replace(r, read=unread) for r in rows]))
        for version, rows in (("1.0.0", old), ("1.1.0", new))
    ]
    found = {
        c.part: (c.old, c.new, c.added, c.removed, c.kept, c.reexamined)
        for c in diff.compare(*once).classes
    }
    assert found == {
        "real": (3, 3, 0, 0, 3, 0),
        "generated": (4, 4, 1, 1, 3, 1),
        "positives-generated": (2, 1, 1, 2, 0, 0),
        "controls-generated": (4, 2, 0, 2, 2, 0),
        "controls-finetuned-generated": (4, 4, 0, 0, 4, 0),
        "contexts-generated": (3, 3, 0, 0, 3, 0),
    }


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_an_export_holds_one_image_at_a_time(tmp_path, layout, many, monkeypatch):
    write(tmp_path / "d", rows=many)
    Counted.alive = Counted.peak = 0
    original = exporting.StoredRows

    def rows(folder, part):
        return (replace(r, read=counted(r)) for r in original(folder, part))

    monkeypatch.setattr(exporting, "StoredRows", rows)
    assert export(tmp_path / "d", tmp_path / "o", layout) == {"real": 11, "generated": 18}
    assert Counted.peak <= 2 and Counted.alive == 0

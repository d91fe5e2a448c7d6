"""What is wrong with images and datasets is one line, or they are left out and named."""

from __future__ import annotations

import codecs
import io
import json
import os
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from makers.rows import row, write
from makers.toy import save_noise_images
from spurbench.core.documents import read_bytes
from spurbench.core.errors import SpurbenchError
from spurbench.core.text import label, printable
from spurbench.images.decode import DamagedImageError, decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.images.sources import open_images, open_positives

HUMMINGBIRD = "spurious_class_094_hummingbird_component_2"


def refusal(function, *arguments) -> str:
    with pytest.raises(SpurbenchError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()
    return str(caught.value)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "dataset"
    write(folder)
    return folder


@pytest.fixture
def dataset(published, tmp_path):
    return shutil.copytree(published, tmp_path / "dataset")


def rewrite(dataset, change, split="real"):
    """Change a split's rows, and write them as parquet again."""
    (file,) = dataset.glob(f"data/{split}-*.parquet")
    table = pq.read_table(file)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows) if rows else table.slice(0, 0), file)
    return file


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (2, 65), (1, 33)])
def test_a_strip_is_damaged_before_it_is_resized(size):
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, "PNG")
    with pytest.raises(DamagedImageError, match=f"a strip of {size[0]} x {size[1]} pixels"):
        decode_rgb(buffer.getvalue())


def test_a_panorama_is_none():
    buffer = io.BytesIO()
    Image.new("L", (640, 20)).save(buffer, "PNG")
    assert decode_rgb(buffer.getvalue()).size == (640, 20)


def test_strips_are_left_out_and_named(tmp_path):
    folder = save_noise_images(tmp_path / HUMMINGBIRD, 2, 0)
    Image.new("L", (1, 60_000)).save(folder / "strip.png")
    images = open_images(str(tmp_path))
    assert [d.path for d in images.damaged] == [f"{HUMMINGBIRD}/strip.png"]
    assert len(images.records) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
@pytest.mark.parametrize("decode", [True, False])
def test_only_regular_files_are_read(decode, tmp_path):
    folder = save_noise_images(tmp_path / HUMMINGBIRD, 2, 0)
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "folder.png").mkdir()
    images = open_images(str(tmp_path), decode=decode)
    assert len(images.records) == 2
    assert sorted(d.path.rpartition("/")[2] for d in images.damaged) == [
        "folder.png",
        "gone.png",
        "pipe.png",
        "zero.png",
    ]
    assert {d.reason for d in images.damaged} == {"no regular file that can be read"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_a_pipe_in_a_dataset_is_not_waited_for(dataset):
    (file,) = dataset.glob("data/real-*.parquet")
    file.unlink()
    os.mkfifo(file)
    assert "is not a regular file" in refusal(open_images, str(dataset))
    (dataset / "spurbench.json").unlink()
    os.mkfifo(dataset / "spurbench.json")
    refusal(open_images, str(dataset))


@pytest.mark.parametrize("number", ["²", "٩٤", "９４", "-1", "1000", "5000", " 94", "9" * 200])
def test_a_class_index_is_ascii_digits(number, tmp_path):
    save_noise_images(tmp_path / "data" / f"spurious_class_{number}_x_component_1", 1, 0)
    assert "is not in the Spurious ImageNet layout" in refusal(open_images, str(tmp_path / "data"))
    save_noise_images(tmp_path / "positives" / number, 1, 0)
    assert "no class folders" in refusal(open_positives, tmp_path / "positives")
    save_noise_images(tmp_path / "data" / f"spurious_class_094_x_component_{number}", 1, 0)
    if not number.isascii() or not number.isdigit():
        refusal(open_images, str(tmp_path / "data"))


def test_digits_of_other_scripts_in_file_names_are_sorted_as_text(tmp_path):
    folder = save_noise_images(tmp_path / HUMMINGBIRD, 3, 0)
    for old, new in (("0.png", "².png"), ("1.png", "٣.png"), ("2.png", "10.png")):
        (folder / old).rename(folder / new)
    assert len(open_images(str(tmp_path)).records) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_file_names_that_are_not_utf8_are_shown_losslessly(tmp_path):
    folder = save_noise_images(tmp_path / "d\udcff" / HUMMINGBIRD, 1, 0)
    names = ["b\udcffd.png", "line\nfeed.png", "back\\slash.png", "b\\udcffd.png"]
    for name in names:
        shutil.copy(folder / "0.png", folder / name)
    (folder / "0.png").unlink()
    (folder / "dam\udcfeaged.png").write_bytes(b"x")
    images = open_images(str(folder.parent))
    shown = [r.path for r in images.records] + [d.path for d in images.damaged]
    for text in (*shown, images.info.name, images.info.model_dump_json()):
        text.encode()
        assert text.isprintable()
    told = {codecs.decode(path.rpartition("/")[2].encode(), "unicode_escape") for path in shown}
    assert told == {*names, "dam\udcfeaged.png"}
    for record in images.records:
        decode_rgb(record.read())
    record = ImageRecord.from_file(
        folder / names[0], class_index=94, source="real", class_name="hummingbird"
    )
    assert record.path == r"b\udcffd.png"
    refusal(open_images, str(tmp_path / "d\udcff" / "none"))


def test_an_error_can_not_forge_another(tmp_path):
    said = refusal(open_images, str(tmp_path / "x\nError: all is lost"))
    assert r"x\nError: all is lost" in said
    assert printable("a\tb\u2028c") == r"a\tb\u2028c" and label("a\\n") == r"a\\n"


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "a/" * 3000])
def test_paths_that_no_system_takes_are_one_line(path, tmp_path):
    from pathlib import Path

    refusal(open_images, path)
    refusal(open_positives, Path(path))
    with pytest.raises((SpurbenchError, FileNotFoundError)):
        read_bytes(Path(path))


def with_(**changes):
    def change(rows):
        rows[1] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_(class_index=1000), "row 1: class_index: .*less than or equal to 999, got 1000"),
        (with_(class_index=5000), "row 1: class_index"),
        (with_(class_index=-1), "row 1: class_index: .*greater than or equal to 0, got -1"),
        (with_(class_index=None), "row 1: class_index: .*got None"),
        (with_(class_index=float("nan")), "row 1: class_index: .*got nan"),
        (with_(source="bogus"), "row 1: source: .*got 'bogus'"),
        (with_(source="generated"), "row 1: source is generated in split real"),
        (with_(source=None), "row 1: source"),
        (with_(class_name=None), "row 1: class_name"),
        (with_(file_name=None), "row 1: file_name"),
        (with_(image={"bytes": None, "path": "x"}), "row 1: image.bytes"),
        (with_(image=None), "row 1: image"),
        (list.clear, "split real of .* is empty"),
        (lambda rows: [r.pop("source") for r in rows], "no column source"),
        (lambda rows: [r.pop("image_sha256") for r in rows], "no column image_sha256"),
    ],
)
def test_rows_that_make_no_sense_are_named(change, said, dataset):
    import re

    rewrite(dataset, change)
    message = refusal(open_images, str(dataset))
    assert re.search(said, message), message
    assert "real" in message


def edited(data: bytes) -> bytes:
    pixels = np.asarray(Image.open(io.BytesIO(data))).copy()
    pixels[0, 0, 0] ^= 1
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("decode", [True, False])
def test_an_edited_pixel_is_an_error_that_names_the_image(decode, dataset):
    def change(rows):
        rows[1]["image"]["bytes"] = edited(rows[1]["image"]["bytes"])

    rewrite(dataset, change, "generated")
    with pytest.raises(
        SpurbenchError, match=r"generated/1\.png is not the image .* `spurbench ver"
    ):
        open_images(str(dataset), decode=decode)
    open_images(str(dataset), "real", decode=decode)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"junk" * 100, None])
def test_broken_parquet_is_one_line(content, dataset):
    (file,) = dataset.glob("data/real-*.parquet")
    file.write_bytes(file.read_bytes()[:-20] if content is None else content)
    assert f"{file} is damaged" in refusal(open_images, str(dataset))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "1",
        "null",
        "{}",
        '{"schema": "spurbench.dataset/9", "name": "x", "version": "1.0.0"}',
        '{"schema": "spurbench.dataset/2", "name": 5, "version": "1.0.0"}',
        '{"schema": "spurbench.dataset/2", "name": "x", "version": ["1.0.0"]}',
        "[" * 100_000,
        '{"name": ' + "9" * 5000 + "}",
        "\x00",
    ],
)
def test_a_manifest_of_the_wrong_type_is_one_line(content, dataset):
    (dataset / "spurbench.json").write_text(content)
    assert "spurbench.json" in refusal(open_images, str(dataset))


def test_a_sound_row_that_was_not_published_is_found_by_its_files_hash(dataset):
    def as_koala(rows):
        for values in rows:
            values["class_index"] = 105

    file = rewrite(dataset, as_koala)
    assert f"{file} is not the file that was published" in refusal(open_images, str(dataset))


def test_rows_of_the_hub_are_checked_alike(dataset, monkeypatch):
    import datasets

    from spurbench.images import published

    monkeypatch.setattr(published.hub, "use_cache_if_unreachable", lambda: None)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["default"])
    parts = {
        split: datasets.Dataset.from_parquet(str(next(dataset.glob(f"data/{split}-*.parquet"))))
        for split in ("real", "generated")
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(parts))
    whole = open_images("owner/name")
    assert len(whole.records) == sum(map(len, parts.values()))
    assert whole.info.fingerprint == open_images(str(dataset)).info.fingerprint
    sound = parts["real"]
    wrong = [5000, *sound["class_index"][1:]]
    parts["real"] = sound.remove_columns("class_index").add_column("class_index", wrong)
    assert "row 0: class_index" in refusal(open_images, "owner/name")
    parts["real"] = sound.remove_columns("image_sha256")
    assert "no column image_sha256" in refusal(open_images, "owner/name")
    parts["real"] = sound.remove_columns("image_sha256").add_column(
        "image_sha256", ["0" * 64] * len(sound)
    )
    assert "is not the image that was published" in refusal(open_images, "owner/name")
    parts["real"] = sound.select([])
    assert "split real of owner/name is empty" in refusal(open_images, "owner/name")


def test_the_manifest_and_rows_of_a_built_dataset_pass(dataset):
    manifest = json.loads((dataset / "spurbench.json").read_text())
    images = open_images(str(dataset))
    assert (images.info.name, images.info.version) == (manifest["name"], manifest["version"])
    assert {r.class_name for r in images.records} == {row("real", 0).class_name}

"""What a dataset is exported to, read by the tools that take it."""

from __future__ import annotations

import io
import json
import tarfile

import datasets
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from makers.rows import columns, every_part, rewrite, row, write
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.dataset import export as exporting
from spurbench.dataset.export import export
from spurbench.images.sources import open_positives


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "d"
    write(folder)
    return folder


def described(split: str, i: int) -> dict:
    """What is known of an image but its bytes."""
    return {name: value for name, value in columns(split, i).items() if name != "image"}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_an_imagefolder_is_read_back_with_every_column(dataset, tmp_path):
    assert export(dataset, tmp_path / "o", "imagefolder") == {"real": 3, "generated": 4}
    loaded = datasets.load_dataset(str(tmp_path / "o"), cache_dir=str(tmp_path / "c"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"real": 3, "generated": 4}
    for split, rows in loaded.items():
        for i, got in enumerate(rows):
            assert np.array_equal(np.asarray(got.pop("image")), pixels(columns(split, i)["image"]))
            expected = described(split, i)
            assert got.pop("original_name") == expected.pop("file_name")
            assert got == expected
    assert loaded["real"].features["label"].names[94] == "hummingbird"
    assert str(loaded["real"].info.version) == "1.0.0"
    assert "toy 1.0.0" in loaded["real"].info.description
    assert (tmp_path / "o" / "LICENSE").read_text() == (dataset / "LICENSE").read_text()


def test_the_imagefolder_builder_reads_splits_of_other_nulls_together(dataset, tmp_path):
    export(dataset, tmp_path / "o", "imagefolder")
    options = {"cache_dir": str(tmp_path / "c"), "split": "train"}
    every = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "o"), **options)
    assert sorted(every["source"]) == ["generated"] * 4 + ["real"] * 3
    assert set(every["prompt"]) == {None, "a photo of a sks flower"}


def test_an_imagefolder_holds_the_published_bytes_in_folders_of_classes(dataset, tmp_path):
    export(dataset, tmp_path / "o", "imagefolder", split="generated")
    files = sorted((tmp_path / "o").rglob("*.png"))
    assert [file.relative_to(tmp_path / "o").as_posix() for file in files] == [
        f"generated/n01833805/{i:06d}.png" for i in range(4)
    ]
    assert [file.read_bytes() for file in files] == [
        columns("generated", i)["image"] for i in range(4)
    ]


def test_exported_positives_are_what_eval_takes_as_positives(tmp_path):
    rows = every_part()
    write(tmp_path / "d", rows=rows)
    export(tmp_path / "d", tmp_path / "o", "imagefolder", config="positives")
    positives = open_positives(tmp_path / "o" / "generated")
    expected = [positive.image_sha256 for positive in rows["positives-generated"]]
    assert [record.sha256 for record in positives.records] == expected
    assert {record.class_index for record in positives.records} == {94}


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
def test_exported_controls_know_whose_twins_they_are(tmp_path, layout):
    rows = every_part()
    write(tmp_path / "d", rows=rows)
    counts = export(tmp_path / "d", tmp_path / "o", layout, config="controls")
    loaded = datasets.load_dataset(str(tmp_path / "o"), cache_dir=str(tmp_path / "c"))
    (twins,) = loaded.values()
    assert counts == {"generated": len(twins)} and [*loaded] == ["generated"]
    known = twins["json"] if layout == "webdataset" else twins
    expected = [image.image_sha256 for image in rows["generated"]]
    assert [entry["twin_of"] for entry in known] == expected


def test_a_webdataset_is_read_back_with_every_column(dataset, tmp_path):
    assert export(dataset, tmp_path / "o", "webdataset") == {"real": 3, "generated": 4}
    loaded = datasets.load_dataset(str(tmp_path / "o"), cache_dir=str(tmp_path / "c"))
    for split, count in (("real", 3), ("generated", 4)):
        assert len(loaded[split]) == count
        for i, got in enumerate(loaded[split]):
            assert np.array_equal(np.asarray(got["png"]), pixels(columns(split, i)["image"]))
            assert got["json"] == described(split, i)
            assert got["cls"] == 94
        known = loaded[split].features["json"]
        assert known["prompt"].dtype == "string" and known["entropy"].dtype == "float64"


def test_the_webdataset_builder_takes_the_shards_of_a_split(dataset, tmp_path):
    export(dataset, tmp_path / "o", "webdataset")
    files = {"test": str(tmp_path / "o" / "generated-*.tar")}
    rows = datasets.load_dataset(
        "webdataset", data_files=files, split="test", cache_dir=str(tmp_path / "c")
    )
    assert [entry["json"]["seed"] for entry in rows] == [
        columns("generated", i)["seed"] for i in range(4)
    ]


def test_shards_keep_their_limit_and_hold_every_image_once(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "SHARD_BYTES", 8000)  # two samples of 2.8 kB, not three
    export(dataset, tmp_path / "o", "webdataset")
    names = {}
    for path in sorted((tmp_path / "o").glob("*.tar")):
        with tarfile.open(path) as archive:
            names[path.name] = archive.getnames()
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
    assert list(names) == [
        *(f"generated-{i:05d}.tar" for i in range(2)),
        *(f"real-{i:05d}.tar" for i in range(2)),
    ]
    assert names["real-00001.tar"] == [f"000002.{kind}" for kind in ("png", "json", "cls")]
    with tarfile.open(tmp_path / "o" / "real-00001.tar") as archive:
        assert archive.extractfile("000002.png").read() == columns("real", 2)["image"]
        assert json.load(archive.extractfile("000002.json")) == described("real", 2)
        assert archive.extractfile("000002.cls").read() == b"94"


def test_two_exports_have_the_same_bytes(dataset, tmp_path):
    for layout in ("imagefolder", "webdataset"):
        for name in ("a", "b"):
            export(dataset, tmp_path / layout / name, layout)
        first, second = (
            {
                path.relative_to(tmp_path / layout / name): path.read_bytes()
                for path in (tmp_path / layout / name).rglob("*")
                if path.is_file()
            }
            for name in ("a", "b")
        )
        assert first == second


def test_images_of_several_formats_have_one_name_in_a_webdataset(tmp_path):
    rows = {
        "real": [row("real", i, file_name=f"real/{i}.{s}") for i, s in enumerate(("JPEG", "png"))],
        "generated": [row("generated", 0)],
    }
    write(tmp_path / "d", rows=rows)
    export(tmp_path / "d", tmp_path / "w", "webdataset")
    loaded = datasets.load_dataset(str(tmp_path / "w"), cache_dir=str(tmp_path / "c"))
    sizes = {split: [entry["jpg"].size for entry in loaded[split]] for split in rows}
    assert sizes == {"real": [(24, 24)] * 2, "generated": [(24, 24)]}
    export(tmp_path / "d", tmp_path / "i", "imagefolder")
    assert sorted(p.name for p in (tmp_path / "i" / "real" / "n01833805").iterdir()) == [
        "000000.jpg",
        "000001.png",
    ]


def test_what_is_not_there_is_refused_and_what_there_is_named(dataset, tmp_path):
    rows = {"real": [row("real", 0)], "generated": [row("generated", 1)]}
    write(tmp_path / "d", rows=rows)
    there = "it has default real, default generated, curated real"
    with pytest.raises(SpurbenchError, match=f"no images in curated generated; {there}"):
        export(tmp_path / "d", tmp_path / "o", "imagefolder", config="curated", split="generated")
    assert not (tmp_path / "o").exists()


def test_an_output_that_holds_something_is_left_alone(dataset, tmp_path):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine").write_text("x")
    with pytest.raises(SpurbenchError, match="not empty; choose another --output"):
        export(dataset, tmp_path / "o", "webdataset")
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["mine"]
    (tmp_path / "o" / "mine").unlink()
    assert export(dataset, tmp_path / "o", "webdataset", split="real") == {"real": 3}


@pytest.mark.parametrize("layout", ["imagefolder", "webdataset"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_sha256": "0" * 64}, "its sha256 is another"),
        ({"wnid": "../../../up"}, "its class is another"),
        ({"file_name": "real/2.exe"}, "named like no image"),
    ],
)
def test_a_damaged_dataset_is_refused_and_nothing_is_left(tmp_path, layout, changes, said):
    write(tmp_path / "x" / "d")
    shard = "data/real-00000-of-00001.parquet"
    rewrite(tmp_path / "x" / "d", shard, lambda rows: rows[2].update(changes))
    with pytest.raises(SpurbenchError, match=said):
        export(tmp_path / "x" / "d", tmp_path / "x" / "o", layout)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["d"]


def test_the_command_says_how_many_images_and_where(dataset, tmp_path):
    arguments = ["export", str(dataset), "--format", "imagefolder", "--config", "curated"]
    done = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "o")])
    assert done.stdout == f"real: 2 images\ngenerated: 2 images\n{tmp_path / 'o'}\n"
    again = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "o")])
    assert again.exit_code == 1 and "not empty" in again.output

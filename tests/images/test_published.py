"""What a built dataset brings beside its splits."""

from __future__ import annotations

import json
import re
import shutil

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from makers.measured import save_dataset
from spurbench.classifiers.info import Preprocessing
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.images import parquet, published
from spurbench.images.pixels import decode
from spurbench.images.sources import open_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "set"
    save_dataset(
        folder,
        images=4,
        positives=3,
        controls=True,
        replicates=2,
        known=lambda part, _, i: {
            "object_absent": i != 1,
            "feature_present": part != "controls",
            "is_reference": part == "real" and i == 2,
        },
        panel=["one", "two"],
        phi="two",
    )
    return folder


def test_the_columns_of_a_row_are_known_of_its_image(folder):
    images = open_images(str(folder))
    assert {r.source for r in images.records} == {"real", "generated"}
    first = [r for r in images.records if r.class_index == 94]
    assert [r.object_absent for r in first] == [True, False, True, True] * 2
    assert [r.is_reference for r in first] == [False, False, True, False] + [False] * 4
    assert [r.replicate for r in first] == [0] * 4 + [0, 1, 0, 1]
    assert all(r.feature_present for r in images.records)


def test_positives_twins_and_roles_come_with_it(folder):
    images = open_images(str(folder))
    assert {r.source for r in images.positives.records} == {"positive"}
    assert len(images.positives.records) == 9
    generated = [r.sha256 for r in images.records if r.source == "generated"]
    assert [r.twin_of for r in images.controls.records] == generated
    assert {(r.source, r.feature_present) for r in images.controls.records} == {("control", False)}
    assert images.roles == {"one": "panel", "two": "phi"}
    sets = (images, images.positives, images.controls)
    assert len({each.info.fingerprint for each in sets}) == 3
    assert images.config == "default"


def test_photographs_alone_come_without_twins(folder):
    assert open_images(str(folder), "real").controls is None
    assert open_images(str(folder), "real").positives is not None
    assert open_images(str(folder), "generated").controls is not None


def test_a_dataset_without_them_has_none(tmp_path):
    images = save_dataset(tmp_path / "d", images=1)
    assert (images.positives, images.controls) == (None, None)


def test_curated_images_come_with_the_twins_of_theirs_alone(tmp_path):
    save_dataset(
        tmp_path / "d",
        images=4,
        positives=1,
        controls=True,
        curated=True,
        known=lambda part, _, i: {"object_absent": i % 2 == 0},
    )
    images = open_images(str(tmp_path / "d"), config="curated")
    assert (len(images.records), images.config) == (12, "curated")
    generated = [r.sha256 for r in images.records if r.source == "generated"]
    assert [r.twin_of for r in images.controls.records] == generated
    assert len(images.positives.records) == 3


def test_a_config_that_is_not_there_is_one_line(folder, tmp_path):
    with pytest.raises(SpurbenchError, match="has no split real in config curated"):
        open_images(str(folder), config="curated")
    (tmp_path / "spurious_class_094_hummingbird_component_2").mkdir()
    with pytest.raises(SpurbenchError, match="is a folder of photographs, without config curated"):
        open_images(str(tmp_path), config="curated")


def test_a_twin_of_nothing_is_named(tmp_path):
    with pytest.raises(SpurbenchError, match=r"row 1: controls/94/1\.png is the twin of no image"):
        save_dataset(tmp_path / "d", images=2, controls=True, known=lambda part, _, i: {})
        drop_twin(tmp_path / "d")
        open_images(str(tmp_path / "d"))


def drop_twin(folder) -> None:
    file = folder / "data/controls-generated-00000.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[1]["twin_of"] = None
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


def test_a_dataset_of_an_older_version_says_so(folder, tmp_path):
    save_dataset(tmp_path / "d", images=1)
    manifest = tmp_path / "d" / "spurbench.json"
    manifest.write_text(manifest.read_text().replace("spurbench.dataset/2", "spurbench.dataset/1"))
    with pytest.raises(SpurbenchError, match=r"an older spurbench built it\); run the build again"):
        open_images(str(tmp_path / "d"))


def test_the_hub_s_configs_are_the_same_sets(folder, monkeypatch, caplog):
    def part(name):
        return datasets.Dataset.from_parquet(str(folder / f"data/{name}-00000.parquet"))

    loaded = {
        "default": {split: part(split) for split in ("real", "generated")},
        "positives": {"generated": part("positives-generated")},
        "controls": {"generated": part("controls-generated")},
    }
    monkeypatch.setattr(published.hub, "use_cache_if_unreachable", lambda: None)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config="default": loaded[config])
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: [*loaded])
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *_, **__: str(folder / "spurbench.json")
    )
    there, here = open_images("owner/name"), open_images(str(folder))
    for of in (lambda s: s, lambda s: s.positives, lambda s: s.controls):
        assert of(there).info.fingerprint == of(here).info.fingerprint
        assert of(there).records == of(here).records
        assert [r.read() for r in of(there).records] == [r.read() for r in of(here).records]
    assert there.roles == here.roles

    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    assert open_images("owner/name").roles == {}
    assert re.search("which classifiers had a part in making owner/name is not known", caplog.text)


@pytest.mark.parametrize("part", ["generated", "positives-generated", "controls-generated"])
def test_a_part_that_the_manifest_lists_and_is_gone_is_named(part, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "set")
    (file,) = copy.glob(f"data/{part}-*.parquet")
    file.unlink()
    with pytest.raises(SpurbenchError, match=f"{file.name} is not there"):
        open_images(str(copy))


@pytest.fixture
def in_groups(folder, tmp_path):
    """The dataset with five row groups in each file of a split."""
    copy = shutil.copytree(folder, tmp_path / "set")
    for part in ("real", "generated"):
        file = copy / f"data/{part}-00000.parquet"
        pq.write_table(pq.read_table(file), file, row_group_size=3)
    manifest = json.loads((copy / "spurbench.json").read_text())
    manifest["files"] = {
        f"data/{file.name}": file_sha256(file) for file in (copy / "data").iterdir()
    }
    (copy / "spurbench.json").write_text(json.dumps(manifest))
    return copy


@pytest.fixture
def groups_read(monkeypatch):
    """Every row group that is read of an image column, as it is read."""
    read: list[tuple[str, int]] = []
    original = pq.ParquetFile.read_row_group

    def counted(self, number, **options):
        read.append((self.metadata.num_rows, number))
        return original(self, number, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    return read


def test_opening_reads_no_image_and_looking_reads_each_group_once(in_groups, groups_read):
    images = open_images(str(in_groups), decode=False)
    assert groups_read == []
    geometry = Preprocessing(
        mode="whole",
        resize=(8,),
        crop=(8, 8),
        interpolation="bilinear",
        mean=(0,) * 3,
        std=(1,) * 3,
    )
    seen = sum(len(b.positions) for b in decode(images.records, geometry, batch_size=1, decoders=4))
    assert (seen, len(images.records)) == (24, 24)
    assert [number for _, number in groups_read] == [*range(4), *range(4)]


def test_the_images_in_memory_are_of_two_groups_whatever_is_read(in_groups, groups_read):
    images = open_images(str(in_groups), decode=False)
    held = parquet._group
    for record in images.records:
        record.read()
        assert held.cache_info().currsize <= parquet.KEPT == 2
    assert images.records[23].read() and len(groups_read) == 8  # kept
    assert images.records[0].read() and len(groups_read) == 9


def test_an_image_that_changes_after_the_opening_is_refused_when_it_is_read(in_groups):
    images = open_images(str(in_groups), decode=False)
    file = in_groups / "data/real-00000.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[4]["image"], rows[5]["image"] = rows[5]["image"], rows[4]["image"]
    schema = pq.read_schema(file)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, row_group_size=3)
    assert images.records[3].read()
    with pytest.raises(SpurbenchError, match=r"row 4: real/565/0\.png is not the image that was"):
        images.records[4].read()
    pq.write_table(pa.Table.from_pylist(rows[:3], schema=schema), file)
    with pytest.raises(SpurbenchError, match="is damaged; `spurbench verify"):
        images.records[9].read()
    file.unlink()
    with pytest.raises(SpurbenchError, match="is damaged; `spurbench verify"):
        images.records[7].read()


def test_a_reopened_dataset_is_read_anew(in_groups):
    """What is kept of a file is of one opening: another file may lie there by now."""
    first = open_images(str(in_groups), decode=False).records[0].read()
    file = in_groups / "data/real-00000.parquet"
    rows = pq.read_table(file).to_pylist()[::-1]
    pq.write_table(pa.Table.from_pylist(rows, schema=pq.read_schema(file)), file)
    manifest = json.loads((in_groups / "spurbench.json").read_text())
    manifest["files"]["data/real-00000.parquet"] = file_sha256(file)
    (in_groups / "spurbench.json").write_text(json.dumps(manifest))
    records = open_images(str(in_groups), decode=False).records
    assert records[0].read() != first and records[11].read() == first

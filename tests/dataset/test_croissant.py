from __future__ import annotations

import hashlib
import json
from pathlib import Path

import mlcroissant
import pytest

from makers.rows import columns, every_part, write
from spurbench.dataset import write as publish
from spurbench.dataset.rows import COLUMNS

EVIL = '<script>alert("1")</script>\n`| [x](http://y)'


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("croissant") / "d"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "SHARD_BYTES", 4000)  # two shards for four images of 1.8 kB
        write(
            folder,
            failed_classes={EVIL: EVIL},
            object_detector=EVIL,
            licences={"images": EVIL, "weights": "MIT"},
        )
    assert len(list(folder.glob("data/generated-*.parquet"))) == 2
    return folder


@pytest.fixture(scope="module")
def read(dataset):
    return mlcroissant.Dataset(jsonld=dataset / "croissant.json")


def test_mlcroissant_finds_no_fault(read):
    issues = read.metadata.ctx.issues
    assert not issues.errors
    # A dataset that is being built has no date of publication.
    assert [w for w in issues.warnings if "datePublished" not in w] == []
    assert (str(read.metadata.name), read.metadata.version) == ("spurbench-toy", "1.0.0")


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("real", [columns("real", i) for i in range(3)]),
        ("generated", [columns("generated", i) for i in range(4)]),
        ("curated-generated", [columns("generated", i) for i in (0, 2)]),
    ],
)
def test_mlcroissant_reads_the_records_from_the_local_parquet(read, part, expected):
    """Every shard, every column, and images whose pixels are those that were written."""
    records = list(read.records(part))
    assert len(records) == len(expected)
    for record, wanted in zip(records, expected, strict=True):
        wanted = dict(wanted)
        assert set(record) == {f"{part}/{name}" for name in [*COLUMNS, "entropy"]}
        image = record.pop(f"{part}/image")
        assert image.size == (24, 24) and image.format == "PNG"
        assert hashlib.sha256(wanted.pop("image")).hexdigest() == wanted["image_sha256"]
        (answer,) = record.pop(f"{part}/panel")
        (said,) = wanted.pop("panel")
        assert {k.rpartition("/")[2]: text(v) for k, v in answer.items()} == said
        assert {k.partition("/")[2]: text(v) for k, v in record.items()} == wanted


def test_mlcroissant_reads_positives_and_controls(tmp_path):
    rows = every_part()
    write(tmp_path / "d", rows=rows, replicates=2)
    read = mlcroissant.Dataset(jsonld=tmp_path / "d" / "croissant.json")
    assert not read.metadata.ctx.issues.errors
    extra = ("positives-generated", "controls-generated", "controls-finetuned-generated")
    for part in (*extra, "contexts-generated"):
        records = list(read.records(part))
        assert len(records) == len(rows[part])
        for record, row in zip(records, rows[part], strict=True):
            for name in ("image_sha256", "twin_of", "replicate"):
                assert text(record[f"{part}/{name}"]) == getattr(row, name)
    collected = read.metadata.data_collection
    assert "calls the class, 2 times over, independently; from fixed seeds" in collected
    assert "Positives, which show the class: from the base model as it is, kept where" in collected
    assert "Controls: from the base model as it is, with the noise of each" in collected
    assert "Controls of the fine-tuned model: the same noise and" in collected
    assert "Contexts: the same noise and weights, the image's prompt with a place." in collected


def text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


def test_every_parquet_file_is_listed_with_its_hash(dataset):
    document = json.loads((dataset / "croissant.json").read_text())
    listed = {f["contentUrl"]: f["sha256"] for f in document["distribution"] if "sha256" in f}
    assert listed == {
        f"data/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in dataset.glob("data/*.parquet")
    }


def test_the_responsible_ai_fields_say_what_the_build_did(dataset, read):
    """mlcroissant reads them under its own names, so a misspelt key would be missing there."""
    metadata = read.metadata
    assert "75 images per class from base: the base model, fine-tuned on 6" in (
        metadata.data_collection
    )
    assert any("Panel classifiers: vit" in tool for tool in metadata.machine_annotation_tools)
    assert "below 0.5" in metadata.data_annotation_protocol[0]
    assert any("Not for training" in use for use in metadata.data_use_cases)
    for field in (
        "data_biases",
        "data_collection_missing_data",
        "data_collection_type",
        "data_imputation_protocol",
        "data_limitations",
        "data_preprocessing_protocol",
        "data_release_maintenance_plan",
        "data_social_impact",
        "personal_sensitive_information",
    ):
        assert getattr(metadata, field), field


def test_text_from_outside_stays_text(dataset):
    raw = (dataset / "croissant.json").read_text()
    document = json.loads(raw)
    assert document["license"][0] == "Real images: " + EVIL.replace("\n", " ")
    assert "\\u003cscript" in raw and "<script" not in raw  # safe inside an HTML <script> too

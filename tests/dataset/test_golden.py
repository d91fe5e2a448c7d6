"""What was published must come out again: the bytes of a dataset of fixed rows, as first written.

``golden.json`` holds what the program wrote before its rows and manifests had types.
"""

from __future__ import annotations

import json
from functools import partial
from importlib.metadata import version
from pathlib import Path

import datasets
import pytest

from makers.golden import PROVENANCE, columns
from spurbench.core.identity import fingerprint
from spurbench.core.imagenet import imagenet_names
from spurbench.dataset.changelog import first
from spurbench.dataset.manifest import Manifest, Provenance, read_rows
from spurbench.dataset.rows import Row
from spurbench.dataset.write import write_dataset

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))
WRITTEN_WITH = {"pyarrow": "26.0.1", "datasets": "5.2.0"}
SPLITS = ("real", "generated")


def row(split: str, i: int) -> Row:
    values = columns(split, i)
    return Row.of(values, partial(bytes, values.pop("image")))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "d"
    write_dataset(
        folder,
        {split: [row(split, i) for i in range(3)] for split in SPLITS},
        Provenance.model_validate(PROVENANCE),
        name="fixed",
        version="1.2.3",
        quality=["entropy", "topiq_nr"],
        changelog=first("1.2.3", None),
    )
    return folder


def test_the_content_hash_is_the_one_that_it_was(dataset):
    assert Manifest.read(dataset).content == GOLDEN["content"]
    rows = {
        split: [{k: v for k, v in columns(split, i).items() if k != "image"} for i in range(3)]
        for split in SPLITS
    }
    assert fingerprint({"provenance": PROVENANCE, "rows": rows}) == GOLDEN["content"]


def test_the_seal_is_over_the_file_as_it_lies_there(dataset):
    document = json.loads((dataset / "spurbench.json").read_text())
    seal = document.pop("manifest_sha256")
    assert seal == fingerprint(document)
    assert document["provenance"] == PROVENANCE
    assert document["changelog"][0]["changes"] == ["the first version"]


def test_the_parquet_is_what_the_columns_say_and_nothing_else(dataset, tmp_path):
    """Written here from the columns, as a list of types that is independent of the program's."""
    text, number, real, truth = (datasets.Value(k) for k in ("string", "int64", "float64", "bool"))
    kinds = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(imagenet_names())),
        "class_index": number,
        "class_name": text,
        "wnid": text,
        "spurious_feature": text,
        "component": number,
        "source": text,
        "prompt": text,
        "seed": number,
        "guidance_scale": real,
        "num_inference_steps": number,
        "kappa": real,
        "base_model": text,
        "is_reference": truth,
        "replicate": number,
        "consistently_spurious": truth,
        "object_absent": truth,
        "object_score": real,
        "feature_present": truth,
        "feature_score": real,
        "entropy": real,
        "topiq_nr": real,
        "panel": datasets.List(
            {"classifier": text, "prediction": number, "probability": real, "rank": number}
        ),
        "file_name": text,
        "image_sha256": text,
        "twin_of": text,
    }
    for split in SPLITS:
        rows = [columns(split, i) for i in range(3)]
        for row in rows:
            row["image"] = {"bytes": row["image"], "path": row["file_name"]}
        table = {name: [row[name] for row in rows] for name in kinds}
        expected = tmp_path / f"{split}.parquet"
        datasets.Dataset.from_dict(table, datasets.Features(kinds)).to_parquet(str(expected))
        written = dataset / "data" / f"{split}-00000-of-00001.parquet"
        assert written.read_bytes() == expected.read_bytes()


@pytest.mark.skipif(
    any(version(name) != number for name, number in WRITTEN_WITH.items()),
    reason="other versions of the writers of parquet",
)
def test_every_file_has_the_bytes_that_it_had(dataset):
    found = dict(Manifest.read(dataset).files)
    assert found.keys() == GOLDEN["files"].keys()
    # the picture's font and compression are the machine's
    assert found.pop("samples.png") and found == {
        k: v for k, v in GOLDEN["files"].items() if k != "samples.png"
    }


def test_the_responsible_ai_prose_is_word_for_word_what_it_was(dataset):
    document = json.loads((dataset / "croissant.json").read_text())
    prose = {key: value for key, value in document.items() if key.startswith("rai:")}
    assert prose == GOLDEN["croissant"]


def test_rows_come_back_as_they_were_written(dataset):
    rows = read_rows(dataset)
    for split in SPLITS:
        for i, row in enumerate(rows[split]):
            expected = columns(split, i)
            assert row.read() == expected.pop("image")
            assert row.columns() == expected
            assert list(row.columns()) == list(expected)  # metrics in their place

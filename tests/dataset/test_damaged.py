"""Whatever a dataset is damaged by, every command on it ends in one clear line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from makers.rows import provenance, rewrite, row, seal, write
from spurbench.build import build as build_module
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.dataset import quality
from spurbench.dataset.manifest import MANIFEST, Manifest, Provenance, read_rows
from spurbench.dataset.rows import Row

SHARD = "data/generated-00000-of-00001.parquet"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "sound"
    write(folder)
    return folder


@pytest.fixture
def dataset(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(quality, "available", lambda metrics, device: frozenset(metrics))
    return Path(shutil.copytree(sound, tmp_path / "d"))


def end_in_one_line(dataset: Path, sound: Path, tmp_path: Path, *commands: str) -> None:
    """Each command fails, names the dataset, and neither shows a bug nor more than one line."""
    arguments = {
        "verify": [str(dataset)],
        "diff": [str(sound), str(dataset)],
        "quality": [str(dataset), "--device", "cpu"],
        "push": [str(dataset), "--repo-id", "owner/toy", "--dry-run"],
        "build": ["--previous", str(dataset), "--output", str(tmp_path / "o"), "--device", "cpu"],
    }
    for command in commands or arguments:
        done = CliRunner().invoke(main, [command, *arguments[command]])
        assert done.exit_code == 1, (command, done.output)
        assert not done.exception or isinstance(done.exception, SystemExit), command
        assert "unexpected" not in done.output, (command, done.output)
        *before, last = done.output.splitlines()
        assert last.startswith("Error: ") and str(dataset) in last, (command, last)
        assert not [line for line in before if "Error" in line and "│" not in line], done.output
    with pytest.raises(SpurbenchError):
        for rows in read_rows(dataset).values():
            for each in rows:
                each.read()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "5", "{}", "\x00", "9" * 5000, DEEP, '{"a":' * 100_000],
    ids=lambda text: text[:6].encode("unicode_escape").decode() + str(len(text)),
)
def test_a_manifest_that_is_none(dataset, sound, tmp_path, text):
    (dataset / MANIFEST).write_text(text)
    end_in_one_line(dataset, sound, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", 5),
        ("name", "to\ny"),
        ("version", "1"),
        ("version", None),
        ("content", "0"),
        ("created", 3),
        ("counts", None),
        ("counts", {}),
        ("counts", {"real": "3"}),
        ("counts", {"real": 3, "generated": 0}),
        ("counts", {"real": 3, "generated": 4, "other": 1}),
        ("quality", 5),
        ("quality", [None]),
        ("changelog", "x"),
        ("changelog", [{}]),
        ("changelog", [{"version": 1, "note": None, "changes": []}]),
        ("provenance", None),
        ("provenance", {}),
        ("provenance", []),
        ("files", []),
        ("files", {"README.md": 5}),
        ("more", 1),
    ],
)
def test_a_manifest_of_wrong_types_however_well_sealed(dataset, sound, tmp_path, key, value):
    document = json.loads((dataset / MANIFEST).read_text())
    del document["manifest_sha256"]
    document[key] = value
    document["manifest_sha256"] = fingerprint(document)
    (dataset / MANIFEST).write_text(json.dumps(document))
    end_in_one_line(dataset, sound, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recipe", None),
        ("recipe", {"sfsl": {"kappa": float("nan")}}),
        ("recipe", {"sfsl": {"kappa": float("inf")}}),
        ("recipe", {"name": "\ud800"}),
        ("recipe", json.loads('{"a":' * 200 + "1" + "}" * 200)),
        ("seed", "0"),
        ("panel", None),
        ("panel", [5]),
        ("panel", [{"name": "vit"}]),
        ("phi", None),
        ("object_detector", 1),
        ("real_images", {}),
        ("damaged", {}),
        ("failed_classes", []),
        ("licences", {}),
    ],
)
def test_provenance_of_wrong_types(dataset, sound, tmp_path, key, value):
    document = json.loads((dataset / MANIFEST).read_text())
    document["provenance"][key] = value
    (dataset / MANIFEST).write_text(json.dumps(document))
    end_in_one_line(dataset, sound, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
def test_a_manifest_that_would_be_read_for_ever(dataset, sound, tmp_path):
    (dataset / MANIFEST).unlink()
    os.mkfifo(dataset / MANIFEST)
    end_in_one_line(dataset, sound, tmp_path, "verify", "diff")


@pytest.mark.skipif(os.name != "posix", reason="pipes are POSIX's")
def test_parquet_that_would_be_read_for_ever(dataset, sound, tmp_path):
    (file,) = dataset.glob("data/generated-*.parquet")
    file.unlink()
    os.mkfifo(file)
    end_in_one_line(dataset, sound, tmp_path, "verify", "diff")


def without(name):
    return lambda table: table.drop_columns([name])


def as_type(name, kind):
    def change(table):
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, table[name].cast(kind))

    return change


def with_values(name, *values):
    def change(table):
        place = table.schema.get_field_index(name)
        kind = table.schema.field(name).type
        return table.set_column(place, name, pa.array([*values], kind))

    return change


NAN = float("nan")


@pytest.mark.parametrize(
    "change",
    [
        without("wnid"),
        without("panel"),
        without("class_index"),
        as_type("class_index", pa.string()),
        as_type("class_index", pa.float64()),
        as_type("is_reference", pa.int8()),
        with_values("class_index", 94, None, 94, 94),
        with_values("class_name", None, "a", "a", "a"),
        with_values("object_score", 0.5, NAN, 0.5, 0.5),
        with_values("consistently_spurious", None, True, True, True),
        with_values("panel", None, [], [], []),
        with_values("panel", [None], [], [], []),
        with_values("panel", [{"classifier": None, "rank": 1}], [], [], []),
        lambda table: table.append_column("more", pa.array(["a"] * 4)),
        lambda table: table.slice(0, 3),
        lambda table: table.slice(0, 0),
    ],
)
def test_parquet_of_other_columns_or_values(dataset, sound, tmp_path, change):
    pq.write_table(change(pq.read_table(dataset / SHARD)), dataset / SHARD)
    seal(dataset)
    end_in_one_line(dataset, sound, tmp_path)


@pytest.mark.parametrize(
    "cut",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: b"PAR1" + bytes(100) + b"PAR1",
        lambda data: data[:200] + bytes(b ^ 0xFF for b in data[200:3000]) + data[3000:],
    ],
)
def test_parquet_that_is_cut_off_though_its_hash_matches(dataset, sound, tmp_path, cut):
    (dataset / SHARD).write_bytes(cut((dataset / SHARD).read_bytes()))
    seal(dataset)
    end_in_one_line(dataset, sound, tmp_path, "verify", "push", "quality")


def test_missing_parquet_is_no_empty_split(dataset, sound, tmp_path):
    (dataset / SHARD).unlink()
    end_in_one_line(dataset, sound, tmp_path)


def test_images_that_are_null(dataset, sound, tmp_path):
    pq.write_table(
        with_values("image", None, None, None, None)(pq.read_table(dataset / SHARD)),
        dataset / SHARD,
    )
    seal(dataset)
    end_in_one_line(dataset, sound, tmp_path, "verify", "quality", "push")


@pytest.mark.parametrize("text", ["", DEEP, "null", "[]", "{}", '{"name": [], "distribution": 5}'])
def test_metadata_that_is_none(dataset, sound, tmp_path, text):
    (dataset / "croissant.json").write_text(text)
    seal(dataset)
    done = CliRunner().invoke(main, ["verify", str(dataset)])
    assert done.output.splitlines()[-1] == f"Error: {dataset} fails: croissant"


def test_a_damaged_previous_version_costs_no_build(dataset, tmp_path, monkeypatch):
    (dataset / SHARD).write_bytes(b"")

    def never(*arguments):
        raise AssertionError("work was begun")

    monkeypatch.setattr(build_module, "open_images", never)
    arguments = ["build", "--previous", str(dataset), "--output", str(tmp_path / "o")]
    done = CliRunner().invoke(main, [*arguments, "--device", "cpu"])
    assert done.output.splitlines()[-1].startswith(f"Error: {dataset / SHARD} can't be read (")


def test_a_damaged_image_is_named_before_anything_is_scored(dataset):
    broken = {"bytes": b"GIF89a", "path": "0.png"}
    rewrite(dataset, SHARD, lambda rows: rows[0].update(image=broken))
    with pytest.raises(SpurbenchError, match=r"generated/0\.png can't be decoded: "):
        quality.fill_quality(dataset, [], torch.device("cpu"))


def test_a_dataset_that_is_built_anew_while_it_is_scored_is_not_replaced(dataset, monkeypatch):
    def overtaken(images, metric, device):
        scores = [1.0 for _ in images]
        write(dataset, real=2)
        return scores

    monkeypatch.setattr(quality, "score", overtaken)
    with pytest.raises(SpurbenchError, match="was built anew meanwhile"):
        quality.fill_quality(dataset, [], torch.device("cpu"))
    assert Manifest.read(dataset).counts["real"] == 2


def test_datasets_of_earlier_and_later_versions_are_read(dataset):
    """The first had no changelog and no seal; a later one may say more of how it was made."""
    document = json.loads((dataset / MANIFEST).read_text())
    del document["manifest_sha256"], document["changelog"]
    document["provenance"]["engine"] = {"name": "ray"}
    document["provenance"]["panel"][0]["precision"] = 1
    (dataset / MANIFEST).write_text(json.dumps(document))
    manifest = Manifest.read(dataset)
    assert manifest.changelog == () and manifest.manifest_sha256 is None
    assert manifest.as_json() == document
    assert manifest.seal() == fingerprint(document)
    assert len(read_rows(dataset)["real"]) == 3


def test_provenance_is_the_json_that_it_was_read_from():
    values = provenance().as_json() | {"later": [1, 2.5, None, {"a": True}]}
    assert Provenance.model_validate(values).as_json() == values


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": True}, "seed is True, not int64 or null"),
        ({"kappa": 1}, "kappa is 1, not float64 or null"),
        ({"object_score": float("inf")}, "object_score is inf, no finite number"),
        ({"is_reference": None}, "is_reference is None, not bool"),
        ({"entropy": "x"}, "entropy is 'x', not float64 or null"),
        ({"panel": "x"}, "panel is no list of answers"),
        ({"panel": [{}]}, "column classifier is missing"),
    ],
)
def test_a_row_says_which_of_its_columns_is_wrong(changes, said):
    with pytest.raises(ValueError, match=said):
        row("real", 0, **changes)


def test_a_row_without_a_column_is_none():
    columns = row("real", 0).columns()
    assert Row.of(columns, bytes).columns() == columns
    del columns["wnid"]
    with pytest.raises(ValueError, match="column wnid is missing"):
        Row.of(columns, bytes)


def test_a_manifest_is_read_without_anything_heavy():
    import subprocess
    import sys

    code = (
        "import sys, spurbench.dataset.manifest; "
        "print(*{'torch', 'datasets', 'pyarrow', 'timm', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from makers.rows import (
    columns,
    control,
    every_part,
    picture,
    positive,
    rewrite,
    row,
    seal,
    write,
)
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.dataset import card
from spurbench.dataset.manifest import MANIFEST
from spurbench.dataset.verify import require_sound, verify

NAMES = [
    "manifest",
    "files",
    "hashes",
    "schema",
    "counts",
    "rows",
    "images",
    "card",
    "croissant",
    "load_dataset",
]
SHARD = "data/real-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "d"
    write(folder)
    return folder


@pytest.fixture
def dataset(sound, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return Path(shutil.copytree(sound, tmp_path / "d"))


@pytest.fixture
def unloaded(monkeypatch):
    """Skip the load, which takes longer than all other checks together: the disk is full."""

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(datasets, "load_dataset", full)


def outcomes(folder: Path) -> dict[str, str]:
    return {check.name: check.status for check in verify(folder)}


def failures(folder: Path) -> dict[str, str]:
    return {check.name: check.detail for check in verify(folder) if check.status == "fail"}


def edit_front(folder: Path, change) -> None:
    front, body = card.split_front_matter((folder / "README.md").read_text())
    change(front)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{body}")


def test_a_sound_dataset_passes_every_check_in_order(dataset):
    checks = verify(dataset)
    assert [check.name for check in checks] == NAMES
    assert {check.status for check in checks} == {"ok"}, checks
    assert checks[4].detail == "real 3, generated 4, curated-real 2, curated-generated 2"


def test_the_command_lists_the_checks_and_its_exit_status_tells(dataset):
    done = CliRunner().invoke(main, ["verify", str(dataset)])
    assert done.exit_code == 0, done.output
    cells = [line.split("│") for line in done.output.splitlines() if "│" in line]
    assert [(c[1].strip(), c[2].strip()) for c in cells] == [("ok", name) for name in NAMES]
    (dataset / "data" / "mine.txt").write_text("x")
    done = CliRunner().invoke(main, ["verify", str(dataset)])
    assert done.exit_code == 1
    assert "not of this dataset: data/mine.txt" in done.output
    assert f"Error: {dataset} fails: files" in done.output
    assert CliRunner().invoke(main, ["verify", str(dataset / "none")]).exit_code == 2


def test_one_changed_byte_in_a_shard_is_found(dataset):
    data = bytearray((dataset / SHARD).read_bytes())
    data[data.index(picture(0)[40:60])] ^= 1  # in the pixels of the first image
    (dataset / SHARD).write_bytes(data)
    found = failures(dataset)
    assert found["hashes"] == f"changed: {SHARD}"
    seal(dataset)
    assert "hashes" not in failures(dataset)
    assert "real/0.png is not the image of its image_sha256" in failures(dataset)["images"]


def test_a_missing_file_is_named(dataset):
    (dataset / "samples.png").unlink()
    assert failures(dataset) == {"files": "missing: samples.png"}
    (dataset / SHARD).unlink()
    found = failures(dataset)
    assert SHARD in found["files"]
    assert found["counts"] == f"real has 0 rows, {MANIFEST} says 3"


def test_what_a_download_from_the_hub_adds_is_no_fault(dataset):
    (dataset / ".gitattributes").write_text("*.parquet filter=lfs\n")
    (dataset / ".cache" / "huggingface").mkdir(parents=True)
    (dataset / ".cache" / "huggingface" / "x.metadata").write_text("x")
    assert failures(dataset) == {}
    (dataset / ".cache" / "mine").write_text("x")
    assert failures(dataset) == {"files": "not of this dataset: .cache/mine"}


def test_a_card_without_the_version_is_refused_however_well_sealed(dataset):
    edit_front(dataset, lambda front: front["configs"][0].pop("version"))
    assert failures(dataset)["hashes"] == "changed: README.md"
    seal(dataset)
    found = failures(dataset)
    assert list(found) == ["card"]
    assert "config default of README.md has version None, not 1.0.0" in found["card"]
    assert outcomes(dataset)["load_dataset"] == "skipped"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f["dataset_info"][0].update(splits=[]), "default of README.md: splits in"),
        (lambda f: f["dataset_info"][1].update(features=[]), "curated of README.md: features in"),
        (lambda f: f["configs"].pop(1), "configs of README.md: ['default']"),
        (
            lambda f: f["configs"][0]["data_files"][0].update(path="data/*.parquet"),
            "data_files are not",
        ),
        (lambda f: f["dataset_info"][0].update(description="new"), "without the content's hash"),
        (lambda f: f.pop("license"), "names no license"),
    ],
)
def test_yaml_that_says_something_else_is_named(dataset, change, said):
    edit_front(dataset, change)
    seal(dataset)
    found = failures(dataset)
    assert list(found) == ["card"] and said in found["card"]


def test_yaml_that_cant_be_parsed_is_named(dataset):
    for text in ("no yaml", "---\n{ [\n---\nbody", "---\n- 1\n---\n"):
        (dataset / "README.md").write_text(text)
        assert "YAML" in failures(dataset)["card"]


def test_a_tampered_manifest_is_found(dataset):
    text = (dataset / MANIFEST).read_text()
    (dataset / MANIFEST).write_text(text.replace('"seed": 0', '"seed": 1'))
    checks = verify(dataset)
    assert checks[0].status == "fail" and "manifest_sha256 differs" in checks[0].detail
    assert {check.status for check in checks[1:]} == {"skipped"}
    seal(dataset)
    assert "rows and provenance are not those" in failures(dataset)["rows"]
    (dataset / MANIFEST).write_text("{")
    assert "is damaged" in failures(dataset)["manifest"]
    (dataset / MANIFEST).unlink()
    assert "is not a finished dataset" in failures(dataset)["manifest"]


def test_wrong_counts_are_found_even_when_sealed(dataset):
    seal(dataset, counts={"real": 3, "generated": 5, "curated-real": 2, "curated-generated": 2})
    found = failures(dataset)
    assert found["counts"] == f"generated has 4 rows, {MANIFEST} says 5"


def test_rows_that_are_not_those_of_the_build_are_found(dataset):
    rewrite(dataset, SHARD, lambda rows: rows[1].update(object_score=0.3))
    seal(dataset)
    assert "rows and provenance are not those" in failures(dataset)["rows"]


def test_curated_rows_must_be_the_curated_ones(dataset):
    def swap(rows):
        rows[0] = {**rows[0], "consistently_spurious": False}

    rewrite(dataset, "data/curated-real-00000-of-00001.parquet", swap)
    seal(dataset)
    said = "curated-real does not hold the 2 rows that it should"
    assert failures(dataset)["counts"] == said


def test_rows_of_another_split_are_found(dataset):
    write(dataset, rows={"real": [row("generated", 0)], "generated": [row("generated", 1)]})
    assert "generated/0.png is generated, in split real" in failures(dataset)["rows"]


def test_other_columns_are_found(dataset):
    table = pq.read_table(dataset / SHARD).drop_columns(["wnid"])
    pq.write_table(table, dataset / SHARD)
    seal(dataset)
    found = verify(dataset)
    assert {c.name: c.status for c in found}["schema"] == "fail"
    assert {c.name: c.status for c in found}["load_dataset"] == "skipped"


def test_an_image_that_cant_be_decoded_is_found(dataset):
    data = picture(0)[:200]
    broken = columns("real", 0, image=data, image_sha256=hashlib.sha256(data).hexdigest())
    write(dataset.parent / "other", version="2.0.0")
    rewrite(
        dataset.parent / "other",
        SHARD,
        lambda rows: [{**broken, "image": {"bytes": data, "path": "0.png"}}, *rows[1:]],
    )
    seal(dataset.parent / "other")
    assert "real/0.png can't be decoded" in failures(dataset.parent / "other")["images"]


def test_croissant_of_other_files_is_found(dataset):
    path = dataset / "croissant.json"
    document = json.loads(path.read_text())
    document["distribution"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(document))
    seal(dataset)
    assert list(failures(dataset)) == ["croissant"]
    path.write_text(path.read_text().replace('"1.0.0"', '"1.0.1"'))
    seal(dataset)
    assert failures(dataset) == {"croissant": "croissant.json is of spurbench-toy 1.0.1"}


def test_what_load_dataset_gives_is_compared_with_the_card(dataset, monkeypatch):
    """The loader itself is broken here: it leaves out rows, as a stale cache would."""
    original = datasets.load_dataset

    def stale(*arguments, **options):
        loaded = original(*arguments, **options)
        loaded["real"] = loaded["real"].select([0])
        return loaded

    monkeypatch.setattr(datasets, "load_dataset", stale)
    found = failures(dataset)
    assert list(found) == ["load_dataset"]
    assert "config default loads {'real': 1, 'generated': 4}" in found["load_dataset"]


ANSWER = {"classifier": "vit", "prediction": 94, "probability": 0.5, "rank": 1}


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"class_index": 1000}, "class_index 1000 is not in 0..999"),
        ({"class_index": -1}, "class_index -1 is not in 0..999"),
        ({"label": 93}, "label is not class_index"),
        ({"wnid": "n01833806"}, "wnid n01833806 is not n01833805, that of class 94"),
        ({"class_name": "koala"}, "class 94 is koala / red flowers, elsewhere hummingbird"),
        ({"source": "bogus"}, "is bogus, in split real"),
        ({"object_score": 1.25}, "object_score 1.25 is not in [0, 1]"),
        ({"feature_score": -0.25}, "feature_score -0.25 is not in [0, 1]"),
        ({"panel": []}, "panel does not hold the answers of the panel in the provenance"),
        ({"panel": [ANSWER | {"classifier": "other"}]}, "does not hold the answers of the panel"),
        ({"panel": [ANSWER | {"probability": 1.5}]}, "vit's probability 1.5 is not in [0, 1]"),
        ({"panel": [ANSWER | {"prediction": 1000}]}, "vit's prediction 1000 is no class"),
        ({"panel": [ANSWER | {"prediction": -2}]}, "vit's prediction -2 is no class"),
        ({"panel": [ANSWER | {"rank": 0}]}, "vit's rank 0 does not fit its prediction"),
        ({"panel": [ANSWER | {"rank": 2}]}, "vit's rank 2 does not fit its prediction"),
        ({"panel": [ANSWER | {"prediction": 1}]}, "vit's rank 1 does not fit its prediction"),
        ({"consistently_spurious": False}, "consistently_spurious is not what the panel answers"),
    ],
)
def test_a_row_that_cant_be_true_is_named_however_well_sealed(tmp_path, changes, said):
    rows = {
        "real": [row("real", 0), row("real", 2, **changes)],
        "generated": [row("generated", 0)],
    }
    write(tmp_path / "d", rows=rows)
    found = failures(tmp_path / "d")
    assert list(found) == ["rows"]
    assert found["rows"].startswith("real/2.png") and said in found["rows"]


def test_every_part_that_a_build_can_make_is_sound_and_loads(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "d", rows=every_part())
    checks = verify(tmp_path / "d")
    assert {check.status for check in checks} == {"ok"}, checks
    assert checks[4].detail.endswith(
        "controls-generated 4, controls-finetuned-generated 4, contexts-generated 3"
    )
    loaded = datasets.load_dataset(str(tmp_path / "d"), "controls", cache_dir=str(tmp_path / "c"))
    assert list(loaded) == ["generated"]
    images = [row.image_sha256 for row in every_part()["generated"]]
    assert list(loaded["generated"]["twin_of"]) == images
    positives = datasets.load_dataset(
        str(tmp_path / "d"), "positives", cache_dir=str(tmp_path / "c")
    )
    assert {split: len(rows) for split, rows in positives.items()} == {"generated": 2}


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("controls-generated", {"twin_of": "0" * 64}, "twin_of names no generated image"),
        ("controls-generated", {"twin_of": None}, "twin_of is None in controls-generated"),
        ("controls-generated", {"seed": 5}, "seed is 5, its image's"),
        ("controls-generated", {"replicate": 1}, "replicate is 1, its image's 0"),
        ("controls-generated", {"kappa": 1.0}, "kappa 1.0 of a control"),
        ("controls-finetuned-generated", {"twin_of": "0" * 64}, "controls-finetuned: generated/1"),
        ("controls-finetuned-generated", {"seed": 5}, "seed is 5, its image's"),
        ("contexts-generated", {"prompt": "a sks flower"}, "names none of the recipe's contexts"),
        ("contexts-generated", {"twin_of": "0" * 64}, "in contexts-generated"),
        ("generated", {"twin_of": "0" * 64}, f"twin_of is {'0' * 64} in generated"),
        ("generated", {"seed": 2**53}, f"seed {2**53} is not in 0..2^53 - 1"),
        ("generated", {"is_reference": True}, "is_reference in generated"),
        ("real", {"replicate": 1}, "replicate 1 in real"),
        ("real", {"seed": 1}, "a real image has a seed"),
        ("positives-generated", {"object_absent": True}, "the detector does not see the class"),
        ("positives-generated", {"source": "real"}, "is real, in split generated"),
    ],
)
def test_a_row_that_cant_be_in_its_part_is_named(tmp_path, part, change, said):
    rows = every_part()
    rows[part][1] = replace(rows[part][1], **change)
    write(tmp_path / "d", rows=rows)
    found = failures(tmp_path / "d")
    assert list(found) == ["rows"] and said in found["rows"], found


@pytest.mark.usefixtures("unloaded")
def test_an_image_has_one_control(tmp_path):
    rows = every_part()
    write(tmp_path / "a", rows=rows | {"controls-generated": rows["controls-generated"][1:]})
    assert failures(tmp_path / "a") == {"rows": "controls: generated/0.png has no control"}
    again = control(rows["generated"][0], image_sha256=positive(0).image_sha256)
    again = replace(again, read=positive(0).read)
    write(tmp_path / "b", rows=rows | {"controls-generated": [*rows["controls-generated"], again]})
    assert failures(tmp_path / "b") == {"rows": f"controls: 2 are twins of image {again.twin_of}"}


def test_an_answer_outside_imagenet_is_none_of_the_class(tmp_path):
    outside = [ANSWER | {"prediction": -1, "rank": 2}]
    rows = {
        "real": [row("real", 1, panel=outside), row("real", 0)],
        "generated": [row("generated", 0)],
    }
    write(tmp_path / "d", rows=rows)
    assert failures(tmp_path / "d") == {}


def test_a_split_without_images_is_no_dataset(tmp_path):
    write(tmp_path / "d", rows={"real": [], "generated": [row("generated", 0)]})
    assert "no images in split real" in failures(tmp_path / "d")["counts"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Not enough disk space. Needed: 9 (download: 0, generated: 9, post-processed: 0)"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_no_fault_of_the_dataset(dataset, monkeypatch, error):
    def full(*arguments, **options):
        raise RuntimeError("An error occurred while generating the dataset") from error

    monkeypatch.setattr(datasets, "load_dataset", full)
    checks = verify(dataset)
    assert {c.name for c in checks if c.status != "ok"} == {"load_dataset"}
    assert checks[-1].status == "skipped" and "this machine can't load it" in checks[-1].detail
    done = CliRunner().invoke(main, ["verify", str(dataset)])
    assert done.exit_code == 1
    last = done.output.splitlines()[-1]
    assert "passes but for what was skipped: load_dataset (set TMPDIR" in last
    with pytest.raises(SpurbenchError, match=r"can't be checked here: load_dataset: .*TMPDIR"):
        require_sound(dataset)


def test_a_loader_that_fails_for_the_dataset_is_a_fault(dataset, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("no") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(datasets, "load_dataset", broken)
    assert failures(dataset) == {"load_dataset": "RuntimeError: no"}

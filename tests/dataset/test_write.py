from __future__ import annotations

import hashlib
import io
import re
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import DatasetCardData
from PIL import Image

from makers.rows import columns, every_part, row, write
from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.dataset import card, quality
from spurbench.dataset.manifest import (
    MANIFEST,
    ChangelogEntry,
    Manifest,
    read_rows,
    require_writable,
)
from spurbench.dataset.rows import COLUMNS
from spurbench.images.sources import open_images
from spurbench.recipe.load import read_recipe

CPU = torch.device("cpu")


def load(folder: Path, *config: str, cache: Path, **options):
    return datasets.load_dataset(str(folder), *config, cache_dir=str(cache), **options)


def test_splits_columns_and_values_survive_the_round_trip(tmp_path):
    assert write(tmp_path / "d")
    loaded = load(tmp_path / "d", cache=tmp_path / "c")
    assert {s: len(rows) for s, rows in loaded.items()} == {"real": 3, "generated": 4}
    got = loaded["generated"][1]
    expected = columns("generated", 1)
    image = got.pop("image")
    assert np.array_equal(
        np.asarray(image), np.asarray(Image.open(io.BytesIO(expected.pop("image"))))
    )
    assert got == expected
    assert loaded["real"].features["label"].names[94] == "hummingbird"


def test_the_curated_config_holds_spurious_object_free_images_only(tmp_path):
    rows = {
        "real": [row("real", 0), row("real", 2, object_absent=None)],
        "generated": [
            row("generated", 0),
            row("generated", 1),
            row("generated", 2, object_absent=False),
        ],
    }
    write(tmp_path / "d", rows=rows)
    curated = load(tmp_path / "d", "curated", cache=tmp_path / "c")
    names = {split: list(rows["file_name"]) for split, rows in curated.items()}
    assert names == {"real": ["real/0.png"], "generated": ["generated/0.png"]}


def test_an_empty_curated_split_is_left_out_and_the_rest_loads(tmp_path):
    rows = {"real": [row("real", 0)], "generated": [row("generated", 1)]}
    write(tmp_path / "d", rows=rows)
    assert list(load(tmp_path / "d", "curated", cache=tmp_path / "c")) == ["real"]
    assert len(load(tmp_path / "d", cache=tmp_path / "c")["generated"]) == 1


def test_new_content_is_never_hidden_by_the_loaders_cache(tmp_path):
    """Without a version in the YAML, rewritten shards and folders of one name gave old rows."""
    cache = tmp_path / "c"
    lengths = []
    for place, version, count in (("x", "1.0.0", 3), ("y", "1.1.0", 5), ("x", "1.0.0", 6)):
        write(tmp_path / place / "d", real=count, version=version)
        lengths.append(len(load(tmp_path / place / "d", cache=cache)["real"]))
    assert lengths == [3, 5, 6]


def test_every_config_of_the_card_carries_the_version(tmp_path):
    write(tmp_path / "d", version="2.3.4")
    front = yaml.safe_load((tmp_path / "d" / "README.md").read_text().split("---\n")[1])
    assert [c["config_name"] for c in front["configs"]] == ["default", "curated"]
    assert {c["version"] for c in front["configs"]} == {"2.3.4"}


def test_the_manifest_lists_every_file_with_its_hash(tmp_path):
    write(tmp_path / "d")
    manifest = Manifest.read(tmp_path / "d")
    files = {str(p.relative_to(tmp_path / "d")) for p in (tmp_path / "d").rglob("*") if p.is_file()}
    assert files == set(manifest.files) | {MANIFEST}
    for name, digest in manifest.files.items():
        assert hashlib.sha256((tmp_path / "d" / name).read_bytes()).hexdigest() == digest
    assert manifest.counts["generated"] == 4


def test_the_card_describes_every_column_and_file(tmp_path):
    write(tmp_path / "d")
    _, body = card.split_front_matter((tmp_path / "d" / "README.md").read_text())
    loaded = load(tmp_path / "d", cache=tmp_path / "c")["real"]
    described = re.findall(r"^\| `(\w+)` \| [\w ]+ \| \S", body, re.MULTILINE)
    assert described == list(loaded.features)
    manifest = Manifest.read(tmp_path / "d")
    for name, digest in manifest.files.items():
        assert (digest in body) == name.endswith(".parquet")
    assert manifest.content in body and "a" * 64 in body  # the panel's weights
    rate = read_recipe("mini").finetune.learning_rate
    assert f'"learning_rate": {rate}' in body  # the whole recipe


def test_the_documentation_names_every_column():
    page = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text()
    assert [name for name in COLUMNS if f"`{name}`" not in page] == []


def test_the_front_matter_has_what_the_hub_asks_for_and_is_short(tmp_path):
    licences = {"images": "CC BY 2.0\nof their authors", "weights": "OpenRAIL"}
    write(tmp_path / "d", licences=licences)
    text = (tmp_path / "d" / "README.md").read_text()
    front, body = card.split_front_matter(text)
    assert text[: -len(body)].count("\n") < 60
    assert front["license"] == "other" and front["license_name"]
    assert (tmp_path / "d" / front["license_link"]).read_text() == (
        "Real images: CC BY 2.0 of their authors\n"
        "Base model weights, whose terms extend to what they generate: OpenRAIL\n"
    )
    assert front["size_categories"] == ["n<1K"]
    assert front["source_datasets"] == ["original", "extended|other-photographs"]
    card_data = DatasetCardData(**front)
    assert (card_data.task_categories, card_data.language) == (["image-classification"], ["en"])


def test_the_card_explains_what_a_dataset_has_and_nothing_else(tmp_path):
    write(tmp_path / "full", rows=every_part(), replicates=3)
    given = {"name": "<b>mine</b>", "fingerprint": "c" * 64}
    write(tmp_path / "given", rows=every_part(), positive_images=given)
    write(tmp_path / "bare")
    bodies = {
        name: " ".join(
            card.split_front_matter((tmp_path / name / "README.md").read_text())[1].split()
        )
        for name in ("full", "given", "bare")
    }
    said = {
        "**What counts.**": {"full", "given", "bare"},
        "**Positives** are": {"full", "given"},
        "noise of the generated images: on the beach, in a market. Eval": {"full", "given"},
        'from "a photo of a CLASS" and kept where the detector sees the object.': {"full"},
        "class: &lt;b&gt;mine&lt;/b&gt;, given to the build.": {"given"},
        "**Controls** are": {"full", "given"},
        "Each class has 3 generators": {"full"},
        "below 2^53": {"full", "given", "bare"},
    }
    found = {words: {name for name, body in bodies.items() if words in body} for words in said}
    assert found == said


def test_images_that_the_recipe_brings_are_no_other_dataset(tmp_path):
    write(tmp_path / "d", real_images={"name": "real", "fingerprint": "b" * 64})
    front, _ = card.split_front_matter((tmp_path / "d" / "README.md").read_text())
    assert front["source_datasets"] == ["original"]


@pytest.mark.parametrize(
    ("images", "word"), [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "n>1M")]
)
def test_the_size_category_counts_no_image_twice(images, word):
    parts = {
        "real": card.Part(images - 1, 0, {}, 0),
        "generated": card.Part(1, 0, {}, 0),
        "curated-real": card.Part(images - 1, 0, {}, 0),
    }
    assert card._size_category(parts) == word


def test_the_changelog_is_on_the_card_and_survives_filling_in_quality(tmp_path):
    entries = [
        ChangelogEntry(version="1.0.0", note="<b>new</b>", changes=("a|b: 1 -> 2",)),
        ChangelogEntry(version="0.9.0", note=None, changes=("the first version",)),
    ]
    write(tmp_path / "d", changelog=entries)
    body = (tmp_path / "d" / "README.md").read_text().split("## Changelog")[1]
    assert "**1.0.0**: &lt;b&gt;new&lt;/b&gt;" in body and "a\\|b: 1 -&gt; 2" in body
    assert body.index("1.0.0") < body.index("**0.9.0**\n\n- the first version")
    quality.fill_quality(tmp_path / "d", [], CPU)
    assert Manifest.read(tmp_path / "d").changelog == (*entries,)
    assert write(tmp_path / "d"), "another changelog is another dataset"


def test_the_same_dataset_is_not_written_again_but_a_damaged_one_is(tmp_path):
    assert write(tmp_path / "d")
    assert not write(tmp_path / "d")
    (tmp_path / "d" / "README.md").write_text("gone")
    assert write(tmp_path / "d")
    assert write(tmp_path / "d", seed=1)


def test_a_failed_write_leaves_the_old_dataset(tmp_path, monkeypatch):
    write(tmp_path / "d")
    before = Manifest.read(tmp_path / "d")

    def broken(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(card, "render", broken)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "d", real=9)
    assert Manifest.read(tmp_path / "d") == before
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_what_must_not_be_replaced_is_refused(tmp_path):
    write(tmp_path / "d")
    require_writable(tmp_path / "d", name="toy", version="1.0.0")
    require_writable(tmp_path / "new", name="toy", version="1.0.0")
    for name, version in (("toy", "1.0.1"), ("other", "1.0.0")):
        with pytest.raises(SpurbenchError, match=r"holds toy 1\.0\.0"):
            require_writable(tmp_path / "d", name=name, version=version)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("x")
    with pytest.raises(SpurbenchError, match="not a dataset"):
        require_writable(tmp_path / "mine", name="toy", version="1.0.0")
    for version in ("1.0", "v1.0.0", "1.0.0-rc1", "01.0.0"):
        with pytest.raises(SpurbenchError, match=r"not X\.Y\.Z"):
            require_writable(tmp_path / "new", name="toy", version=version)


def test_text_from_outside_cant_break_the_card(tmp_path):
    evil = "<script>alert(1)</script> | [x](http://y) `"
    rows = {
        "real": [row("real", 0, class_name=evil, spurious_feature=evil)],
        "generated": [row("generated", 0, class_name=evil, spurious_feature=evil)],
    }
    write(tmp_path / "d", rows=rows, failed_classes={evil: evil})
    body = (tmp_path / "d" / "README.md").read_text().split("---", 2)[2]
    assert "<script>" not in body and "[x](" not in body
    assert "&lt;script&gt;" in body
    assert load(tmp_path / "d", cache=tmp_path / "c")["real"][0]["class_name"] == evil


def test_evaluation_reads_what_was_written(tmp_path):
    write(tmp_path / "d")
    images = open_images(str(tmp_path / "d"))
    assert [r.source for r in images.records] == ["real"] * 3 + ["generated"] * 4
    assert (images.info.name, images.info.version, images.info.kind) == ("toy", "1.0.0", "dataset")
    assert len(open_images(str(tmp_path / "d"), "generated").records) == 4
    (tmp_path / "d" / MANIFEST).unlink()
    with pytest.raises(SpurbenchError, match=r"no spurbench\.json"):
        open_images(str(tmp_path / "d"))


def test_quality_fills_null_columns_in_place(tmp_path):
    write(tmp_path / "d")
    before = read_rows(tmp_path / "d")
    assert quality.fill_quality(tmp_path / "d", [], CPU) == {"entropy": 7}
    after = read_rows(tmp_path / "d")
    for split in before:
        for old, new in zip(before[split], after[split], strict=True):
            assert 0 < new.quality["entropy"] <= 8.01  # bits of an 8-bit grey value
            assert old.quality == {"entropy": None}
            assert old == replace(new, quality=old.quality)
    assert quality.fill_quality(tmp_path / "d", [], CPU) == {"entropy": 0}
    assert len(load(tmp_path / "d", cache=tmp_path / "c")["real"]) == 3


def test_positives_and_controls_come_back_and_stay_without_quality(tmp_path):
    rows = every_part()
    write(tmp_path / "d", rows=rows)
    assert {part: held for part, held in read_rows(tmp_path / "d").items() if held} == rows
    assert quality.fill_quality(tmp_path / "d", ["entropy", "piqe"], CPU) == {
        "entropy": 7,
        "piqe": 7,
    }
    after = read_rows(tmp_path / "d")
    for part in ("positives-generated", "controls-generated"):
        assert [row.quality for row in after[part]] == [{"entropy": None, "piqe": None}] * len(
            rows[part]
        )


def test_every_part_counts_in_the_content(tmp_path):
    rows = every_part()
    contents = []
    for without in (None, "positives-generated", "controls-generated"):
        write(tmp_path / "d", rows={part: rows[part] for part in rows if part != without})
        contents.append(Manifest.read(tmp_path / "d").content)
    assert len(set(contents)) == 3


def test_a_dataset_of_an_older_spurbench_is_to_be_built_again(tmp_path):
    write(tmp_path / "d")
    path = tmp_path / "d" / MANIFEST
    path.write_text(path.read_text().replace("spurbench.dataset/2", "spurbench.dataset/1"))
    with pytest.raises(SpurbenchError, match=r"d was built by an older spurbench; build it again$"):
        Manifest.read(tmp_path / "d")


def test_a_metric_can_be_added_later(tmp_path):
    write(tmp_path / "d")
    quality.fill_quality(tmp_path / "d", ["piqe"], CPU)
    assert Manifest.read(tmp_path / "d").quality == ("entropy", "piqe")
    assert all(r.quality["piqe"] is not None for r in read_rows(tmp_path / "d")["generated"])


def test_missing_weights_are_said_once_and_leave_the_dataset_alone(tmp_path, monkeypatch, caplog):
    import pyiqa

    def offline(*args, **kwargs):
        raise OSError("no route\nto host")

    quality._metric.cache_clear()
    monkeypatch.setattr(pyiqa, "create_metric", offline)
    for _ in range(3):
        assert quality.available(["topiq_nr"], CPU) == frozenset()
    said = [r.message for r in caplog.records if "topiq_nr" in r.message]
    assert len(said) == 1 and "spurbench quality DIR" in said[0]
    write(tmp_path / "d")
    before = (tmp_path / "d" / MANIFEST).read_bytes()
    with pytest.raises(SpurbenchError, match="topiq_nr can't run here"):
        quality.fill_quality(tmp_path / "d", ["topiq_nr"], CPU)
    assert (tmp_path / "d" / MANIFEST).read_bytes() == before
    quality._metric.cache_clear()


def test_where_the_hub_does_not_answer_no_metric_waits_for_it(monkeypatch, caplog):
    import pyiqa
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "unreachable", lambda url: f"{url} does not answer")

    def made(*_, **__):
        assert constants.HF_HUB_OFFLINE, "every file would be tried again and again"
        raise OSError("not cached")

    monkeypatch.setattr(pyiqa, "create_metric", made)
    quality._metric.cache_clear()
    assert quality.available(["topiq_nr"], CPU) == frozenset()
    assert [r.message.split(" ")[0] for r in caplog.records] == [constants.ENDPOINT, "quality"]
    quality._metric.cache_clear()


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(SpurbenchError, match="nearest: topiq_nr"):
        quality.available(["topic_nr"], CPU)

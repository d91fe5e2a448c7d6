"""What people do with a built dataset through ``datasets``."""

from __future__ import annotations

import io
import re

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from makers.rows import columns, every_part, picture, write
from spurbench.dataset.rows import features


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loading") / "d"
    write(folder, real=3, generated=5)
    return folder


@pytest.fixture(scope="module")
def load(folder, tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))

    def loading(*config: str, **options):
        return datasets.load_dataset(str(folder), *config, cache_dir=cache, **options)

    return loading


def pixels(i: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture(1000 + i))))


def test_streaming_gives_every_row_in_order_without_a_cache(load):
    streamed = load(streaming=True)
    assert isinstance(streamed, datasets.IterableDatasetDict)
    rows = list(streamed["generated"])
    assert [r["file_name"] for r in rows] == [f"generated/{i}.png" for i in range(5)]
    assert np.array_equal(np.asarray(rows[3]["image"]), pixels(3))
    assert rows[3]["panel"] == columns("generated", 3)["panel"]
    curated = load("curated", streaming=True, split="generated")
    assert [r["file_name"] for r in curated] == [f"generated/{i}.png" for i in (0, 2, 4)]


def test_columns_are_typed_in_every_config_whether_loaded_or_streamed(tmp_path):
    rows = every_part()
    write(tmp_path / "d", rows=rows)
    for config, splits in {
        "default": {"real": 3, "generated": 4},
        "curated": {"real": 2, "generated": 2},
        "positives": {"generated": 2},
        "controls": {"generated": 4},
        "controls-finetuned": {"generated": 4},
        "contexts": {"generated": 3},
    }.items():
        for options in ({"cache_dir": str(tmp_path / "c")}, {"streaming": True}):
            loaded = datasets.load_dataset(str(tmp_path / "d"), config, **options)
            assert {split: sum(1 for _ in rows) for split, rows in loaded.items()} == splits
            for rows in loaded.values():
                assert rows.features == features(["entropy"])
                assert rows.features["label"].names[94] == "hummingbird"


def test_the_cards_own_lines_join_every_image_and_its_twin(tmp_path, monkeypatch):
    """In its Python block, PATH stands for the dataset."""
    rows = every_part()
    write(tmp_path / "d", rows=rows)
    card = (tmp_path / "d" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(images = .*?)```", card, re.DOTALL)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "c")
    names = {"load_dataset": datasets.load_dataset}
    exec(code.replace("PATH", str(tmp_path / "d")), names)
    pairs = names["pairs"]
    assert len(pairs) == len(rows["generated"])
    assert pairs["image_sha256"].tolist() == pairs["twin_of_control"].tolist()
    assert pairs["seed"].tolist() == pairs["seed_control"].tolist()


def test_the_info_says_what_it_is_whose_and_how_to_cite_it(load):
    for options in ({}, {"streaming": True}):
        info = load("curated", split="real", **options).info
        assert re.fullmatch("spurbench toy 1.0.0, content [0-9a-f]{16}", info.description)
        assert info.license == (
            "Real images: MIT. Base model weights, whose terms extend to what they generate: MIT."
        )
        assert info.homepage.startswith("https://")
        assert info.citation.count("@") == 2 and "2402.08200" in info.citation


def test_filters_give_the_rows_that_pass_in_every_split(load):
    chosen = load(filters=[("consistently_spurious", "==", True)])
    assert {split: list(rows["file_name"]) for split, rows in chosen.items()} == {
        "real": ["real/0.png", "real/2.png"],
        "generated": ["generated/0.png", "generated/2.png", "generated/4.png"],
    }
    assert len(load(split="generated")) == 5, "the filtered rows are another cache"
    streamed = load(streaming=True, split="real", filters=[("file_name", "==", "real/1.png")])
    assert [row["file_name"] for row in streamed] == ["real/1.png"]


def test_columns_can_be_chosen(load):
    rows = load(split="real", columns=["label", "file_name"])
    assert rows.column_names == ["label", "file_name"]
    assert rows.features["label"].int2str(rows[0]["label"]) == "hummingbird"


def test_to_pandas_keeps_values_nulls_and_bytes(load):
    real, generated = (load(split=split).to_pandas() for split in ("real", "generated"))
    assert generated["seed"].tolist() == [2**52 + i for i in range(5)]  # no float in between
    assert real["seed"].isna().all() and real["prompt"].isna().all()
    assert generated["consistently_spurious"].tolist() == [True, False, True, False, True]
    assert generated["image"][2]["bytes"] == picture(1002)
    assert generated["panel"][0][0]["rank"] == 1


def test_with_format_torch_gives_tensors(load):
    rows = load(split="generated").with_format("torch")
    first = rows[0]
    assert first["image"].dtype == torch.uint8
    assert np.array_equal(first["image"].permute(1, 2, 0).numpy(), pixels(0))
    assert first["label"].item() == 94
    columns = ["image", "label"]
    batch = next(iter(torch.utils.data.DataLoader(rows.select_columns(columns), batch_size=4)))
    assert batch["image"].shape == (4, 3, 24, 24) and batch["label"].tolist() == [94] * 4


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("generated[:3]", ["generated/0.png", "generated/1.png", "generated/2.png"]),
        ("generated[-1:]", ["generated/4.png"]),
        ("generated[40%:80%]", ["generated/2.png", "generated/3.png"]),
        ("real[2:]+generated[:1]", ["real/2.png", "generated/0.png"]),
    ],
)
def test_splits_can_be_sliced(load, split, expected):
    assert list(load(split=split)["file_name"]) == expected

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from makers.measured import CLASSES, OTHER, save_dataset, save_result
from spurbench.classifiers.info import ClassifierInfo
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.metrics import wilson_interval
from spurbench.evaluation.results import Result
from spurbench.leaderboard import entries, lineage
from spurbench.leaderboard.answers import images_digest
from spurbench.leaderboard.entries import Entry
from spurbench.recipe.load import read_recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return save_dataset(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture
def result(images, tmp_path):
    return save_result(tmp_path, images, "a", {"real": 0.25, "generated": 0.5})


def test_an_entry_holds_what_its_result_and_parquet_say(result, tmp_path):
    entry = entries.read(result)
    source = Result.read(result)
    assert entry.splits.keys() == source.splits.keys()
    for split, part in source.splits.items():
        for mine, theirs in zip(entry.splits[split].classes, part.classes, strict=True):
            assert mine.spurious_accuracy == theirs.spurious_accuracy
            assert mine.mean_probability == pytest.approx(theirs.mean_probability, abs=1e-6)
    frame = pd.read_parquet(result.with_suffix(".parquet"))
    for split in ("real", "generated"):
        assert [a.index for a in entry.answers[split]] == sorted(CLASSES)
        for answers in entry.answers[split]:
            rows = frame[(frame["source"] == split) & (frame["class_index"] == answers.index)]
            rows = rows.sort_values("image_sha256")
            assert answers.predictions.tolist() == rows["prediction"].tolist()
            assert set(answers.predictions.tolist()) == {answers.index, OTHER}
            np.testing.assert_allclose(answers.probabilities, rows["probability"], atol=5e-5)
            assert answers.images == images_digest(rows["image_sha256"].tolist()[::-1])
    entry.write(tmp_path / "x" / "entry.json")
    assert entries.read(tmp_path / "x" / "entry.json") == entry


def test_probabilities_are_published_to_four_digits(result):
    entry = entries.read(result)
    frame = pd.read_parquet(result.with_suffix(".parquet"))
    published = [p for of in entry.answers.values() for a in of for p in a.probabilities]
    assert sorted(published) == sorted(round(p, 4) for p in frame["probability"])
    assert any(round(p, 3) != p for p in published)


@pytest.mark.parametrize("indent", [0, 4])
def test_what_fits_in_a_hundred_columns_is_one_line(indent):
    for width, lines in ((100, 1), (101, 3)):
        value = {"k": "x" * (width - indent - len('{"k": ""}'))}
        assert len(entries._layout(value, indent).splitlines()) == lines


def test_an_entry_is_laid_out_to_be_reviewed(result, tmp_path):
    entry = entries.read(result)
    entry.write(tmp_path / "entry.json")
    text = (tmp_path / "entry.json").read_text()
    assert json.loads(text)["schema"] == "spurbench.entry/2"
    lines = text.splitlines()
    assert len(lines) < 250
    # The answers to a class's images are one line, whatever its length; anything else is short.
    answers = [line for line in lines if re.match(' *"(predictions|probabilities)": "', line)]
    assert len(answers) == 4 * len(CLASSES)
    assert all(len(line) <= 100 for line in lines if line not in answers)
    assert "null" not in text


def test_a_path_it_was_loaded_from_is_not_published(images, tmp_path):
    path = save_result(tmp_path, images, "/home/me/secret", {"real": 0.5, "generated": 0.5})
    source = Result.read(path)
    info = source.classifier.model_copy(update={"name": "mine", "source": "folder"})
    entry = Entry.of(source.model_copy(update={"classifier": info}), None)
    assert "secret" not in entry.model_dump_json().replace("weights of /home/me/secret", "")
    assert entry.file_name.startswith("folder-mine_")


def test_without_its_parquet_a_result_has_no_answers_and_that_is_said(result, caplog):
    parquet = result.with_suffix(".parquet")
    parquet.write_bytes(parquet.read_bytes() + b" ")
    assert entries.read(result).answers == {}
    assert "is not the one that" in caplog.text
    parquet.unlink()
    assert entries.read(result).answers == {}
    assert "00.parquet is missing" in caplog.text


def test_a_parquet_is_looked_for_beside_its_result_only(result, tmp_path):
    content = json.loads(result.read_text())
    content["predictions"] = "../elsewhere/00.parquet"
    moved = tmp_path / "moved" / "00.json"
    moved.parent.mkdir()
    moved.write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    result.with_suffix(".parquet").rename(tmp_path / "elsewhere" / "00.parquet")
    assert entries.read(moved).answers == {}


def tamper(entry: dict, change: str) -> None:
    split = entry["splits"]["generated"]
    answers = entry["answers"]["generated"]
    match change:
        case "better class":
            split["classes"][0]["spurious_accuracy"] = 0.0
        case "better mean":
            split["summary"]["spurious_accuracy"] = 0.1
        case "other answer":
            answers[0]["predictions"] = answers[0]["predictions"].replace("=", "1", 1)
        case "fewer answers":
            for key in ("predictions", "probabilities"):
                answers[0][key] = answers[0][key].rpartition(" ")[0]
        case "uneven":
            answers[0]["probabilities"] = answers[0]["probabilities"].rpartition(" ")[0]
        case "two spaces":
            answers[0]["probabilities"] = answers[0]["probabilities"].replace(" ", "  ", 1)
        case "glued":
            answers[0]["predictions"] = answers[0]["predictions"].replace("= ", "=", 1)
        case "a sign":
            answers[0]["predictions"] = "-" + answers[0]["predictions"]
        case "no answers":
            answers[0]["predictions"] = answers[0]["probabilities"] = ""
        case "a list":
            answers[0]["predictions"] = [1] * 20
        case "left out":
            answers[0]["left_out"] = [3]
        case "left out beyond":
            answers[0]["left_out"] = [20]
        case "left out from the end":
            answers[0]["left_out"] = [-1]
        case "generators":
            for a in answers:
                a["generators"] = [10, 10]
        case "generators that don't add up":
            answers[0]["generators"] = [10, 9]
        case "no class":
            answers.pop()
        case "no split":
            entry["answers"].pop("real")
        case "no such class":
            answers[0]["predictions"] = re.sub("7", "1000", answers[0]["predictions"], count=1)
        case "surer":
            answers[0]["probabilities"] = re.sub("[0-9]+", "0", answers[0]["probabilities"])
        case "too sure":
            answers[0]["probabilities"] = re.sub(
                "[0-9]+", "10001", answers[0]["probabilities"], count=1
            )
        case "classes twice":
            answers.append(answers[-1])
        case "no classes":
            entry["answers"]["generated"] = []
        case "unknown key":
            entry["note"] = "x"
        case "newer":
            entry["schema"] = "spurbench.entry/3"


@pytest.mark.parametrize(
    "change",
    [
        "better class",
        "better mean",
        "other answer",
        "fewer answers",
        "uneven",
        "two spaces",
        "glued",
        "a sign",
        "no answers",
        "a list",
        "left out",
        "left out beyond",
        "left out from the end",
        "generators",
        "generators that don't add up",
        "too sure",
        "classes twice",
        "no classes",
        "no class",
        "no split",
        "no such class",
        "surer",
        "unknown key",
        "newer",
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(result, tmp_path, change):
    path = tmp_path / "entry.json"
    entries.read(result).write(path)
    content = json.loads(path.read_text())
    tamper(content, change)
    path.write_text(json.dumps(content))
    with pytest.raises(SpurbenchError, match=r"entry\.json is (not a|of spurbench)") as caught:
        entries.read(path)
    assert "\n" not in str(caught.value)


def info(source: str, name: str, architecture: str, **more: str) -> ClassifierInfo:
    return ClassifierInfo(
        spec=name,
        name=name,
        source=source,
        architecture=architecture,
        parameters=1,
        head="imagenet-1k",
        weights_sha256="0",
        **more,
    )


@pytest.mark.parametrize(
    ("source", "name", "architecture", "family", "data"),
    [
        ("timm", "resnet50.a1_in1k", "resnet50", "resnet", "ImageNet-1k"),
        (
            "timm",
            "vit_base_patch16_224.augreg_in21k_ft_in1k",
            "vit_base_patch16_224",
            "vision_transformer",
            "ImageNet-21k + ImageNet-1k",
        ),
        (
            "timm",
            "convnext_large.fb_in22k_ft_in1k_384",
            "convnext_large",
            "convnext",
            "ImageNet-22k + ImageNet-1k",
        ),
        (
            "hf-hub",
            "timm/vit_base_patch16_clip_224.laion2b_ft_in12k_in1k",
            "vit_base_patch16_clip_224",
            "vision_transformer",
            "LAION-2B + ImageNet-12k + ImageNet-1k",
        ),
        ("torchvision", "vit_b_16.IMAGENET1K_V1", "vit_b_16", "vision_transformer", "ImageNet-1k"),
        ("torchvision", "resnet50.IMAGENET1K_V2", "resnet50", "resnet", "ImageNet-1k"),
        ("robustbench", "Salman2020Do_R50", "Salman2020Do_R50", "unknown", "unknown"),
        ("hf-hub", "owner/mine", "owner/mine", "unknown", "unknown"),
        ("folder", "mine", "resnet10t", "resnet", "unknown"),
    ],
)
def test_family_and_training_data_are_read_off_registry_and_tag(
    source, name, architecture, family, data
):
    classifier = info(source, name, architecture)
    assert lineage.family(classifier) == family
    assert lineage.training_data(classifier) == data


def test_own_weights_are_not_those_of_the_tag_and_a_config_may_say_theirs():
    own = info("timm", "resnet50.a1_in1k", "resnet50", checkpoint="x.safetensors")
    assert lineage.training_data(own) == "unknown"
    said = info("folder", "mine", "resnet10t", training_data="biased scenes")
    assert lineage.training_data(said) == "biased scenes"


PUBLISHED = sorted((Path(__file__).parents[2] / "leaderboards").glob("*/*.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_entries_name_the_dataset_s_own_features_and_follow_from_the_answers(path):
    entry = entries.read(path)
    pairs = read_recipe("mini").classes.by_index()
    for split, part in entry.splits.items():
        for c, answers in zip(part.classes, entry.answers[split], strict=True):
            assert (c.name, c.spurious_feature) == (
                pairs[c.index].name,
                pairs[c.index].spurious_feature,
            )
            low, high = wilson_interval(int(answers.fooled[answers.counted].sum()), c.n)
            interval = c.spurious_accuracy_interval
            assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-6)

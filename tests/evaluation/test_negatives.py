"""What a model of yes and no says of classes that are not there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from PIL import Image

import spurbench
from makers.toy import save_noise_images
from makers.vlm import rig, save_vlm
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation.negatives import negatives
from spurbench.leaderboard import entries

CLASSES = (94, 105, 146, 565, 880)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for index in CLASSES:
        save_noise_images(root / f"spurious_class_{index:03d}_name_component_1", 2, index, side=30)
    return root


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Images of each class, told by how bright they are."""
    root = tmp_path_factory.mktemp("positives")
    for index in CLASSES:
        (root / imagenet_wnids()[index]).mkdir()
        for i in range(6):
            picture = Image.new("RGB", (30, 30 + i), (index // 4,) * 3)
            picture.save(root / imagenet_wnids()[index] / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_vlm(tmp_path_factory.mktemp("vlm") / "llava")


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[:4], CLASSES[:2]])
def test_each_image_is_asked_about_another_class_and_each_class_as_often(shown, classes):
    records = [r for r in spurbench.open_positives(shown).records if r.class_index in classes]
    asked = negatives(records)
    assert [r.sha256 for r in asked] == [r.sha256 for r in records]
    assert not any(a.class_index == r.class_index for a, r in zip(asked, records, strict=True))
    assert Counter(r.class_index for r in asked) == Counter(r.class_index for r in records)
    assert {(r.class_index, r.class_name) for r in asked} == {
        (r.class_index, r.class_name) for r in records
    }


def test_of_one_class_there_is_no_other_to_ask_about(shown):
    assert negatives(spurbench.open_positives(shown).records[:6]) == []


@pytest.mark.parametrize(("yes", "accuracy"), [(0.9, 1.0), (0.1, 0.0)])
def test_a_constant_answer_recognises_nothing(yes, accuracy, data, shown, tmp_path):
    folder = rig(save_vlm(tmp_path / "constant"), yes=yes)
    summary = spurbench.evaluate(f"vlm:{folder}", data, positives=shown, device="cpu").summary
    assert (summary.recognition.accuracy, summary.chance) == (accuracy, accuracy)
    assert summary.recognises is False


def seeing(model, *, always=None):
    """The model, but it says yes to images as bright as the class is, and to one class always."""
    classifier = load_classifier(f"vlm:{model}")
    answer = classifier.answer

    def told(pixels, wnids):
        logits = answer(pixels, wnids)
        for row, image, wnid in zip(logits, pixels, wnids, strict=True):
            index = imagenet_wnids().index(wnid)
            yes = index == always or image.getpixel((0, 0)) == (index // 4,) * 3
            row[:] = torch.tensor([-2.0, -1.0] if yes else [-1.0, -2.0])
        return logits

    classifier.answer = told
    return classifier


def test_a_model_that_looks_recognises_the_classes(model, data, shown):
    result = spurbench.evaluate(seeing(model), data, positives=shown)
    assert result.summary.recognition.accuracy == 1
    assert result.summary.chance == 0
    assert result.summary.recognises is True
    rows = result.answers
    assert (rows["source"] == "negative").sum() == (rows["source"] == "positive").sum() == 30
    assert result.summary.n == 10  # they are in no other number


def test_chance_is_the_macro_share_of_yes_on_other_classes(model, data, shown):
    positives = spurbench.open_positives(shown)
    fewer = replace(positives, records=positives.records[:-3])
    summary = spurbench.evaluate(seeing(model, always=105), data, positives=fewer).summary
    assert summary.recognition.accuracy == 1
    assert summary.chance == pytest.approx(1 / 5)  # of the questions it is one in nine


def test_with_one_class_chance_is_one_in_two(model, shown, tmp_path):
    save_noise_images(tmp_path / "spurious_class_094_name_component_1", 3, 0, side=30)
    result = spurbench.evaluate(f"vlm:{model}", tmp_path, positives=shown, device="cpu")
    assert result.summary.chance == 0.5
    assert set(result.answers["source"]) == {"real", "positive"}


def test_a_protocol_that_resizes_images_is_none_for_a_model_that_does_itself(model, data, shown):
    with pytest.raises(SpurbenchError, match=f"{model.name} has a transform of its own"):
        spurbench.evaluate(f"vlm:{model}", data, positives=shown, protocol="neuhaus")


def test_damaged_positives_are_asked_about_once_and_named_once(model, data, shown, tmp_path):
    positives = shutil.copytree(shown, tmp_path / "p")
    broken = positives / imagenet_wnids()[94] / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    result = spurbench.evaluate(f"vlm:{model}", data, positives=positives, device="cpu")
    assert len(result.damaged) == 1
    assert result.answers["source"].value_counts()["negative"] == 29


def test_an_entry_is_held_to_the_answers_about_other_classes(model, data, shown, tmp_path):
    result = spurbench.evaluate(seeing(model, always=105), data, positives=shown)
    path = tmp_path / "entry.json"
    entries.Entry.of(result, result.answers).write(path)
    assert entries.read(path).splits["real"].summary.chance == result.summary.chance
    whole = json.loads(path.read_text())
    changed = json.loads(path.read_text())
    said = changed["splits"]["real"]["summary"]
    said["chance"] = 0.123
    path.write_text(json.dumps(changed))
    with pytest.raises(SpurbenchError, match="chance differs from the answers"):
        entries.read(path)
    del whole["answers"]["negative"]
    path.write_text(json.dumps(whole))
    with pytest.raises(SpurbenchError, match="asked about images of other classes too"):
        entries.read(path)

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from toy import save_noise_images, save_toy_classifier

from spurbench import evaluate as evaluate_module
from spurbench.classes import imagenet_wnids
from spurbench.classifiers import load_classifier
from spurbench.environment import choose_device
from spurbench.errors import SpurbenchError
from spurbench.evaluate import evaluate, predict, summarise
from spurbench.images import open_images, open_positives
from spurbench.recipe import read_recipe
from spurbench.results import Result

REGISTRY = read_recipe("sd15")[1]
HUMMINGBIRD = "spurious_class_094_hummingbird_component_2"
KOALA = "spurious_class_105_koala_component_3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    save_noise_images(root / HUMMINGBIRD, 9, 0, side=40)
    save_noise_images(root / KOALA, 4, 1, side=48)
    return root


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    path = save_toy_classifier(tmp_path_factory.mktemp("c") / "toy", favourite=None, seed=0)
    return load_classifier(str(path))


@pytest.fixture(scope="module")
def images(folder):
    return open_images(str(folder))


@pytest.mark.parametrize("workers", [0, 2])
def test_numbers_do_not_move_with_batch_size_or_workers(classifier, images, workers):
    one = predict(classifier, images.records, batch_size=1)
    for size in (4, 13, 64):
        many = predict(classifier, images.records, batch_size=size, workers=workers)
        assert np.array_equal(one.prediction, many.prediction)
        assert np.array_equal(one.rank, many.rank)
        np.testing.assert_allclose(one.probability, many.probability, atol=1e-6, rtol=1e-5)


def test_predictions_are_the_softmax_of_each_image(classifier, images):
    answers = predict(classifier, images.records)
    for i, record in enumerate(images.records):
        image = Image.open(io.BytesIO(record.read())).convert("RGB")
        pixels = torch.from_numpy(np.array(image.resize((32, 32), Image.Resampling.BICUBIC)))
        logits = classifier(pixels.permute(2, 0, 1)[None].float() / 255)[0].double()
        assert answers.prediction[i] == logits.argmax()
        assert answers.probability[i] == pytest.approx(
            logits.softmax(0)[record.class_index].item(), rel=1e-4
        )
        assert answers.rank[i] == (logits > logits[record.class_index]).sum() + 1


def test_out_of_memory_halves_the_batch_and_says_so(classifier, images, monkeypatch, caplog):
    original, sizes = type(classifier).forward, []

    def forward(self, pixels):
        sizes.append(len(pixels))
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, pixels)

    expected = predict(classifier, images.records)
    monkeypatch.setattr(type(classifier), "forward", forward)
    found = predict(classifier, images.records, batch_size=13)
    assert np.array_equal(expected.rank, found.rank)
    assert sizes == [13, 6, 3, 3, 7, 3, 4]
    assert "going on with 6" in caplog.text
    monkeypatch.setattr(
        type(classifier), "forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError())
    )
    with pytest.raises(SpurbenchError, match=r"not enough memory .* for one image"):
        predict(classifier, images.records, batch_size=1)


def test_the_parquet_lets_one_recompute_the_result(classifier, images, tmp_path):
    result, path, stored = evaluate(classifier, images, REGISTRY, tmp_path)
    assert not stored
    frame = pd.read_parquet(path.with_suffix(".parquet"))
    assert summarise(frame, REGISTRY) == result.splits["real"]
    by_class = frame.assign(fooled=frame["rank"] == 1).groupby("class_index")
    assert result.summary.spurious_accuracy == pytest.approx(by_class["fooled"].mean().mean())
    assert result.summary.mean_probability == pytest.approx(by_class["probability"].mean().mean())
    assert set(frame["image_sha256"]) == {record.sha256 for record in images.records}
    assert [c.n for c in result.splits["real"].classes] == [9, 4]
    assert Result.read(path) == result


def test_a_classifier_that_always_answers_a_class_gets_it_all(images, tmp_path):
    always = load_classifier(str(save_toy_classifier(tmp_path / "c", favourite=105, seed=0)))
    result, _, _ = evaluate(always, images, REGISTRY, tmp_path / "r")
    shares = {c.name: c.spurious_accuracy for c in result.splits["real"].classes}
    assert shares == {"hummingbird": 0.0, "koala": 1.0}
    assert result.summary.spurious_accuracy == 0.5  # macro: 4 of 13 images would be 0.31
    assert (result.summary.worst_class, result.summary.n) == ("koala", 13)


def test_an_unchanged_measurement_is_answered_from_the_store(
    classifier, images, tmp_path, monkeypatch
):
    first, path, _ = evaluate(classifier, images, REGISTRY, tmp_path)
    calls = []
    original = evaluate_module.predict
    monkeypatch.setattr(
        evaluate_module, "predict", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    again, same, stored = evaluate(classifier, images, REGISTRY, tmp_path)
    assert (again, same, stored, calls) == (first, path, True, [])
    _, _, stored = evaluate(classifier, images, REGISTRY, tmp_path, force=True)
    assert (stored, len(calls)) == (False, 1)


@pytest.mark.parametrize("damage", ["parquet missing", "parquet changed", "json cut"])
def test_a_stored_result_that_is_not_whole_is_measured_again(classifier, images, tmp_path, damage):
    first, path, _ = evaluate(classifier, images, REGISTRY, tmp_path)
    match damage:
        case "parquet missing":
            path.with_suffix(".parquet").unlink()
        case "parquet changed":
            path.with_suffix(".parquet").write_bytes(b"other")
        case "json cut":
            path.write_bytes(path.read_bytes()[:100])
    again, same, stored = evaluate(classifier, images, REGISTRY, tmp_path)
    assert (same, stored, again.summary) == (path, False, first.summary)


def test_another_model_dataset_or_preprocessing_is_another_result(classifier, images, tmp_path):
    other = load_classifier(str(save_toy_classifier(tmp_path / "toy", favourite=None, seed=5)))
    save_noise_images(tmp_path / "more" / HUMMINGBIRD, 3, 7)
    more = open_images(str(tmp_path / "more"))
    paths = {
        evaluate(classifier, images, REGISTRY, tmp_path / "r")[1],
        evaluate(other, images, REGISTRY, tmp_path / "r")[1],
        evaluate(classifier, more, REGISTRY, tmp_path / "r")[1],
        evaluate(classifier, images, REGISTRY, tmp_path / "r", preprocess="model")[1],
    }
    assert len(paths) == 4


def test_positives_add_scores(classifier, images, tmp_path):
    wnids = imagenet_wnids()
    for index, count in ((94, 5), (105, 3), (7, 2)):
        save_noise_images(tmp_path / "p" / wnids[index], count, index)
    shown = open_positives(tmp_path / "p")
    result, path, _ = evaluate(classifier, images, REGISTRY, tmp_path / "r", positives=shown)
    classes = {c.name: c for c in result.splits["real"].classes}
    assert {name: c.positives for name, c in classes.items()} == {"hummingbird": 5, "koala": 3}
    assert result.summary.n == 13
    frame = pd.read_parquet(path.with_suffix(".parquet"))
    assert (frame["source"] == "positive").sum() == 8  # class 7 is not measured
    koala = frame[frame["class_index"] == 105]
    true, spurious = (koala.loc[koala["source"] == s, "probability"] for s in ("positive", "real"))
    wins = np.mean([(t > s) + 0.5 * (t == s) for t in true for s in spurious])
    assert classes["koala"].auroc == pytest.approx(wins)
    assert result.summary.auroc == pytest.approx(np.mean([c.auroc for c in classes.values()]))


def test_positives_must_have_every_class(classifier, images, tmp_path):
    save_noise_images(tmp_path / "p" / imagenet_wnids()[94], 2, 0)
    with pytest.raises(SpurbenchError, match="no images of 1 classes: koala"):
        evaluate(classifier, images, REGISTRY, tmp_path, positives=open_positives(tmp_path / "p"))


def test_the_json_holds_numbers_and_says_what_was_used(classifier, images, tmp_path):
    _, path, _ = evaluate(classifier, images, REGISTRY, tmp_path)
    document = json.loads(path.read_text())
    assert next(iter(document)) == "schema" or "summary" in document
    assert document["schema"] == "spurbench.result/1"
    for key in ("spurious_accuracy", "top5", "mean_probability"):
        assert isinstance(document["summary"][key], float)
    assert document["preprocessing"]["mode"] == "whole"
    assert document["environment"]["device"] == "cpu"
    assert document["classifier"]["weights_sha256"] == classifier.info.weights_sha256


def test_a_device_that_is_not_there_is_an_error_not_a_fallback():
    with pytest.raises(SpurbenchError, match="unknown device"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(SpurbenchError, match="'cuda' is not available here; there is cpu"):
            choose_device("cuda")
    assert choose_device("cpu").type == "cpu"

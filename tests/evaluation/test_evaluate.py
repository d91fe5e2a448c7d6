from __future__ import annotations

import io
import json
import shutil
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.load import load_classifier
from spurbench.core.environment import choose_device
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation import panel
from spurbench.evaluation import predict as predict_module
from spurbench.evaluation.evaluate import (
    EvaluationRequest,
    Failed,
    Measured,
    evaluate,
    evaluate_each,
    measure,
)
from spurbench.evaluation.members import Member, members
from spurbench.evaluation.predict import predict
from spurbench.evaluation.results import Result
from spurbench.evaluation.summary import summarise
from spurbench.images import pixels as pixels_module
from spurbench.images.pixels import PixelStore
from spurbench.images.sources import open_images, open_positives

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


@pytest.mark.parametrize("decoders", [0, 2])
def test_numbers_do_not_move_with_batch_size_or_workers(classifier, images, decoders):
    one = predict(classifier, images.records, batch_size=1)
    for size in (4, 13, 64):
        many = predict(classifier, images.records, batch_size=size, decoders=decoders)
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
    measured = evaluate(classifier, EvaluationRequest(images), tmp_path)
    result, path = measured.result, measured.path
    assert not measured.stored
    frame = pd.read_parquet(path.with_suffix(".parquet"))
    assert summarise(frame) == result.splits["real"]
    pd.testing.assert_frame_equal(result.answers, frame)
    pd.testing.assert_frame_equal(Result.read(path).answers, frame)
    by_class = frame.assign(fooled=frame["rank"] == 1).groupby("class_index")
    assert result.summary.spurious_accuracy == pytest.approx(by_class["fooled"].mean().mean())
    assert result.summary.mean_probability == pytest.approx(by_class["probability"].mean().mean())
    assert set(frame["image_sha256"]) == {record.sha256 for record in images.records}
    assert [c.n for c in result.splits["real"].classes] == [9, 4]
    assert Result.read(path) == result


def test_a_classifier_that_always_answers_a_class_gets_it_all(images, tmp_path):
    always = load_classifier(str(save_toy_classifier(tmp_path / "c", favourite=105, seed=0)))
    result = measure(always, EvaluationRequest(images))
    shares = {c.name: c.spurious_accuracy for c in result.splits["real"].classes}
    assert shares == {"hummingbird": 0.0, "koala": 1.0}
    assert result.summary.spurious_accuracy == 0.5  # macro: 4 of 13 images would be 0.31
    assert (result.summary.worst_class, result.summary.n) == ("koala", 13)


def test_an_unchanged_measurement_is_answered_from_the_store(
    classifier, images, tmp_path, monkeypatch
):
    request = EvaluationRequest(images)
    first = evaluate(classifier, request, tmp_path)
    calls = []
    original = predict_module.predict
    monkeypatch.setattr(
        predict_module, "predict", lambda *a, **k: calls.append(1) or original(*a, **k)
    )
    again = evaluate(classifier, request, tmp_path)
    assert (again, calls) == (Measured(first.result, first.path, stored=True), [])
    assert not evaluate(classifier, request, tmp_path, force=True).stored
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["parquet missing", "parquet changed", "json cut"])
def test_a_stored_result_that_is_not_whole_is_measured_again(classifier, images, tmp_path, damage):
    first = evaluate(classifier, EvaluationRequest(images), tmp_path)
    path = first.path
    match damage:
        case "parquet missing":
            path.with_suffix(".parquet").unlink()
        case "parquet changed":
            path.with_suffix(".parquet").write_bytes(b"other")
        case "json cut":
            path.write_bytes(path.read_bytes()[:100])
    again = evaluate(classifier, EvaluationRequest(images), tmp_path)
    assert (again.path, again.stored) == (path, False)
    assert again.result.summary == first.result.summary


def test_another_model_dataset_preprocessing_or_name_is_another_result(
    classifier, images, tmp_path
):
    other = load_classifier(str(save_toy_classifier(tmp_path / "toy", favourite=None, seed=5)))
    save_noise_images(tmp_path / "more" / HUMMINGBIRD, 3, 7)
    more = open_images(str(tmp_path / "more"))
    renamed = replace(
        images, records=tuple(replace(r, spurious_feature="red flower") for r in images.records)
    )
    paths = {
        evaluate(asked, request, tmp_path / "r").path
        for asked, request in (
            (classifier, EvaluationRequest(images)),
            (other, EvaluationRequest(images)),
            (classifier, EvaluationRequest(more)),
            (classifier, EvaluationRequest(images, preprocess="model")),
            (classifier, EvaluationRequest(renamed)),
        )
    }
    assert len(paths) == 5


def test_a_gpu_is_given_more_images_at_a_time():
    size = Classifier.default_batch_size.fget
    sizes = [size(SimpleNamespace(device=torch.device(kind))) for kind in ("cuda", "cpu", "mps")]
    assert sizes == [128, 32, 32]


def test_positives_add_scores(classifier, images, tmp_path):
    wnids = imagenet_wnids()
    for index, count in ((94, 5), (105, 3), (7, 2)):
        save_noise_images(tmp_path / "p" / wnids[index], count, index)
    shown = open_positives(tmp_path / "p")
    result = measure(classifier, EvaluationRequest(images, positives=shown))
    classes = {c.name: c for c in result.splits["real"].classes}
    assert {name: c.recognition.n for name, c in classes.items()} == {"hummingbird": 5, "koala": 3}
    assert (result.positives, result.dataset) == (shown.info, images.info)
    assert result.summary.n == 13
    frame = result.answers
    assert (frame["source"] == "positive").sum() == 8  # class 7 is not measured
    koala = frame[frame["class_index"] == 105]
    true, spurious = (koala.loc[koala["source"] == s, "probability"] for s in ("positive", "real"))
    wins = np.mean([(t > s) + 0.5 * (t == s) for t in true for s in spurious])
    assert classes["koala"].recognition.auroc == pytest.approx(wins)
    areas = [c.recognition.auroc for c in classes.values()]
    assert result.summary.recognition.auroc == pytest.approx(np.mean(areas))


def test_positives_must_have_every_class(classifier, images, tmp_path):
    save_noise_images(tmp_path / "p" / imagenet_wnids()[94], 2, 0)
    with pytest.raises(SpurbenchError, match="no readable images of 1 classes: koala"):
        EvaluationRequest(images, positives=open_positives(tmp_path / "p"))


def test_the_json_holds_numbers_and_says_what_was_used(classifier, images, tmp_path):
    path = evaluate(classifier, EvaluationRequest(images), tmp_path).path
    document = json.loads(path.read_text())
    assert document["schema"] == "spurbench.result/2"
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


def test_several_classifiers_decode_each_image_once_and_give_the_same_numbers(
    folder, tmp_path, monkeypatch
):
    spoilt = tmp_path / "images"
    shutil.copytree(folder, spoilt)
    (spoilt / KOALA / "1.png").write_bytes(b"text")
    (spoilt / KOALA / "3.png").write_bytes((spoilt / KOALA / "3.png").read_bytes()[:-600])
    specs = [
        str(save_toy_classifier(tmp_path / n, favourite=None, seed=i)) for i, n in enumerate("ab")
    ]
    found = open_images(str(spoilt), decode=False)
    alone = {}
    for spec in specs:
        path = evaluate(load_classifier(spec), EvaluationRequest(found), tmp_path / "alone").path
        alone[path.name] = path
    decoded = []
    real = pixels_module.decode_rgb
    monkeypatch.setattr(
        pixels_module, "decode_rgb", lambda data: decoded.append(data) or real(data)
    )
    request = EvaluationRequest(found, batch_size=5)
    measured = list(evaluate_each(members(specs, None, None), request, tmp_path / "both"))
    assert len(decoded) == 13
    for one in measured:
        assert not one.stored
        assert {d.path for d in one.result.damaged} == {f"{KOALA}/1.png", f"{KOALA}/3.png"}
        assert one.result.summary.n == 11
        mine = pd.read_parquet(one.path.with_suffix(".parquet"))
        theirs = pd.read_parquet(alone[one.path.name].with_suffix(".parquet"))
        assert not set(mine["path"]) & {f"{KOALA}/1.png", f"{KOALA}/3.png"}
        np.testing.assert_allclose(mine.pop("probability"), theirs.pop("probability"), atol=1e-6)
        pd.testing.assert_frame_equal(mine, theirs)


def test_several_classifiers_give_the_same_bytes_as_each_alone(images, tmp_path):
    specs = [
        str(save_toy_classifier(tmp_path / n, favourite=None, seed=s)) for s, n in enumerate("ab")
    ]
    request = EvaluationRequest(images, batch_size=4)
    together = list(evaluate_each(members(specs, None, None), request, tmp_path / "both"))
    for one in together:
        path = evaluate(
            load_classifier(one.result.classifier.spec),
            replace(request, decoders=0),
            tmp_path / "alone",
        ).path
        assert path.name == one.path.name
        alone = path.with_suffix(".parquet").read_bytes()
        assert alone == one.path.with_suffix(".parquet").read_bytes()


def test_the_panel_decodes_each_image_once(images, tmp_path, monkeypatch):
    asked = [
        load_classifier(str(save_toy_classifier(tmp_path / n, favourite=None, seed=s)))
        for s, n in enumerate("abc")
    ]
    expected = [predict(classifier, images.records) for classifier in asked]
    decoded = []
    real = pixels_module.decode_rgb
    monkeypatch.setattr(pixels_module, "decode_rgb", lambda data: decoded.append(1) or real(data))
    answers = panel.ask(asked, images.records)
    assert len(decoded) == len(images.records)
    for position, member in enumerate(expected):
        assert [a[position].probability for a in answers] == member.probability.tolist()


def test_classifiers_of_other_geometry_get_pixels_of_their_own(images, tmp_path):
    small = load_classifier(str(save_toy_classifier(tmp_path / "s", favourite=None, seed=0)))
    folder = save_toy_classifier(tmp_path / "l", favourite=None, seed=0)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("[3, 32, 32]", "[3, 48, 48]"))
    large = load_classifier(str(folder))
    store = PixelStore(tmp_path)
    assert (small.input_size, large.input_size) == ((32, 32), (48, 48))
    for classifier in (small, large, small, large):
        kept = predict(classifier, images.records, store=store)
        assert kept.probability.tolist() == predict(classifier, images.records).probability.tolist()


def test_without_room_for_pixels_images_are_decoded_again_and_it_says_so(
    classifier, images, tmp_path, caplog
):
    resource = pytest.importorskip("resource")
    expected = predict(classifier, images.records)
    store = PixelStore(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * 3 * 32 * 32, hard))  # 5 of 13 images
    try:
        for _ in range(2):
            found = predict(classifier, images.records, batch_size=2, store=store)
            np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caplog.text.count("no room in") == 1
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 0


def test_damaged_images_are_no_part_of_the_measured_set(classifier, images, folder, tmp_path):
    spoilt = tmp_path / "images"
    shutil.copytree(folder, spoilt)
    (spoilt / KOALA / "junk.png").write_bytes(b"text")
    found = open_images(str(spoilt), decode=False)
    result = measure(classifier, EvaluationRequest(found))
    assert result.dataset.fingerprint == images.info.fingerprint
    assert found.info.fingerprint != images.info.fingerprint
    assert [d.path for d in result.damaged] == [f"{KOALA}/junk.png"]


def test_a_crash_of_one_classifier_does_not_lose_the_others(images, tmp_path, monkeypatch):
    good = str(save_toy_classifier(tmp_path / "good", favourite=94, seed=0))
    load = Member.load

    def crash(member, device):
        if member.spec == "crash":
            raise RuntimeError("shapes differ\nat line 3")
        return load(member, device)

    monkeypatch.setattr(Member, "load", crash)
    asked = [Member(spec, spec) for spec in (good, "crash", good)]
    first, second, third = evaluate_each(asked, EvaluationRequest(images), tmp_path / "r")
    assert second == Failed("crash", "RuntimeError: shapes differ")
    assert (first.stored, third.stored) == (False, True)


def test_results_that_can_not_be_written_are_known_before_the_measuring(
    classifier, images, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(predict_module, "predict", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(SpurbenchError, match=r"results can't be written to .*Not a directory"):
        evaluate(classifier, EvaluationRequest(images), tmp_path / "file" / "r")


@pytest.mark.parametrize("decoders", [0, 3])
def test_threads_stop_when_the_reader_does(images, classifier, decoders):
    before = threading.active_count()
    batches = pixels_module.decode(
        images.records, classifier.preprocessing(), batch_size=2, decoders=decoders
    )
    assert next(batches).positions.tolist() == [0, 1]
    batches.close()
    assert threading.active_count() == before


def test_decoding_in_threads_leaves_the_warning_filters_alone(images, classifier):
    before = list(warnings.filters)
    for _ in pixels_module.decode(
        images.records, classifier.preprocessing(), batch_size=1, decoders=4
    ):
        pass
    assert warnings.filters == before


def test_one_classifier_that_fails_does_not_stop_the_others(images, tmp_path):
    good = str(save_toy_classifier(tmp_path / "good", favourite=94, seed=0))
    asked = members(["resnet5000", good], None, None)
    first, second = evaluate_each(asked, EvaluationRequest(images), tmp_path / "r")
    assert isinstance(first, Failed) and "nearest:" in first.reason
    assert second.result.summary.n == 13 and second.path.is_file()


def test_images_that_are_all_damaged_are_an_error(classifier, tmp_path):
    (tmp_path / "d" / HUMMINGBIRD).mkdir(parents=True)
    (tmp_path / "d" / HUMMINGBIRD / "0.png").write_bytes(b"text")
    found = open_images(str(tmp_path / "d"), decode=False)
    with pytest.raises(SpurbenchError, match=r"all 1 images are damaged; .*0\.png"):
        measure(classifier, EvaluationRequest(found))


def test_a_panel_file_lists_classifiers_from_its_own_folder(tmp_path):
    toy = save_toy_classifier(tmp_path / "toy", favourite=None, seed=0)
    weights = tmp_path / "p" / "weights.safetensors"
    weights.parent.mkdir()
    model = timm.create_model("resnet10t", num_classes=1000)
    save_file(model.state_dict(), weights)
    file = tmp_path / "p" / "panel.toml"
    file.write_text(f'classifiers = ["{toy}", "resnet10t=weights.safetensors"]')
    loaded = [member.load("cpu") for member in members([], file, None)]
    assert [classifier.info.architecture for classifier in loaded] == ["resnet10t"] * 2
    assert loaded[1].info.checkpoint == "weights.safetensors"


@pytest.mark.parametrize(
    ("specs", "text", "message"),
    [
        ([], None, "give --model SPEC or --panel FILE"),
        (["a", "a"], None, "a is asked for twice"),
        ([], "classifiers = [", "is not valid TOML"),
        ([], 'models = ["a"]', "panel.toml: key 'classifiers' is missing"),
        ([], "classifiers = []", "classifiers: .*at least 1"),
    ],
)
def test_faults_of_a_panel_are_one_line(tmp_path, specs, text, message):
    file = tmp_path / "panel.toml" if text else None
    if text:
        file.write_text(text)
    with pytest.raises(SpurbenchError, match=message) as error:
        members(specs, file, None)
    assert "\n" not in str(error.value)


def test_one_checkpoint_is_not_taken_for_two_classifiers(tmp_path):
    with pytest.raises(SpurbenchError, match="--model SPEC=CHECKPOINT"):
        members(["a", "b"], None, tmp_path / "w.pt")

"""Image-text models, asked whether a class is there."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    ViTConfig,
    ViTForImageClassification,
)

import spurbench
from makers.toy import save_noise_images
from makers.vlm import IMAGES, rig, save_vlm
from spurbench.classifiers.load import check_spec, load_classifier
from spurbench.classifiers.questions import YesNoClassifier, question
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation.evaluate import EvaluationRequest, evaluate
from spurbench.evaluation.predict import predict
from spurbench.images.sources import open_images

FAMILIES = ("llava", "idefics3", "qwen2-vl")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Of three classes whose names are of different lengths, and of different shapes."""
    root = tmp_path_factory.mktemp("images")
    for number, (folder, count) in enumerate(
        {
            "spurious_class_094_hummingbird_component_2": 4,
            "spurious_class_146_albatross_component_1": 2,
            "spurious_class_565_freight_car_component_1": 3,
        }.items()
    ):
        save_noise_images(root / folder, count, number, side=40 + 9 * number)
    wide = Image.open(next((root / folder).iterdir())).resize((90, 50))
    wide.save(root / folder / "wide.png")
    return root


@pytest.fixture(scope="module")
def images(photographs):
    return open_images(str(photographs))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root = tmp_path_factory.mktemp("vlm")
    return {family: save_vlm(root / family, family) for family in FAMILIES}


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("hummingbird", "a hummingbird"),
        ("albatross", "an albatross"),
        ("hourglass", "an hourglass"),
        ("unicycle", "a unicycle"),
        ("umbrella", "an umbrella"),
        ("European fire salamander", "a European fire salamander"),
        ("iPod", "an iPod"),
        ("Egyptian cat", "an Egyptian cat"),
        ("crane (n02012849)", "a crane"),
    ],
)
def test_the_question_is_in_english(name, asked):
    wnid = imagenet_wnids()[imagenet_names().index(name)]
    assert question(wnid) == f"Is there {asked} in this image? Answer yes or no."


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_the_shares_of_the_next_token_image_by_image(family, saved, images):
    """Against the model alone, one image at a time, so without padding."""
    classifier = load_classifier(f"vlm:{saved[family]}")
    answers = predict(classifier, images.records, batch_size=4)
    model = AutoModelForImageTextToText.from_pretrained(saved[family]).eval()
    processor = AutoProcessor.from_pretrained(saved[family])
    words = [
        processor.tokenizer.decode([i]).strip().lower() for i in range(len(processor.tokenizer))
    ]
    for i, record in enumerate(images.records):
        wnid = imagenet_wnids()[record.class_index]
        inputs = processor(
            images=[Image.open(io.BytesIO(record.read())).convert("RGB")],
            text=[f"user: {IMAGES[family]}{question(wnid)} assistant:"],
            return_tensors="pt",
        )
        with torch.inference_mode():
            shares = model(**inputs).logits[0, -1].softmax(0)
        yes, no = (
            sum(float(share) for share, word in zip(shares, words, strict=True) if word == wanted)
            for wanted in ("yes", "no")
        )
        assert yes > 0 and no > 0
        assert answers.probability[i] == pytest.approx(yes / (yes + no), rel=1e-4)
    assert len(set(answers.probability.round(6))) > len(images.records) / 2  # the images are seen


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_do_not_move_with_the_batch_size(family, saved, images):
    classifier = load_classifier(f"vlm:{saved[family]}")
    one = predict(classifier, images.records, batch_size=1, decoders=0)
    for size in (3, 4, 64):
        many = predict(classifier, images.records, batch_size=size, decoders=2)
        np.testing.assert_allclose(one.probability, many.probability, atol=1e-6)
        assert np.array_equal(one.rank, many.rank)


@pytest.mark.parametrize(("yes", "called"), [(0.8, True), (0.51, True), (0.49, False)])
def test_spurious_accuracy_is_the_share_of_yes(yes, called, photographs, images, tmp_path):
    folder = rig(save_vlm(tmp_path / "rigged"), yes=yes)
    result = spurbench.evaluate(f"vlm:{folder}", photographs, device="cpu")
    answers = result.answers
    assert answers["probability"].to_numpy() == pytest.approx(yes, abs=1e-5)
    for i, record in enumerate(images.records):
        answer = answers.iloc[i]
        wnid = imagenet_wnids()[record.class_index]
        assert answer["prediction"] == (record.class_index if called else -1)
        assert answer["predicted_wnid"] == (wnid if called else "no")
        assert answer["rank"] == (1 if called else 2)
    assert result.summary.spurious_accuracy == float(called)
    assert result.summary.mean_probability == pytest.approx(yes, abs=1e-5)
    info = result.classifier
    assert (info.source, info.head, info.name) == ("vlm", "yes/no", "rigged")
    assert info.architecture == "LlavaForConditionalGeneration"


def test_a_tie_is_a_no(saved, images):
    classifier = load_classifier(f"vlm:{saved['llava']}")
    classifier.answer = lambda pixels, wnids: torch.zeros(len(wnids), 2)
    answers = predict(classifier, images.records)
    assert set(answers.probability) == {0.5}
    assert set(answers.predicted_wnid) == {"no"} and set(answers.rank) == {2}


def test_the_result_says_what_was_asked_and_how_images_were_prepared(saved):
    classifier = load_classifier(f"vlm:{saved['llava']}")
    said = classifier.preprocessing("whole")
    assert said == classifier.preprocessing("model")
    assert (said.mode, said.crop) == ("model", None)
    assert said.prompt == (
        "user: <image>Is there a KLASS in this image? Answer yes or no. assistant:"
    )
    assert sorted(said.answers["yes"]) == ["YES", "Yes", "yes", "ĠYES", "ĠYes", "Ġyes"]
    assert sorted(said.answers["no"]) == ["No", "no", "ĠNo", "Ġno"]
    assert '"shortest_edge": 28' in said.transform
    assert str(saved["llava"]) not in said.model_dump_json()


def test_another_template_is_another_measurement(saved, images, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "m" / "llava")
    request = EvaluationRequest(images)
    first = evaluate(load_classifier(f"vlm:{folder}"), request, tmp_path / "out")
    again = evaluate(load_classifier(f"vlm:{folder}"), request, tmp_path / "out")
    assert again.stored and again.result == first.result
    template = folder / "chat_template.jinja"
    template.write_text("Look closely. " + template.read_text())
    other = evaluate(load_classifier(f"vlm:{folder}"), request, tmp_path / "out")
    assert not other.stored and other.path != first.path
    assert other.result.preprocessing.prompt.startswith("Look closely. user:")


def test_a_model_without_a_chat_template_is_asked_the_bare_question(images, tmp_path):
    folder = save_vlm(tmp_path / "bare", template=False)
    classifier = load_classifier(f"vlm:{folder}")
    prompt = classifier.preprocessing().prompt
    assert prompt == "<image>Is there a KLASS in this image? Answer yes or no."
    assert len(predict(classifier, images.records).rank) == len(images.records)


def test_out_of_memory_halves_images_and_questions_together(saved, images, monkeypatch, caplog):
    classifier = load_classifier(f"vlm:{saved['llava']}")
    expected = predict(classifier, images.records, batch_size=1)
    original, sizes = YesNoClassifier.answer, []

    def answer(self, pixels, wnids):
        assert len(pixels) == len(wnids)
        sizes.append(len(pixels))
        if len(pixels) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, pixels, wnids)

    monkeypatch.setattr(YesNoClassifier, "answer", answer)
    found = predict(classifier, images.records, batch_size=10)
    np.testing.assert_allclose(expected.probability, found.probability, atol=1e-6)
    assert sizes == [10, 5, 2, 3, 5, 2, 3]
    assert "going on with 5" in caplog.text


def test_damaged_images_are_left_out_and_named(saved, photographs, tmp_path):
    folder = shutil.copytree(photographs, tmp_path / "images")
    broken = next((folder / "spurious_class_094_hummingbird_component_2").iterdir())
    broken.write_bytes(broken.read_bytes()[:60])
    found = spurbench.open_images(folder)
    classifier = load_classifier(f"vlm:{saved['llava']}")
    whole = predict(classifier, spurbench.open_images(photographs).records, batch_size=2)
    answers = predict(classifier, found.records, batch_size=1)
    (position,) = answers.damaged
    np.testing.assert_allclose(
        np.delete(whole.probability, position), answers.probability, atol=1e-6
    )


def test_the_command_line_measures_one(saved, photographs, tmp_path):
    images = f"--data {photographs} --output {tmp_path} --device cpu"
    run = CliRunner().invoke(main, f"eval --model vlm:{saved['qwen2-vl']} {images}")
    assert run.exit_code == 0, run.output
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["classifier"]["head"] == "yes/no"


def test_it_has_no_labels(saved):
    with pytest.raises(SpurbenchError, match="no outputs to be labelled"):
        load_classifier(f"vlm:{saved['llava']}", labels=("hummingbird", "koala"))


def test_it_is_no_phi(saved):
    classifier = load_classifier(f"vlm:{saved['llava']}")
    pixels = torch.zeros(1, 3, 8, 8)
    for use in (classifier.features, classifier, lambda _: classifier.head_weight):
        with pytest.raises(SpurbenchError, match="answers questions and has no features"):
            use(pixels)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("config.json", r"no config.json"),
        ("model.safetensors", r"no weights as safetensors"),
        ("processor_config.json", r"no image processor \(processor_config.json or preproc"),
        ("tokenizer*", r"no tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_part_is_told_so_before_anything_loads(lost, said, saved, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "llava")
    for path in folder.glob(lost):
        path.unlink()
    with pytest.raises(SpurbenchError, match=said):
        check_spec(f"vlm:{folder}")


@pytest.mark.parametrize(
    "name", ["", "nowhere", "/no/such/folder", "a/b/c", "../x/y", "a/b@", "\0"]
)
def test_a_name_of_nothing_is_refused(name):
    with pytest.raises(SpurbenchError, match="neither a folder nor vlm:OWNER/NAME"):
        check_spec(f"vlm:{name}")


def test_weights_that_only_unpickling_could_read_are_not_taken(saved, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "llava")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(SpurbenchError, match="can't be loaded"):
        load_classifier(f"vlm:{folder}")


def test_weights_that_are_not_there_are_not_made_up(saved, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "llava")
    weights = load_file(folder / "model.safetensors")
    lost = next(key for key in weights if "down_proj" in key)
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SpurbenchError, match=r"lacks the weights of 1 tensors, e.g. .*down_proj"):
        load_classifier(f"vlm:{folder}")


def test_code_in_a_folder_is_not_run(saved, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "llava")
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "theirs"
    config["auto_map"] = {
        "AutoConfig": "theirs.Config",
        "AutoModelForImageTextToText": "theirs.Model",
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpurbenchError, match="can't be loaded") as caught:
        load_classifier(f"vlm:{folder}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_other_models_are_refused(saved, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "vit")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    vit = ViTForImageClassification(
        ViTConfig(**sizes, intermediate_size=8, image_size=28, patch_size=14)
    )
    vit.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    with pytest.raises(SpurbenchError, match="can't be loaded as an image-text model") as caught:
        load_classifier(f"vlm:{folder}")
    assert "\n" not in str(caught.value)


def test_a_vocabulary_without_yes_is_refused(tmp_path):
    folder = save_vlm(tmp_path / "mute", words="maybe no")
    with pytest.raises(SpurbenchError, match=r"mute has no token that spells 'yes'"):
        load_classifier(f"vlm:{folder}")


def test_a_model_that_does_not_fit_its_processor_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved["llava"], tmp_path / "llava")
    config = json.loads((folder / "processor_config.json").read_text())
    config["patch_size"] = 7
    (folder / "processor_config.json").write_text(json.dumps(config))
    with pytest.raises(SpurbenchError, match="can't be asked about an image: ValueError"):
        load_classifier(f"vlm:{folder}")

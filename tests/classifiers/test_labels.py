from __future__ import annotations

import json
import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

from makers.toy import save_toy_classifier
from spurbench import api
from spurbench.classifiers.labels import read_labels, wnids_of
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_lemmas, imagenet_wnids
from spurbench.evaluation import known
from spurbench.evaluation.members import Member, members
from spurbench.evaluation.request import EvaluationRequest
from spurbench.images.records import DatasetInfo, ImageSet

TEN = (94, 105, 565, 2, 14, 42, 50, 58, 80, 81)


@pytest.fixture
def ten(tmp_path):
    """A folder in timm's format with ten outputs and no labels."""
    folder = save_toy_classifier(tmp_path / "ten", favourite=None, seed=0)
    config = json.loads((folder / "config.json").read_text())
    network = timm.create_model("resnet10t", num_classes=10, **config["model_args"])
    save_file(network.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"num_classes": 10}))
    return folder


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.txt", "n01833805\nkoala\n565\n"),
        ("l.txt", "n01833805 \r\n koala\r\n565"),
        ("l.json", ["n01833805", "koala", 565]),
        ("l.json", {"1": "koala", "0": "n01833805", "2": "565"}),
        ("l.json", {"0": "n01833805", "1": "koala", "2": 565}),
        ("l.json", {"koala": 1, "n01833805": 0, "freight car": 2}),
        ("l.json", {"0": ["n01833805", "x"], "1": ["koala", "y"], "2": [565]}),
    ],
)
def test_labels_are_read_from_a_file(name, content, tmp_path):
    read = wnids_of(read_labels(write(tmp_path / name, content)), "mine")
    assert read == tuple(imagenet_wnids()[i] for i in (94, 105, 565))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("l.txt", "", "output 0 has none"),
        ("l.txt", "koala\n\ntench\n", "output 1 has none"),
        ("l.json", [], "there are none"),
        ("l.json", 5, "there are none"),
        ("l.json", {"0": "koala", "2": "tench"}, "output 1 has none"),
        ("l.json", ["koala", None], "output 1 has none"),
        ("l.json", ["koala", True], "output 1 has none"),
        ("l.json", "{", "is not valid JSON"),
    ],
)
def test_a_file_without_a_label_for_each_output_is_one_line(name, content, said, tmp_path):
    with pytest.raises(SpurbenchError, match=said) as caught:
        read_labels(write(tmp_path / name, content))
    assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(SpurbenchError, match="no labels at"):
        read_labels(tmp_path / "none.txt")


def test_a_name_that_two_classes_have_is_that_of_its_own_place():
    names = [lemmas[0] for lemmas in imagenet_lemmas()]
    assert names[134] == names[517] == "crane"
    assert wnids_of(names, "mine") == imagenet_wnids()
    assert wnids_of(["koala", "crane"], "mine")[1] == "crane"
    with pytest.raises(SpurbenchError, match="two outputs for maillot"):
        wnids_of(names[::-1], "mine")


def test_labels_that_contradict_each_other_are_none():
    assert wnids_of(["koala", "tench, goldfish", "tench, sofa of mine"], "mine")[1:] == (
        "tench, goldfish",
        imagenet_wnids()[0],
    )


def test_what_is_no_class_of_imagenets_is_listed_in_part(caplog):
    with caplog.at_level(logging.WARNING):
        wnids_of(["koala", *(f"chair {i}" for i in range(30))], "mine")
    assert "30 of 31 labels are no class of ImageNet's: chair 0, " in caplog.text
    assert "chair 9, ..." in caplog.text and "chair 10" not in caplog.text


@pytest.mark.parametrize("key", ["label_names", "labels", "pretrained_cfg"])
def test_labels_in_a_timm_folder_serve_a_head_of_any_size(key, ten):
    config = json.loads((ten / "config.json").read_text())
    labels = [imagenet_wnids()[i] for i in TEN]
    if key == "pretrained_cfg":
        config[key]["label_names"] = labels
    else:
        config[key] = labels
    write(ten / "config.json", config)
    classifier = load_classifier(str(ten))
    assert classifier.wnids == tuple(labels)
    assert classifier.info.head.startswith("own labels (10, ")


def test_labels_in_a_timm_folder_are_believed_of_a_thousand_too(tmp_path):
    folder = save_toy_classifier(tmp_path / "c", favourite=None, seed=0)
    config = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", config | {"label_names": list(imagenet_wnids()[::-1])})
    assert load_classifier(str(folder)).wnids == imagenet_wnids()[::-1]


def test_a_head_without_labels_says_how_to_give_them(ten):
    with pytest.raises(SpurbenchError, match=r"head of 10 outputs and no labels.*--labels FILE"):
        load_classifier(str(ten))


def test_labels_of_ones_own_are_taken_for_a_folder(ten, tmp_path):
    labels = write(tmp_path / "l.txt", "\n".join(str(i) for i in TEN))
    (member,) = members([str(ten)], None, None, labels)
    classifier = member.load("cpu")
    assert classifier.columns([imagenet_wnids()[i] for i in TEN]).tolist() == list(range(10))
    assert api.load_classifier(str(ten), labels=TEN, device="cpu").wnids == classifier.wnids
    with pytest.raises(
        SpurbenchError, match=r"has no class n02104029 \(kuvasz\), n\d+ \(sundial\)"
    ):
        classifier.columns([imagenet_wnids()[i] for i in (94, 222, 835)])


@pytest.mark.parametrize("spec", ["resnet10t", "torchvision:shufflenet_v2_x0_5"])
def test_a_checkpoint_with_a_head_of_ones_own_is_loaded_with_its_labels(spec, tmp_path):
    network = (
        timm.create_model("resnet10t", num_classes=10)
        if spec == "resnet10t"
        else models.get_model("shufflenet_v2_x0_5", num_classes=10)
    )
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    classifier = load_classifier(spec, checkpoint=tmp_path / "mine.pth", labels=TEN)
    assert classifier.wnids == tuple(imagenet_wnids()[i] for i in TEN)
    assert classifier.info.name == spec.rpartition(":")[2]


def test_labels_go_with_one_classifier(tmp_path):
    labels = write(tmp_path / "l.txt", "koala\n")
    with pytest.raises(SpurbenchError, match="--labels goes with one --model"):
        members(["mini:vit", "mini:resnet_v1"], None, None, labels)


def test_other_labels_are_another_classifier_to_what_is_stored(ten):
    one, two = (Member(str(ten), str(ten), labels=labels) for labels in (TEN, TEN[::-1]))
    assert known.key(one) != known.key(two) and known.key(one) is not None
    info = DatasetInfo(name="d", kind="folder", fingerprint="0" * 64)
    request = EvaluationRequest(ImageSet((), (), info))
    stems = [request.file_stem(known.Identity.of(m.load("cpu"))) for m in (one, two, one)]
    assert stems[0] == stems[2] != stems[1]

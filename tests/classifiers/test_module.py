from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from makers.toy import noise_images, save_toy_classifier
from spurbench.classifiers.load import load_classifier
from spurbench.classifiers.module import from_module
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation.predict import predict
from spurbench.images.pixels import PixelStore
from spurbench.images.records import ImageRecord


def network(outputs: int = 1000, side: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(3 * side**2, outputs))


def records(count: int = 5, class_index: int = 94) -> list[ImageRecord]:
    found = []
    for i, image in enumerate(noise_images(count, 0, side=40)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        found.append(
            ImageRecord(
                path=f"{i}.png",
                class_index=class_index,
                source="real",
                sha256=str(i),
                read=buffer.getvalue,
                class_name="hummingbird",
            )
        )
    return found


def test_a_network_is_recorded_as_itself():
    net = network()
    info = from_module(net, name="mine").info
    assert (info.spec, info.name, info.source) == ("module:mine", "mine", "module")
    assert (info.architecture, info.head, info.checkpoint) == ("Sequential", "imagenet-1k", None)
    assert info.parameters == sum(p.numel() for p in net.parameters())
    other = network()
    with torch.no_grad():
        other[2].bias[3] += 1e-3
    assert from_module(other, name="mine").info.weights_sha256 != info.weights_sha256


@pytest.mark.parametrize(
    "name",
    ["resnet50.a1_in1k", "resnet50.IMAGENET1K_V1", "vit_base_patch16_224.orig_in21k_ft_in1k"],
)
def test_a_network_does_not_go_by_the_name_of_published_weights(name):
    with pytest.raises(SpurbenchError, match="name of published weights"):
        from_module(network(), name=name)
    assert from_module(network(), name="resnet50.mine").info.name == "resnet50.mine"


def test_the_network_that_was_given_stays_as_it_was():
    net = network().double().train()
    weight = net[2].weight
    from_module(net, name="mine")
    assert net.training and weight is net[2].weight
    assert weight.dtype == torch.float64 and weight.requires_grad


def test_pixels_are_normalised_as_imagenets_are_unless_said_otherwise():
    pixels = torch.rand(2, 3, 224, 224)
    net = network()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    classifier = from_module(net, name="mine")
    assert classifier.input_size == (224, 224)
    expected = net((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    torch.testing.assert_close(classifier(pixels), expected)
    own = from_module(net, name="mine", mean=(0.5,) * 3, std=(0.25,) * 3, input_size=32)
    assert (own.input_size, own.preprocessing().resize) == ((32, 32), (32,))
    torch.testing.assert_close(own(pixels), net((pixels - 0.5) / 0.25))


def test_what_a_timm_network_says_of_its_images_is_used(tmp_path):
    net = timm.create_model("test_efficientnet")
    own = from_module(net, name="mine")
    assert own.input_size == (160, 160)
    assert own.preprocessing("model").mean == tuple(net.pretrained_cfg["mean"])
    assert from_module(net, name="mine", input_size=96).input_size == (96, 96)
    loaded = load_classifier(str(save_toy_classifier(tmp_path / "c", favourite=None, seed=0)))
    again = from_module(loaded.network, name="again")
    assert again.info.weights_sha256 == loaded.info.weights_sha256


@pytest.mark.parametrize("mode", ["whole", "model"])
def test_a_transform_of_the_users_own_makes_the_pixels(mode, tmp_path):
    net = network().eval()
    own = v2.Compose(
        [
            v2.Resize(24),
            v2.CenterCrop(20),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.1, 0.2, 0.3], [0.7, 0.8, 0.9]),
        ]
    )
    classifier = from_module(net, name="mine", transform=own)
    images = records()
    found = predict(classifier, images, preprocess=mode, store=PixelStore(tmp_path))
    with torch.inference_mode():
        stack = torch.stack([own(Image.open(io.BytesIO(i.read())).convert("RGB")) for i in images])
        probability = net(stack).softmax(dim=1)[:, 94].numpy()
    np.testing.assert_allclose(found.probability, probability, rtol=1e-5)
    said = classifier.preprocessing(mode)
    assert (said.mode, said.crop) == ("model", (20, 20))
    assert "CenterCrop(size=(20, 20))" in said.transform and "\n" not in said.transform


def test_without_a_transform_nothing_new_is_in_the_record():
    dumped = from_module(network(), name="mine").preprocessing().model_dump(mode="json")
    assert set(dumped) == {"mode", "resize", "crop", "interpolation", "mean", "std"}


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda image: 1 / 0, "transform fails: division by zero"),
        (lambda image: image, "gives no tensor"),
        (lambda image: torch.zeros(1, 8, 8), "gives no tensor"),
        (v2.PILToTensor(), "several sizes"),
    ],
)
def test_a_transform_that_does_not_fit_is_one_line(function, said):
    with pytest.raises(SpurbenchError, match=said) as caught:
        predict(from_module(network(), name="mine", transform=function), records())
    assert "\n" not in str(caught.value)


def test_a_transform_leaves_nothing_else_to_say():
    with pytest.raises(SpurbenchError, match="mean is the transform's to say"):
        from_module(network(), name="mine", transform=lambda i: i, mean=(0, 0, 0))


def test_labels_may_be_wnids_names_or_indices():
    labels = ["n01833805", "Koala bear", "great_grey_owl", 565, "sofa of mine", "crane bird"]
    classifier = from_module(network(6), name="mine", labels=labels)
    wnids, names = imagenet_wnids(), imagenet_names()
    assert classifier.wnids[:4] == (
        wnids[94],
        wnids[105],
        wnids[names.index("great grey owl")],
        wnids[565],
    )
    assert classifier.wnids[4] == "sofa of mine"
    assert classifier.columns([wnids[565], wnids[94]]).tolist() == [3, 0]
    assert classifier.info.head.startswith("own labels (6, ")
    found = predict(classifier, records())
    assert set(found.predicted_wnid) <= set(classifier.wnids)


def test_labels_in_imagenets_order_are_imagenets_head():
    classifier = from_module(network(), name="mine", labels=range(1000))
    assert classifier.info.head == "imagenet-1k"
    turned = from_module(network(), name="mine", labels=imagenet_names()[::-1])
    assert turned.wnids == imagenet_wnids()[::-1]
    assert turned.columns([imagenet_wnids()[94]]).tolist() == [905]


def test_what_labels_lack_is_listed(caplog):
    wnids = imagenet_wnids()
    with caplog.at_level(logging.WARNING):
        classifier = from_module(network(3), name="mine", labels=["koala", "chair of mine", 7])
    assert "1 of 3 labels are no class of ImageNet's: chair of mine" in caplog.text
    with pytest.raises(
        SpurbenchError, match=rf"has no class {wnids[94]} \(hummingbird\), {wnids[565]} \("
    ):
        classifier.columns([wnids[94], wnids[105], wnids[565]])
    with pytest.raises(SpurbenchError, match=wnids[94]):
        predict(classifier, records())


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["koala"], "3 outputs and 1 labels"),
        (
            ["a", "b", "c"],
            r"no label of mine's 3 outputs is a class of ImageNet-1k \(they begin a, b, c\)",
        ),
        (["crane", "maillot", 1000], "no label of mine"),  # each is the name of two classes
        (["koala", 105, "hummingbird"], "two outputs for n01882714"),
        (None, "head of 3 outputs and no labels"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(labels, said):
    with pytest.raises(SpurbenchError, match=said):
        from_module(network(3), name="mine", labels=labels)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.Identity(), "does not return a tensor of logits"),
        (nn.Sequential(nn.Flatten(), nn.Linear(5, 1000)), "can't take an image of 224 x 224"),
    ],
)
def test_a_network_that_does_not_answer_is_one_line(net, said):
    with pytest.raises(SpurbenchError, match=said) as caught:
        from_module(net, name="mine")
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_are_named():
    net = network()
    net[2].bias.data[0] = float("nan")
    with pytest.raises(SpurbenchError, match="answers NaN or infinity"):
        from_module(net, name="mine")


def test_a_size_that_makes_no_sense_is_one_line():
    for given in ({"std": (0, 1, 1)}, {"input_size": 0}, {"mean": (0.5,)}):
        with pytest.raises(SpurbenchError, match=f"mine: .*{next(iter(given))}"):
            from_module(network(), name="mine", **given)


class Answers(nn.Module):
    """Of an image a and b from its first pixels, whatever the size."""

    def __init__(self, attached: bool = True):
        super().__init__()
        self.attached = attached

    def forward(self, pixels):
        found = pixels[:, :2, 0, 0]
        return found if self.attached else found.detach()


def test_a_log_probability_is_the_classs_among_all_outputs():
    """Of logits 1 and 3 of the other class: -log(1 + e^2), with the slope p - 1 in its own."""
    labels, plain = ["koala", "hummingbird"], {"mean": (0, 0, 0), "std": (1, 1, 1)}
    classifier = from_module(Answers(), name="ours", labels=labels, input_size=4, **plain)
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[0, :2, 0, 0] = torch.tensor([3.0, 1.0])
    pixels.requires_grad_()
    found = classifier.log_probability(pixels, "n01833805")
    assert found.tolist() == pytest.approx([-np.log(1 + np.exp(2)), -np.log(2)])
    found.sum().backward()
    assert pixels.grad[0, 1, 0, 0].item() == pytest.approx(1 - 1 / (1 + np.exp(2)))
    detached = from_module(Answers(False), name="ours", labels=labels, input_size=4, **plain)
    with pytest.raises(SpurbenchError, match="ours can't be differentiated"):
        detached.log_probability(pixels, "n01833805")

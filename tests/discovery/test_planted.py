"""What discover finds on the mini world, whose truth is known."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from spurbench.cli.main import main
from spurbench.mini.components import FIRST

pytestmark = pytest.mark.slow


def test_components_of_the_robust_classifier_separate_planted_features(tmp_path):
    for command in (
        ["mini", "training", str(tmp_path / "training"), "--images", "300"],
        [
            *("discover", "--model", "mini:resnet_robust", "--images", str(tmp_path / "training")),
            *("--components", str(FIRST), "--top", "1", "--no-features", "--workers", "1"),
            *("--output", str(tmp_path / "found")),
        ],
        ["mini", "components", str(tmp_path / "found"), str(tmp_path / "components.json")],
    ):
        assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    classes = json.loads((tmp_path / "components.json").read_text())["classes"]
    best = {name: max(of["auroc"]) for name, of in classes.items()}
    planted = [best[name] for name, of in classes.items() if of["planted"]]
    assert len(planted) == 6 and sum(auroc >= 0.9 for auroc in planted) >= 5, best
    assert all(best[name] < 0.9 for name, of in classes.items() if not of["planted"]), best

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from spurbench.cli.main import main
from spurbench.mini import copies


@pytest.fixture
def one_class(monkeypatch):
    monkeypatch.setattr(copies, "PLANTED_FEATURE", {"koala": copies.PLANTED_FEATURE["koala"]})


def test_doctored_references_are_caught_and_fresh_scenes_are_not(one_class, tmp_path):
    output = tmp_path / "copies.json"
    asked = ["mini", "copies", str(output), "--scenes", "19", "--doctored", "1", "--device", "cpu"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())["copies"]
    assert found.keys() == {"koala"}
    shares = dict(found["koala"])
    fresh = shares.pop("fresh scenes")
    assert shares.keys() == copies.DOCTORED.keys()
    assert all(share >= 5 / 6 for of in shares.values() for share in of.values())
    assert max(fresh.values()) <= 0.5
    assert "| references, mirror | 100.0 (100.0) | 100.0 (100.0) |" in result.output


def test_images_through_the_autoencoder_are_held_against_a_limit_of_such_images(
    one_class, monkeypatch
):
    def blank(vae, images):
        return [Image.new("RGB", image.size) for image in images]

    monkeypatch.setattr(copies, "_reconstructed", blank)
    limits = copies.measure_copies(scenes=19, doctored=1, device=torch.device("cpu"))["limits"]
    # A picture of one colour is like nothing.
    assert limits["koala"]["through the autoencoder"] == 0 < limits["koala"]["as rendered"]


def test_too_few_scenes_are_one_line(tmp_path):
    result = CliRunner().invoke(main, ["mini", "copies", str(tmp_path / "c"), "--scenes", "18"])
    assert result.exit_code == 1
    assert "give at least 19" in result.output

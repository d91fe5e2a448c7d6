"""What a build keeps of its stages."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from makers.toy import toy_recipe
from spurbench.build.build import build
from spurbench.build.request import BuildRequest
from spurbench.build.store import MARKER


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    recipe = toy_recipe(folder / "recipe")
    asked = BuildRequest.of(
        str(recipe),
        classes="hummingbird",
        output=folder / "out",
        work=folder / "work",
        device="cpu",
        overrides=["finetune.weights_dtype=float16"],
    )
    assert not build(asked).failed
    return folder / "work"


def test_fine_tuned_weights_are_kept_in_the_recipes_type(work):
    (folder,) = (work / "094_hummingbird").glob("finetune-*")
    for file in ("unet.safetensors", "text_encoder.safetensors"):
        kinds = {v.dtype for v in load_file(folder / file).values() if v.is_floating_point()}
        assert kinds == {torch.float16}
    losses = json.loads((folder / "losses.json").read_text())
    assert set(losses) == {"instance", "prior", "sfsl"}


def test_a_stage_is_known_by_all_that_it_depends_on(work):
    """By these names, so that stages which lie in a store are found again."""
    found = {}
    for marker in work.rglob(MARKER):
        stored = json.loads(marker.read_text())
        found.setdefault(stored["stage"], []).append(set(stored["inputs"]))
    examined = {"revision", "class", "images", "panel", "detector", "queries", "thresholds"}
    sampling = {"images", "steps", "guidance_scale", "batch_size", "precision"}
    assert found == {
        "examine": [examined] * 4,
        "prior": [{"revision", "base", "resolution", "prompt", "seeds"} | sampling],
        "sample": [
            {"revision", "weights", "prompt", "resolution", "seeds", "phi_guidance"} | sampling
        ],
        "controls": [{"revision", "base", "prompt", "resolution", "seeds"} | sampling],
        "positives": [
            {"revision", "base", "prompt", "resolution", "seeds"} | sampling - {"images"}
        ],
        "finetune": [
            {
                "revision",
                "base",
                "resolution",
                "class",
                "prompts",
                "references",
                "prior",
                "phi",
                "kappa",
                "seed",
                "finetune",
                "sfsl",
                "decoder",
            }
        ],
    }

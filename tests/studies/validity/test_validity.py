"""The whole study on toy models: two worlds, two seeds, every kind of making."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from click.testing import CliRunner
from PIL import Image

from makers.toy import save_toy_classifier, toy_recipe
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.studies.validity.plan import ValidityRequest
from spurbench.studies.validity.results import Validity
from spurbench.studies.validity.validity import validity

pytestmark = pytest.mark.slow

PLAN = """
baselines = ["real", "doctored"]
[[rows]]
name = "real"
description = "real images"
kind = "real"
[[rows]]
name = "references"
description = "references"
kind = "references"
[[rows]]
name = "doctored"
description = "doctored"
kind = "doctored"
[[rows]]
name = "prompt"
description = "the base <b>itself</b>"
set = ["finetune.method=base", "finetune.prompt=a photo of a {noun}"]
[[rows]]
name = "method"
description = "no SFSL, two generators"
set = ["sfsl.kappa=0"]
generators = 2
[search]
world = "elsewhere"
classes = ["hummingbird"]
images = 3
object_free = 0.0
novelty = 0.0
tie = 0.02
[[search.rows]]
name = "searched"
description = "phi of the zoo"
set = ["sfsl.kappa=0", "panel.phi={zoo}/never"]
"""


def _told(value):
    return {"value": value, "low": value, "high": value}


def _zoo(folder):
    """Three classifiers and their truth: one always answers the class, two never."""
    classifiers = []
    for seed, (name, favourite, effect) in enumerate(
        (("always", 94, 0.9), ("never", 105, 0.1), ("hardly", None, 0.2))
    ):
        path = save_toy_classifier(folder / name, favourite=favourite, seed=20 + seed)
        info = {"name": name, "weights_sha256": load_classifier(str(path)).info.weights_sha256}
        answered = {
            kind: _told(effect) for kind in ("reliance", "against_other", "probability_effect")
        }
        classes = {"hummingbird": {"answered": answered}}
        classifiers.append({"classifier": info, "classes": classes})
    report = {"schema": "spurbench.reliance/1", "classifiers": classifiers}
    (folder.parent / "reliance.json").write_text(json.dumps(report))


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    root = tmp_path_factory.mktemp("worlds")
    for name in ("one", "two"):
        folder = toy_recipe(root / name)
        (folder / "validity.toml").write_text(PLAN)
        _zoo(folder / "zoo")
    return [str(root / "one"), str(root / "two")]


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _request(worlds, output, **changes):
    settings = {"classes": "hummingbird", "seeds": 2, "overrides": ("sample.images=3",)}
    return ValidityRequest.of(worlds, output=output, device="cpu", **settings | changes)


def test_every_making_is_shown_to_the_zoo_of_its_world_and_nothing_is_made_twice(
    worlds, tmp_path, monkeypatch
):
    request = _request(worlds, tmp_path / "out")
    found = validity(request)
    out = tmp_path / "out"
    document = json.loads((out / "validity.json").read_text())
    assert document == found.as_json()
    assert Validity.model_validate(document) == found
    assert [row.name for row in found.rows] == [
        "real",
        "references",
        "doctored",
        "prompt",
        "method",
    ]
    assert [world.zoo for world in found.worlds] == [("always", "hardly", "never")] * 2
    made = {row.name: row for row in found.rows}
    controls = {name: {each.control for each in row.agreement} for name, row in made.items()}
    assert controls["real"] == controls["references"] == controls["doctored"] == {"none", "prior"}
    assert controls["prompt"] == {"none", "prior", "twin-base"}
    assert controls["method"] == {"none", "prior", "twin-base", "twin-finetuned"}
    images = {name: row.images for name, row in made.items()}
    assert images == {"real": 2, "references": 3, "doctored": 3, "prompt": 3, "method": 6}

    # One always answers the class and two never do, whatever they are shown.
    accuracy = made["method"].of("none", "accuracy")
    assert accuracy.figures["tau_classifiers"].value == pytest.approx(2 / 6**0.5)
    assert made["method"].of("twin-base", "effect").figures["tau_pairs"].value is None
    assert made["method"].measures["spurious_accuracy"].value == 1.0
    assert list(made["method"].of("none", "accuracy").generators) == [1, 2]
    assert made["method"].measures["seconds"].value > 0
    assert made["real"].measures["seconds"].value is None

    text = (out / "validity.md").read_text()
    assert "&lt;b&gt;itself" in text and "<b>" not in text
    for plot in ("tau", "scatter", "growth"):
        assert min(Image.open(out / f"{plot}.png").size) > 100
        assert b"<svg" in (out / f"{plot}.svg").read_bytes()[:600]

    def never(*args, **kwargs):
        raise AssertionError("a finished answer was asked for again")

    monkeypatch.setattr("spurbench.studies.validity.collect.ask", never)
    monkeypatch.setattr("spurbench.studies.validity.images.build", never)
    assert validity(request) == found


def test_a_search_leaves_out_who_had_a_part_and_names_its_winner(worlds, tmp_path):
    request = _request(worlds[:1], tmp_path, classes=None, search=True, seeds=1, overrides=())
    assert [c.name for c in request.worlds[0].classes] == ["hummingbird"]
    found = validity(request)
    assert found.worlds[0].zoo == ("always", "hardly")
    assert found.worlds[0].left_out == ("never",)
    assert found.rows[0].images == 3
    # Too few photographs for a copy detector: nothing qualifies without a novelty.
    assert found.search.qualified == () and found.search.winner is None
    assert "No row qualifies" in (tmp_path / "validity.md").read_text()


def test_a_truth_of_other_weights_is_refused_before_anything_is_made(worlds, tmp_path):
    truth = tmp_path / "reliance.json"
    report = json.loads((Path(worlds[0]) / "reliance.json").read_text())
    report["classifiers"][1]["classifier"]["weights_sha256"] = "0" * 64
    truth.write_text(json.dumps(report))
    request = _request(worlds[:1], tmp_path / "out", truths=[truth])
    with pytest.raises(SpurbenchError, match="of other weights of classifier never"):
        validity(request)
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_is_missing(worlds, tmp_path):
    told = CliRunner().invoke(main, ["validity", "--recipe", worlds[0], "--rows", "nothing"])
    assert told.exit_code == 1 and "no row 'nothing' in validity.toml" in told.output

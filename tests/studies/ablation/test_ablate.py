from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from makers.rows import row as dataset_row
from makers.toy import save_toy_classifier, toy_recipe
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import read_rows
from spurbench.dataset.rows import Row
from spurbench.evaluation import metrics
from spurbench.recipe.load import read_recipe
from spurbench.recipe.sections import SFSLGradient
from spurbench.studies.ablation.ablate import ablate, fooled_classifiers, labels_of, measure
from spurbench.studies.ablation.plan import AblationRequest, Variation, read_plan
from spurbench.studies.ablation.results import Ablation, BuildMeasures
from spurbench.studies.ablation.summary import BuildResult, summarise

PLAN = """
baseline = "plain"
[[rows]]
name = "plain"
description = "no SFSL"
set = ["sfsl.kappa=0"]
[[rows]]
name = "base"
description = "the base <b>itself</b>"
set = ["finetune.method=base", "finetune.prompt=a photo of a {noun}"]
"""


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory):
    folder = toy_recipe(tmp_path_factory.mktemp("toy") / "recipe")
    (folder / "ablation.toml").write_text(PLAN)
    return folder


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def _request(recipe_folder, output, **changes):
    registry = read_recipe(str(recipe_folder)).classes
    return AblationRequest(
        **{
            "recipe": str(recipe_folder),
            "plan": read_plan(str(recipe_folder)),
            "overrides": ("sample.images=3",),
            "classes": registry.select("hummingbird"),
            "data": None,
            "seeds": (0, 1),
            "output": output,
            "device": torch.device("cpu"),
        }
        | changes
    )


@pytest.fixture(scope="module")
def ablated(recipe_folder, tmp_path_factory):
    """A whole ablation and its folder; not to be changed."""
    out = tmp_path_factory.mktemp("ablated") / "out"
    return out, ablate(_request(recipe_folder, out))


@pytest.fixture
def built(ablated, tmp_path):
    """The folder of a finished ablation, so that another makes only what it asks for otherwise."""
    return shutil.copytree(ablated[0], tmp_path / "out")


def test_every_row_and_seed_is_built_measured_and_shown(recipe_folder, ablated, monkeypatch):
    out, ablation = ablated
    document = json.loads((out / "ablation.json").read_text())
    assert document == ablation.as_json()
    assert Ablation.model_validate(document) == ablation
    assert [row["name"] for row in document["rows"]] == ["plain", "base"]
    plain, base = document["rows"]

    # The toy panel calls everything hummingbird; the rest is worked out from the datasets.
    for row in (plain, base):
        assert row["summary"]["spurious_accuracy"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
        assert row["summary"]["feature_present"] is None
        absent = []
        for seed in (0, 1):
            generated = read_rows(out / "datasets" / f"{row['name']}-seed{seed}")["generated"]
            assert len(generated) == 3
            absent.append(np.mean([r.object_absent for r in generated]))
            assert row["seeds"][str(seed)]["hummingbird"]["object_absent"] == absent[-1]
        assert row["summary"]["object_absent"]["mean"] == pytest.approx(np.mean(absent))
    assert set(plain["against_baseline"]["diversity"].values()) == {0.0}
    difference = base["summary"]["diversity"]["mean"] - plain["summary"]["diversity"]["mean"]
    assert difference != 0
    assert base["against_baseline"]["diversity"]["mean"] == pytest.approx(difference)
    assert plain["summary"]["seconds"]["mean"] > 0
    assert document["real"]["mean"]["novelty"] is None
    assert "seconds" not in document["real"]["mean"]

    text = (out / "ablation.md").read_text()
    assert "&lt;b&gt;itself" in text and "<b>" not in text
    assert "100.0 [100.0, 100.0]" in text
    for picture in ("ablation.png", "samples.png"):
        assert min(Image.open(out / picture).size) > 100

    def never(*args, **kwargs):
        raise AssertionError("a finished stage was made again")

    monkeypatch.setattr("spurbench.build.tuning.finetune", never)
    monkeypatch.setattr("spurbench.build.sampling.sample", never)
    assert ablate(_request(recipe_folder, out)) == ablation


def test_unseen_classifiers_are_measured_beside_the_panel(recipe_folder, built, tmp_path):
    fooled = save_toy_classifier(tmp_path / "fooled", favourite=94, seed=5)
    other = save_toy_classifier(tmp_path / "other", favourite=105, seed=6)
    request = _request(recipe_folder, built, unseen=(str(fooled), str(other)))
    document = ablate(request).as_json()

    part_of = {"one": "panel", "two": "phi", "fooled": "unseen", "other": "unseen"}
    assert document["classifiers"] == part_of
    weights = [load_classifier(str(folder)).info.weights_sha256 for folder in (fooled, other)]
    assert [entry["weights_sha256"] for entry in document["unseen"]] == weights
    shares = {"one": 1.0, "two": 1.0, "fooled": 1.0, "other": 0.0}
    assert document["real"]["classifiers"] == shares
    assert document["real"]["parts"] == {"phi": 1.0, "panel": 1.0, "unseen": 0.5}
    for row in document["rows"]:
        for name, share in (shares | document["real"]["parts"]).items():
            measured = {**row["classifiers"], **row["parts"]}[name]
            assert measured["spurious_accuracy"]["mean"] == share
            assert measured["against_baseline"]["mean"] == 0.0
    text = (built / "ablation.md").read_text()
    assert "| two (phi) | one (panel) | fooled (unseen) | other (unseen) |" in text
    assert "unseen, against baseline" in text


def _row(i: int, **changes) -> Row:
    """A row with an image of its own; ``ranks`` are the panel's."""
    ranks = changes.pop("ranks", [1])
    answers = [
        {"classifier": "vit", "prediction": 0, "probability": 0.5, "rank": rank} for rank in ranks
    ]
    return dataset_row("real", i, panel=answers, **changes)


def test_a_classifiers_share_is_the_mean_over_classes():
    rows = [
        _row(0, class_index=1, ranks=[1, 3]),
        _row(1, class_index=1, ranks=[2, 1]),
        _row(2, class_index=2, ranks=[1, 9]),
    ]
    # Their answers carry one name; the labels tell them apart.
    assert fooled_classifiers(rows, (), ["a", "b"]) == {"a": 0.75, "b": 0.25}


def test_novelty_is_against_the_photographs_that_were_trained_on_and_the_rest_set_the_limit():
    """Which photographs were trained on is what the rows say. Copies are the same picture."""
    photographs = [_row(i, is_reference=i < 3) for i in range(22)]
    copy = _row(1, ranks=[1, 1])
    other = _row(30, ranks=[1, 2])
    features = {
        row.image_sha256: np.array(vector, np.float32)
        for row, vector in ((copy, [1, 0]), (other, [0.8, 0.6]))
    }
    measured = measure([copy, other], photographs, features)
    assert measured.novelty == 1 / 2
    assert measured.diversity == pytest.approx(0.2)
    assert measured.spurious_accuracy == 0.75
    assert measured.consistently_spurious == 0.5
    assert measured.object_absent == measured.feature_present == 1
    # The same picture was not trained on; 18 others are too few to set a limit.
    swapped = [_row(i, is_reference=i >= 20) for i in range(22)]
    assert measure([copy, other], swapped, features).novelty == 1
    assert measure([copy, other], photographs[:21], features).novelty is None
    without_detector = [_row(i, object_absent=None, feature_present=None) for i in (1, 30)]
    unknown = measure(without_detector, photographs[:21], features)
    assert unknown.object_absent is None and unknown.feature_present is None


def _measures(spurious_accuracy: float, **changes) -> BuildMeasures:
    known = {
        "spurious_accuracy": spurious_accuracy,
        "consistently_spurious": 0.25,
        "object_absent": 1.0,
        "feature_present": None,
        "novelty": 0.5,
        "diversity": 0.1,
        "seconds": 9.0,
    }
    return BuildMeasures(**known | changes)


def test_gains_are_a_rows_minus_the_baselines_paired_by_seed():
    builds = [
        [BuildResult({"x": _measures(a), "y": _measures(b)}, {"p": a, "u": b}) for a, b in seeds]
        for seeds in ([(0.6, 0.4), (0.9, 0.5)], [(0.5, 0.4), (0.6, 0.5)])
    ]
    parts = {"p": "panel", "u": "unseen"}
    variation = Variation(name="v", description="", set=("sfsl.kappa=1",))
    found = summarise(variation, dict(enumerate(builds[0])), builds[1], parts)
    assert (found.name, found.overrides) == ("v", ("sfsl.kappa=1",))
    for compared in (found.classifiers["p"], found.parts["panel"]):
        assert compared.seeds == (0.6, 0.9)
        assert compared.spurious_accuracy.mean == pytest.approx(0.75)
        assert compared.against_baseline.mean == pytest.approx(0.2)
        half_width = compared.against_baseline.high - 0.2
        assert half_width == pytest.approx(12.706 * 0.1, rel=1e-3)  # t of one degree of freedom
    assert found.parts["unseen"].against_baseline.mean == 0
    assert found.summary["spurious_accuracy"].mean == pytest.approx(0.6)
    assert found.against_baseline["spurious_accuracy"].mean == pytest.approx(0.1)
    assert found.summary["feature_present"] is None  # nothing tells
    assert found.classes["x"].spurious_accuracy == pytest.approx(0.75)
    assert found.seeds[1]["y"].spurious_accuracy == 0.5


def test_labels_are_names_with_checkpoints_and_hashes_where_those_are_shared():
    def classifier(name, digest, checkpoint=None):
        info = SimpleNamespace(name=name, checkpoint=checkpoint, weights_sha256=digest * 64)
        return SimpleNamespace(info=info)

    given = [
        classifier("vit", "a"),
        classifier("resnet50.IMAGENET1K_V2", "b"),
        classifier("resnet50.IMAGENET1K_V2", "c", "mine.pth"),
        classifier("folder", "d"),
        classifier("folder", "e"),
    ]
    assert labels_of(given) == [
        "vit",
        "resnet50.IMAGENET1K_V2",
        "resnet50.IMAGENET1K_V2 + mine.pth",
        "folder @dddddddd",
        "folder @eeeeeeee",
    ]


def test_a_classifier_of_the_panel_is_not_unseen(recipe_folder, tmp_path):
    of_panel = str(recipe_folder / "one")
    with pytest.raises(SpurbenchError, match="one is of the recipe's panel"):
        ablate(_request(recipe_folder, tmp_path / "out", unseen=(of_panel,)))
    assert not (tmp_path / "out").exists()


def test_classifiers_of_one_name_are_told_apart(recipe_folder, built, tmp_path):
    namesake = save_toy_classifier(tmp_path / "one", favourite=105, seed=5)
    request = _request(recipe_folder, built, unseen=(str(namesake),), seeds=(0,))
    plan = request.plan.model_copy(update={"variations": request.plan.variations[1:]})
    plan = plan.model_copy(update={"baseline": "base"})
    found = ablate(replace(request, plan=plan))
    of_panel, unseen = (
        f"one @{load_classifier(str(folder)).info.weights_sha256[:8]}"
        for folder in (recipe_folder / "one", namesake)
    )
    assert found.classifiers == {of_panel: "panel", "two": "phi", unseen: "unseen"}
    assert [entry["name"] for entry in found.unseen] == [unseen]
    assert found.real.classifiers == {of_panel: 1.0, "two": 1.0, unseen: 0.0}


def test_a_row_with_another_panel_is_refused(recipe_folder, tmp_path):
    half = Variation(
        name="half", description="", set=(f"panel.classifiers=['{recipe_folder / 'two'}']",)
    )
    plan = read_plan(str(recipe_folder))
    plan = plan.model_copy(update={"variations": (*plan.variations, half)})
    with pytest.raises(SpurbenchError, match="row half has another panel than the baseline, plain"):
        ablate(_request(recipe_folder, tmp_path / "out", plan=plan))


def test_a_class_that_fails_is_named_with_its_row(recipe_folder, tmp_path):
    registry = read_recipe(str(recipe_folder)).classes
    request = _request(
        recipe_folder, tmp_path / "out", classes=registry.select("koala"), seeds=(0,)
    )
    with pytest.raises(SpurbenchError, match="row plain, seed 0: class koala failed"):
        ablate(request)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (PLAN.replace('"base"\n', '"plain"\n'), "'plain' is there twice"),
        (PLAN.replace('baseline = "plain"', 'baseline = "other"'), "'other' is none of the rows"),
        (PLAN.replace("set =", "sets ="), "sets"),
        ("rows = [", "not valid TOML"),
    ],
)
def test_a_wrong_plan_is_one_line(recipe_folder, tmp_path, text, fault):
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "recipe.toml").write_text((recipe_folder / "recipe.toml").read_text())
    (folder / "ablation.toml").write_text(text)
    with pytest.raises(SpurbenchError, match=fault):
        read_plan(str(folder))


def test_an_unknown_row_is_refused_and_the_baseline_is_always_there(recipe_folder):
    with pytest.raises(SpurbenchError, match="no row 'nothing'"):
        read_plan(str(recipe_folder), ["nothing"])
    assert [v.name for v in read_plan(str(recipe_folder), ["base"]).variations] == ["plain", "base"]


def test_the_embedded_plan_varies_the_embedded_recipe():
    plan = read_plan("mini")
    recipes = {v.name: read_recipe("mini", v.overrides) for v in plan.variations}
    assert recipes["vanilla"].finetune.train_text_encoder is False
    assert recipes["vanilla"].sfsl.kappa == 0
    assert {r.finetune.method for r in recipes.values()} == {
        "full",
        "lora",
        "textual_inversion",
        "base",
    }
    assert {r.sfsl.gradient for r in recipes.values()} == {*get_args(SFSLGradient)}


def test_the_search_of_the_plan_gives_every_reading_an_equal_dose_of_pairs():
    recipes = {v.name: read_recipe("mini", v.overrides) for v in read_plan("mini").variations}
    for gradient in ("prior", "instance", "both", "attract"):
        samples = 2 if gradient == "both" else 1  # that must be below the limit
        for kappa in (1, 4, 8, 16):
            sfsl = recipes[f"{gradient}-{kappa}"].sfsl
            assert (sfsl.gradient, sfsl.kappa) == (gradient, kappa)
            assert sfsl.max_timestep**samples == pytest.approx(0.5, abs=1e-4)
    plain = recipes["attract-8"]
    for name, weights in (("attract-ones", "ones"), ("attract-other", "other")):
        assert recipes[name].sfsl == plain.sfsl.model_copy(update={"weights": weights})
    for strength in (1, 4, 16):
        guided = recipes[f"guided-{strength}"]
        assert (guided.finetune.method, guided.sample.phi_guidance) == ("base", strength)


def test_diversity_and_intervals_by_hand():
    assert metrics.mean_pairwise_distance(np.array([[1, 0], [0, 2], [-3, 0.0]])) == pytest.approx(
        (1 + 2 + 1) / 3
    )
    assert metrics.t_interval([0.5]) is None
    low, high = metrics.t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))

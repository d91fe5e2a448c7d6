from __future__ import annotations

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from makers import rows as makers_rows
from makers.toy import save_toy_classifier, toy_recipe
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import read_rows
from spurbench.evaluation import metrics
from spurbench.recipe.load import read_recipe
from spurbench.studies.ablation import ablate as ablation
from spurbench.studies.ablation.ablate import ablate, fooled_classifiers
from spurbench.studies.ablation.plan import AblationRequest, Variation, read_plan
from spurbench.studies.ablation.report import classes_at_or_above_real

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


def test_every_row_and_seed_is_built_measured_and_shown(recipe_folder, tmp_path, monkeypatch):
    request = _request(recipe_folder, tmp_path / "out")
    document = ablate(request)
    out = tmp_path / "out"
    assert json.loads((out / "ablation.json").read_text()) == document
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

    text = (out / "ablation.md").read_text()
    assert "&lt;b&gt;itself" in text and "<b>" not in text
    assert "100.0 [100.0, 100.0]" in text
    for picture in ("ablation.png", "samples.png"):
        assert min(Image.open(out / picture).size) > 100

    def never(*args, **kwargs):
        raise AssertionError("a finished stage was made again")

    monkeypatch.setattr("spurbench.build.stages.finetune", never)
    monkeypatch.setattr("spurbench.build.stages.sample", never)
    again = ablate(request)
    assert again == document


def test_unseen_classifiers_are_measured_beside_the_panel(recipe_folder, tmp_path):
    fooled = save_toy_classifier(tmp_path / "fooled", favourite=94, seed=5)
    other = save_toy_classifier(tmp_path / "other", favourite=105, seed=6)
    out = tmp_path / "out"
    document = ablate(_request(recipe_folder, out, unseen=(str(fooled), str(other))))

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
    text = (out / "ablation.md").read_text()
    assert "| two (phi) | one (panel) | fooled (unseen) | other (unseen) |" in text
    assert "unseen, against baseline" in text


def test_a_classifiers_share_is_the_mean_over_classes():
    def of(index, **ranks):
        answers = [
            {"classifier": name, "prediction": 0, "probability": 0.5, "rank": rank}
            for name, rank in ranks.items()
        ]
        return makers_rows.row("real", 0, class_index=index, panel=answers)

    rows = [of(1, a=1, b=3), of(1, a=2, b=1), of(2, a=1, b=9)]
    assert fooled_classifiers(rows, ()) == {"a": 0.75, "b": 0.25}


def test_gains_are_a_rows_minus_the_baselines_paired_by_seed():
    compared = ablation._against([{"a": 0.6}, {"a": 0.9}], [{"a": 0.5}, {"a": 0.6}])["a"]
    assert compared["spurious_accuracy"]["mean"] == pytest.approx(0.75)
    assert compared["against_baseline"]["mean"] == pytest.approx(0.2)
    half_width = compared["against_baseline"]["high"] - 0.2
    assert half_width == pytest.approx(12.706 * 0.1, rel=1e-3)  # t of one degree of freedom


def test_a_classifier_of_the_panel_is_not_unseen(recipe_folder, tmp_path):
    of_panel = str(recipe_folder / "one")
    with pytest.raises(SpurbenchError, match="one is of the recipe's panel"):
        ablate(_request(recipe_folder, tmp_path / "out", unseen=(of_panel,)))
    namesake = save_toy_classifier(tmp_path / "one", favourite=94, seed=5)
    with pytest.raises(SpurbenchError, match="two classifiers are called one"):
        ablate(_request(recipe_folder, tmp_path / "out", unseen=(str(namesake),)))
    assert not (tmp_path / "out").exists()


def test_a_row_with_another_panel_is_refused(recipe_folder, tmp_path):
    row = Variation(
        name="half", description="", set=(f"panel.classifiers=['{recipe_folder / 'two'}']",)
    )
    plan = read_plan(str(recipe_folder))
    plan = plan.model_copy(update={"rows": (*plan.rows, row)})
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
    assert [row.name for row in read_plan(str(recipe_folder), ["base"]).rows] == ["plain", "base"]


def test_the_embedded_plan_varies_the_embedded_recipe():
    plan = read_plan("mini")
    recipes = {row.name: read_recipe("mini", row.overrides) for row in plan.rows}
    assert recipes["vanilla"].finetune.train_text_encoder is False
    assert recipes["vanilla"].sfsl.kappa == 0
    assert {r.finetune.method for r in recipes.values()} == {
        "full",
        "lora",
        "textual_inversion",
        "base",
    }
    assert {r.sfsl.gradient for r in recipes.values()} == {"prior", "instance", "both", "attract"}


def test_copying_by_hand():
    references = np.eye(3)  # each at cosine distance 1 from the others
    references[1] = [0.6, 0.8, 0]  # 0.4 from the first
    generated = np.array([[1, 0.01, 0], [0.7, 0, 0.714], [0, 0, -1.0]])
    # Nearest other reference: 0.4, 0.4, 1; median and least 0.4. Nearest reference of the
    # generated: ~0, 0.286, 1.
    assert metrics.copying(generated, references) == 2 / 3
    references[0] = [0, 1, 0]  # now 0.2 between the first two, and 1, 1 to the third
    # The second is at 0.286 from the third, over 0.2.
    assert metrics.copying(generated, references) == 0


def test_near_copies_by_hand():
    references = np.eye(3)
    unseen = np.array([[0.9, 0.436, 0], [0.7, 0.714, 0]])  # 0.1 and 0.29 from the nearest reference
    generated = np.array([[1, 0.01, 0], [0.8, 0.6, 0]])  # ~0 and 0.2
    assert metrics.near_copies(generated, references, unseen) == 1 / 2
    assert metrics.near_copies(unseen, references, unseen) == 0


def test_diversity_and_intervals_by_hand():
    assert metrics.mean_pairwise_distance(np.array([[1, 0], [0, 2], [-3, 0.0]])) == pytest.approx(
        (1 + 2 + 1) / 3
    )
    assert metrics.t_interval([0.5]) is None
    low, high = metrics.t_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


def test_the_share_of_classes_at_or_above_real():
    document = {
        "real": {"classes": {c: {"spurious_accuracy": v} for c, v in {"a": 0.5, "b": 0.7}.items()}}
    }
    row = {"classes": {"a": {"spurious_accuracy": 0.5}, "b": {"spurious_accuracy": 0.69}}}
    assert classes_at_or_above_real(document, row) == 1

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from spurbench.core.errors import SpurbenchError
from spurbench.recipe.load import read_recipe
from spurbench.studies.validity.plan import Making, ValidityPlan, ValidityRequest, read_plan


def test_every_row_of_the_mini_world_is_a_recipe_and_the_search_is_at_equal_effort():
    plan = read_plan("mini")
    assert {"real", "references", "doctored", "build"} == {row.kind for row in plan.rows}
    for row in (*plan.rows, *plan.search.rows):
        read_recipe("mini", [override.replace("{zoo}", "zoo") for override in row.overrides])
    for reading in ("prior", "instance", "both", "attract"):
        for kappa in (1, 4, 8, 16):
            (row,) = plan.select([f"{reading}-{kappa}"], search=True)
            sfsl = read_recipe("mini", row.overrides).sfsl
            assert (sfsl.gradient, sfsl.kappa) == (reading, kappa)
            # Pairs of samples, both below the limit, are as many as single samples are.
            assert sfsl.max_timestep == pytest.approx(0.5**0.5 if reading == "both" else 0.5, 1e-4)


def test_rows_are_those_of_the_search_or_the_others_and_names_reach_both():
    plan = read_plan("mini")
    assert plan.select([], search=False) == plan.rows
    assert plan.select([], search=True) == plan.search.rows
    chosen = plan.select(["attract-8", "real"], search=False)
    assert [row.name for row in chosen] == ["real", "attract-8"]
    with pytest.raises(SpurbenchError, match=r"no row 'attract' in validity\.toml"):
        plan.select(["attract"], search=False)


def test_a_plan_with_a_name_twice_an_unknown_baseline_or_a_row_of_priors_is_refused():
    search = read_plan("mini").search

    def plan(*names, baselines=(), kind="build"):
        rows = [Making(name=name, description="", kind=kind) for name in names]
        return ValidityPlan(baselines=baselines, rows=rows, search=search)

    assert plan("a", baselines=("a",)).baselines == ("a",)
    for wrong in (
        lambda: plan("a", "a"),
        lambda: plan("attract-8"),
        lambda: plan("a", baselines=("b",)),
        lambda: plan("prior"),
        lambda: plan("a", kind="prior"),
    ):
        with pytest.raises(ValidationError):
            wrong()


@pytest.fixture(autouse=True)
def no_torch(monkeypatch):
    """Devices are looked for by torch, which takes seconds to import."""
    monkeypatch.setattr("spurbench.studies.validity.plan.choose_device", str)


def _zoo(folder: Path) -> Path:
    for name in ("f", "g"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text("{}")
    (folder.parent / "reliance.json").write_text("{}")
    return folder


def test_classes_that_a_loss_was_chosen_on_are_not_reported_in_that_world(tmp_path):
    zoo = _zoo(tmp_path / "zoo")
    chosen = {"hummingbird", "fireboat", "flagpole"}

    def classes(**settings):
        request = ValidityRequest.of(["mini"], zoos=[zoo], device="cpu", **settings)
        return {c.name for c in request.worlds[0].classes}, request

    reported, request = classes()
    assert reported == {"koala", "freight car", "gondola"}
    assert [*request.seeds] == [0, 1, 2] and request.overrides == ()
    searched, request = classes(search=True, overrides=["finetune.steps=3"])
    assert searched == chosen
    assert [*request.seeds] == [0]
    assert request.overrides == ("sample.images=25", "finetune.steps=3")
    assert classes(classes="koala")[0] == {"koala"}


def test_what_a_world_lacks_is_said_with_what_to_do(tmp_path):
    zoo = _zoo(tmp_path / "zoo")
    for wrong, said in (
        ({"zoos": [tmp_path]}, "1 classifiers in|0 classifiers in"),
        ({"zoos": [zoo, zoo]}, "2 times --zoo for 1 worlds"),
        ({"zoos": [zoo], "truths": [tmp_path / "no.json"]}, "no truth at"),
    ):
        with pytest.raises(SpurbenchError, match=said):
            ValidityRequest.of(["mini"], device="cpu", **wrong)
    with pytest.raises(SpurbenchError, match="two worlds are called 'mini'"):
        ValidityRequest.of(["mini", "mini"], zoos=[zoo, zoo], device="cpu")

"""The study of mending: what is measured, what counts as reached, and that it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from shutil import copytree

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from makers.measured import save_dataset
from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.info import ClassifierInfo
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.bootstrap import Bootstrap, bootstrap_interval, percentile_interval
from spurbench.evaluation.metrics import auroc
from spurbench.evaluation.predict import predict
from spurbench.mini.distributions import CLASSES, spurious
from spurbench.mini.scenes import PLANTED_FEATURE, render
from spurbench.mitigation import mend
from spurbench.mitigation.training import FineTuning, LastLayer
from spurbench.studies.mending import goals as goalkeeping
from spurbench.studies.mending import study as studying
from spurbench.studies.mending.answers import Said
from spurbench.studies.mending.cells import Mended
from spurbench.studies.mending.figures import MEASURES, change, figure, values
from spurbench.studies.mending.goals import goals
from spurbench.studies.mending.plan import ROWS, MendingRequest, Row
from spurbench.studies.mending.report import render_markdown
from spurbench.studies.mending.results import Group, RowResult
from spurbench.studies.mending.scenes import DATA_SET, KINDS, Scenes
from spurbench.studies.mending.study import study

BIRD, KOALA = "n01833805", "n01882714"
INDICES = (94, 105)
CPU = torch.device("cpu")


def said(rng, share, n=60):
    return Said(rng.random(n) < share, rng.random(n))


def answers(seed, **shares):
    """Answers of a made-up classifier that calls so many of each kind's scenes their class."""
    rng = np.random.default_rng(seed)
    return {kind: {i: said(rng, shares.get(kind, 0.5)) for i in INDICES} for kind in KINDS}


def test_measures_are_means_over_classes_of_scenes_and_changes_are_paired():
    before, after = answers(1, fresh=0.9), answers(2, fresh=0.2)
    called = [before["fresh"][i].called.mean() for i in INDICES]
    assert figure(values([before], "fresh")).value == pytest.approx(np.mean(called))
    bare = [before["bare"][i].called.mean() for i in INDICES]
    assert figure(values([before], "reliance")).value == pytest.approx(
        np.mean(called) - np.mean(bare)
    )
    areas = [
        auroc(before["biased"][i].probability, before["fresh"][i].probability) for i in INDICES
    ]
    assert figure(values([before], "auroc")).value == pytest.approx(np.mean(areas))
    for measure in MEASURES:
        own, others = values([before], measure), values([after], measure)
        changed = change(own, others)
        assert changed.value == pytest.approx(figure(others).value - figure(own).value)
        same = change(own, own)
        assert (same.value, same.low, same.high) == (0, 0, 0)  # pairs, not two samples
        both = figure(values([before, after], measure))
        assert both.value == pytest.approx((figure(own).value + figure(others).value) / 2)
    assert figure(values([{**before, "real": {}}], "real")) is None


def test_intervals_are_those_of_the_bootstrap_over_scenes_within_classes():
    one = answers(3, fresh=0.7)
    groups = values([one], "fresh")
    found = figure(groups)
    expected = bootstrap_interval(groups, resamples=2000, seed=5)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.02)
    bootstrap = Bootstrap(resamples=2000, seed=5)
    draws = [
        bootstrap.auroc(
            one["biased"][i].probability, one["fresh"][i].probability, [[np.arange(60)]]
        )
        for i in INDICES
    ]
    expected = percentile_interval(np.mean(draws, axis=0))
    found = figure(values([one], "auroc"))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.015)


def test_rows_are_read_from_their_names():
    row = Row.parse("fine-tune-generated-1200")
    assert (row.method, row.source, row.per_class) == ("fine-tune", "generated", 1200)
    assert Row.parse("last-layer-none").source is None
    assert Row.parse("spufix").method == "spufix"
    assert len({Row.parse(name).name for name in ROWS}) == len(ROWS) == 19
    assert {goalkeeping.HEADLINE, goalkeeping.FEWEST, goalkeeping.REAL} <= set(ROWS)
    for wrong in ("spufix-none", "fine-tune", "fine-tune-real", "fine-tune-real-0", "other-none"):
        with pytest.raises(SpurbenchError, match="is not spufix, METHOD-none or"):
            Row.parse(wrong)


INFO = ClassifierInfo(
    spec="x",
    name="x",
    source="folder",
    architecture="resnet10t",
    parameters=1,
    head="imagenet-1k",
    weights_sha256="0" * 64,
)


def group(name, part, **changes):
    """A classifier with the changes of the headline row."""
    figures = {measure: figure([np.full(3, changes.get(measure, 0.0))]) for measure in MEASURES}
    row = Row.parse(goalkeeping.HEADLINE)
    result = RowResult(**row.model_dump(), after=figures, change=figures)
    return Group(name=name, part=part, classifiers=(INFO,), before=figures, rows=(result,))


REACHED = {"real": -0.3, "biased": -0.01, "object": 0.1}


def mended(headline=0.2, fewest=0.6, real=0.3):
    shares = {
        goalkeeping.HEADLINE: headline,
        goalkeeping.FEWEST: fewest,
        goalkeeping.REAL: real,
    }
    rows = {name: answers(7, fresh=share) for name, share in shares.items()}
    return Mended(INFO, answers(7, fresh=0.9), rows)


def test_goals_are_reached_at_their_numbers_and_not_below():
    panel = [group(f"p{i}", "panel", **REACHED) for i in range(3)]
    weak = group("p3", "panel", **{**REACHED, "real": -0.29})
    unseen = [group(f"u{i}", "unseen", **REACHED) for i in range(2)]
    found = goals([*panel, weak, *unseen], [mended()])
    assert [goal.reached for goal in found] == [True] * 5  # three of the panel are enough
    two = [weak.model_copy(update={"name": "p2"}), weak]
    assert goals([*panel[:2], *two, *unseen], [mended()])[0].reached is False
    missed = group("u1", "unseen", **{**REACHED, "real": -0.29})
    assert goals([*panel, weak, unseen[0], missed], [mended()])[0].reached is False
    for position, worse in ((1, {"biased": -0.011}), (2, {"object": 0.09})):
        one = group("p0", "panel", **{**REACHED, **worse})
        found = goals([one, *panel[1:], weak, *unseen], [mended()])
        assert [goal.reached for goal in found].index(False) == position
        assert "p0" not in found[position].met and "p1" in found[position].met
    assert goals(panel, [mended()])[0].reached is False  # nobody unseen


def test_more_images_must_help_beyond_chance_and_real_ones_no_more():
    some = [group("p", "panel", **REACHED)]
    assert goals(some, [mended(fewest=0.2)])[3].reached is False  # equal
    assert goals(some, [mended(fewest=0.1)])[3].reached is False
    assert goals(some, [mended(real=0.2)])[4].reached is True
    assert goals(some, [mended(real=0.05)])[4].reached is False
    lacking = mended()
    del lacking.after[goalkeeping.REAL]
    assert goals(some, [lacking])[4].reached is None


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two classifiers, training images of two classes, and a dataset of them."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("one", "two")):
        save_toy_classifier(folder / name, favourite=None, seed=seed)
    save_noise_images(folder / "images" / BIRD, 4, 1)
    save_noise_images(folder / "images" / KOALA, 4, 2)
    save_dataset(
        folder / "data",
        images=4,
        classes=INDICES,
        known=lambda part, _, i: {
            "is_reference": part == "real" and i == 0,
            "object_absent": not (part == "generated" and i == 3),
        },
    )
    return folder


@pytest.fixture
def request_of(world, tmp_path):
    def made(*rows, **changes):
        request = MendingRequest(
            panel=[str(world / "one")],
            unseen=[str(world / "two")],
            rows=[Row.parse(row) for row in rows],
            images=world / "images",
            data=str(world / "data"),
            discovery=None,
            pairs=None,
            scenes=2,
            seed=1,
            output=tmp_path / "out",
            device=CPU,
            last_layer=LastLayer(iterations=2),
            fine_tuning=FineTuning(steps=2, batch_size=2),
        )
        return replace(request, **changes)

    return made


def test_scenes_are_fresh_and_lack_what_they_are_said_to_lack(world):
    scenes = Scenes.of(str(world / "data"), 2, 1)
    assert [len(scenes.records[kind]) for kind in KINDS] == [12, 12, 2 * len(CLASSES), 12, 6]
    assert not any(record.is_reference for record in scenes.records["real"])
    names = list(PLANTED_FEATURE)
    assert [r.class_name for r in scenes.records["fresh"]] == [n for n in names for _ in range(2)]
    assert len({r.sha256 for kind in KINDS for r in scenes.records[kind]}) == 12 * 3 + 22 + 6
    own = {render(spurious(n, 1, i, DATA_SET)).tobytes() for n in names for i in range(2)}
    others = {render(spurious(n, 1, i)).tobytes() for n in names for i in range(2)}
    assert own.isdisjoint(others)  # none of the real split's, were it of this seed
    assert Scenes.of(str(world / "data"), 2, 2).fingerprint != scenes.fingerprint


def test_a_study_mends_as_mend_does_and_asks_the_mended(world, request_of, tmp_path):
    rows = ["last-layer-none", "last-layer-generated-2", "fine-tune-real-3", "fine-tune-doctored-2"]
    request = request_of(*rows)
    found = study(request)
    assert [(g.name, g.part) for g in found.classifiers] == [("one", "panel"), ("two", "unseen")]
    assert [g.name for g in found.means] == ["panel", "unseen"]

    given = mend.Trainings(world / "images", str(world / "data"), "generated", 2)
    plain = load_classifier(str(world / "one"))
    mend.trained(plain, given, request.last_layer, tmp_path / "direct")
    written = request.output / "mended/one/last-layer-generated-2/model.safetensors"
    assert written.read_bytes() == (tmp_path / "direct/model.safetensors").read_bytes()

    scenes = Scenes.of(request.data, 2, 1)
    ranks = predict(load_classifier(str(tmp_path / "direct")), scenes.records["biased"]).rank
    row = found.classifiers[0].row("last-layer-generated-2")
    assert row.after["biased"].value == pytest.approx((ranks == 1).mean())
    # What it was mended with tells nothing of it.
    real = found.classifiers[0].row("fine-tune-real-3")
    assert real.after["real"] is None and real.change["real"] is None
    assert row.after["real"] is not None
    assert len(list((request.output / "doctored").glob(f"{BIRD}/*.png"))) == 2
    taken = {}
    for name in rows:
        config = json.loads((request.output / f"mended/two/{name}/config.json").read_text())
        spurious = config["mended"]["spurious"]
        taken[name] = spurious and (spurious["name"], config["mended"]["spurious_images"])
    assert taken == dict(
        zip(rows, (None, ("spurbench-toy", 4), ("spurbench-toy", 6), ("doctored", 4)), strict=True)
    )
    text = (request.output / "mending.md").read_text()
    assert text == render_markdown(found) and "`fine-tune-doctored-2`" in text
    assert all(goal.reached is None for goal in found.goals)
    assert {p.name for p in request.output.glob("*.*")} == {
        "mending.json", "mending.md", "curve.png", "curve.svg", "arrows.png", "arrows.svg",
    }  # fmt: skip


def test_a_study_goes_on_and_makes_only_what_is_new(request_of, monkeypatch):
    monkeypatch.setattr(studying, "render_plots", lambda found: {})  # which take long
    first = request_of("last-layer-none", "last-layer-generated-2")
    study(first)
    before = (first.output / "mending.json").read_bytes()
    made = []
    trained = mend.trained

    def noted(classifier, given, settings, output, **more):
        made.append((classifier.info.name, output.name))
        return trained(classifier, given, settings, output, **more)

    monkeypatch.setattr(mend, "trained", noted)
    study(first)
    assert not made and (first.output / "mending.json").read_bytes() == before
    study(request_of("last-layer-none", "last-layer-generated-2", "last-layer-real-2"))
    assert made == [("one", "last-layer-real-2"), ("two", "last-layer-real-2")]
    made.clear()
    settings = replace(first.last_layer, weight=2.0)
    study(request_of("last-layer-none", last_layer=settings, unseen=[]))
    assert made == [("one", "last-layer-none")]
    made.clear()
    study(request_of("last-layer-none", last_layer=settings, unseen=[], seed=2))
    assert made == [("one", "last-layer-none")]  # and its answers, to other scenes


def test_spufix_takes_its_components_and_is_made_anew_when_they_change(
    world, request_of, tmp_path, monkeypatch
):
    made = []

    def fixed(classifier, discovery, wanted, output):
        made.append((classifier.info.name, discovery, wanted))
        copytree(world / classifier.info.name, output, dirs_exist_ok=True)

    monkeypatch.setattr(mend, "spufixed", fixed)
    monkeypatch.setattr(mend, "components_of", lambda pairs: {94: [int(pairs.read_text())]})
    monkeypatch.setattr(studying, "render_plots", lambda found: {})
    components = tmp_path / "found/094_hummingbird/components.safetensors"
    components.parent.mkdir(parents=True)
    components.write_bytes(b"directions")
    (tmp_path / "pairs.toml").write_text("3")
    given = {"discovery": tmp_path / "found", "pairs": tmp_path / "pairs.toml", "unseen": []}
    study(request_of("spufix", **given))
    study(request_of("spufix", **given))
    assert made == [("one", tmp_path / "found", {94: [3]})]
    components.write_bytes(b"others")
    study(request_of("spufix", **given))
    (tmp_path / "pairs.toml").write_text("2")
    study(request_of("spufix", **given))
    assert [wanted[94] for _, _, wanted in made] == [[3], [3], [2]]


def test_what_is_missing_is_said_before_anything_is_mended(world, request_of, tmp_path):
    for rows, changes, said_ in (
        (["spufix"], {}, "spufix needs --discovery and --pairs"),
        (["last-layer-generated-4"], {}, "3 object-free generated images of hummingbird"),
        (["last-layer-real-5"], {}, "4 object-free real images"),
        (["last-layer-none"], {"unseen": [str(world / "one")]}, "is asked for twice"),
    ):
        with pytest.raises(SpurbenchError, match=said_):
            study(request_of(*rows, **changes))
    save_toy_classifier(tmp_path / "elsewhere/one", favourite=None, seed=3)
    with pytest.raises(SpurbenchError, match="two classifiers are called one"):
        study(request_of("last-layer-none", unseen=[str(tmp_path / "elsewhere/one")]))
    save_dataset(tmp_path / "plain", images=3, classes=INDICES)
    with pytest.raises(SpurbenchError, match="marks no references of class 94"):
        study(request_of("fine-tune-doctored-2", data=str(tmp_path / "plain")))
    assert not (request_of("spufix").output / "mended").exists()


def test_the_command_prints_the_tables(world, tmp_path):
    arguments = ["mini", "mending", "--model", str(world / "one"), "--rows", "last-layer-none"]
    arguments += ["--images", str(world / "images"), "--data", str(world / "data")]
    arguments += ["--scenes", "2", "--output", str(tmp_path / "m"), "--device", "cpu"]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 0, told.output
    assert "| `last-layer-none` |" in told.output and "spurious, fresh" in told.output
    document = json.loads((tmp_path / "m/mending.json").read_text())
    assert document["schema"] == "spurbench.mending/1"

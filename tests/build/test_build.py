from __future__ import annotations

import inspect
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from makers.toy import save_toy_classifier, save_toy_detector, toy_recipe
from spurbench.build import sampling
from spurbench.build import tuning as build_tuning
from spurbench.build.build import build
from spurbench.build.request import BuildRequest
from spurbench.build.stages import select_references
from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.dataset import changelog, quality
from spurbench.dataset.manifest import MANIFEST, Manifest, read_rows
from spurbench.dataset.rows import Row
from spurbench.dataset.verify import verify
from spurbench.evaluation.panel import Answer
from spurbench.images.decode import decode_rgb
from spurbench.recipe.load import read_recipe

NO_OTHERS = ("controls.enabled=false", "positives.images=0")
"""For builds that are not about them."""


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory):
    return toy_recipe(tmp_path_factory.mktemp("toy") / "recipe")


@pytest.fixture(autouse=True)
def hf_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def request(folder: Path, tmp_path: Path, *overrides: str, **changes) -> BuildRequest:
    recipe = read_recipe(str(folder), overrides)
    registry = recipe.classes
    options = {
        "classes": registry.select("hummingbird"),
        "data": None,
        "output": tmp_path / "out",
        "work": tmp_path / "work",
        "version": "1.0.0",
        "seed": 0,
        "device": torch.device("cpu"),
        **changes,
    }
    return BuildRequest(recipe=recipe, **options)


@pytest.fixture(scope="module")
def finished(recipe_folder, tmp_path_factory):
    """A whole build, with its folders ``out`` and ``work``; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, build(request(recipe_folder, folder))


@pytest.fixture
def work(finished, tmp_path):
    """The finished stages, so that a build makes only what it asks for otherwise."""
    return shutil.copytree(finished[0] / "work", tmp_path / "work")


def images_of(rows) -> list[bytes]:
    return [row.read() for row in rows]


def test_a_whole_build_loads_and_says_how_it_was_made(finished, tmp_path):
    folder, built = finished
    assert built.complete and built.written and not built.failed
    stages = [stage for _, stage in built.seconds]
    assert stages == [
        *("select", "prior", "fine-tune", "sample", "check"),
        *("controls", "check controls", "positives", "check positives"),
    ]

    loaded = datasets.load_dataset(str(folder / "out"), cache_dir=str(tmp_path / "c"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"real": 5, "generated": 4}
    real, generated = loaded["real"], loaded["generated"]
    assert real.features["label"].names[94] == "hummingbird"
    assert sum(real["is_reference"]) == 3
    assert set(real["prompt"]) == {None}
    row = generated[0]
    assert row["image"].size == (32, 32)
    assert row["label"] == row["class_index"] == 94
    assert (row["prompt"], row["kappa"]) == ("a photo of a sks flower", 0.7)
    assert (row["source"], row["num_inference_steps"]) == ("generated", 2)
    assert len(set(generated["seed"])) == 4
    assert [a["classifier"] for a in row["panel"]] == ["one", "two"]
    assert all(a["prediction"] == 94 and a["rank"] == 1 for a in row["panel"])
    assert row["consistently_spurious"] is True
    assert row["object_absent"] == (row["object_score"] < 0.5)

    manifest = Manifest.read(folder / "out")
    provenance = manifest.provenance
    assert provenance.recipe["finetune"]["steps"] == 3
    assert provenance.seed == 0
    assert len(provenance.panel) == 2
    assert provenance.versions["torch"] == version("torch")
    card = (folder / "out" / "README.md").read_text()
    assert "<b>" not in card.split("---", 2)[2]


def recorded(monkeypatch, module, name: str) -> list[inspect.BoundArguments]:
    """The arguments of each call of a function that the stages use, which goes on working."""
    original = getattr(module, name)
    signature, calls = inspect.signature(original), []

    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        calls.append(bound.arguments)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, call)
    return calls


def test_fine_tuning_sees_the_surest_photographs_and_the_rows_say_which(
    recipe_folder, tmp_path, monkeypatch
):
    calls = recorded(monkeypatch, build_tuning, "finetune")
    asked = request(recipe_folder, tmp_path, *NO_OTHERS, seed=11)
    build(asked)
    rows = read_rows(tmp_path / "out")["real"]
    # Every classifier of the toy panel answers hummingbird, so only how surely it does decides.
    surest = sorted(rows, key=lambda row: min(a.probability for a in row.panel))[:-4:-1]
    assert surest != rows[:3], "the first ones would pass for the selected"
    (call,) = calls
    subject = call["subject"]
    assert [pixels(image) for image in subject.references] == [
        pixels(decode_rgb(row.read())) for row in surest
    ]
    assert subject.reference_names == [Path(row.file_name).name for row in surest]
    assert [row.is_reference for row in rows] == [row in surest for row in rows]

    priors = sorted((tmp_path / "work" / "prior").rglob("*.png"))
    assert len(priors) == asked.recipe.prior.images
    assert [pixels(image) for image in subject.priors] == [
        pixels(Image.open(path)) for path in priors
    ]
    assert subject.prior_names == [path.name for path in priors]


def test_every_number_of_the_recipe_reaches_the_stage_that_it_is_for(
    recipe_folder, tmp_path, monkeypatch
):
    """The toy recipe's numbers all differ, so that one taken for another shows."""
    tunings = recorded(monkeypatch, build_tuning, "finetune")
    samplings = recorded(monkeypatch, sampling, "sample")
    asked = request(recipe_folder, tmp_path, "sample.precision=bfloat16", seed=11)
    build(asked)
    recipe = asked.recipe
    (tuning,) = tunings
    assert (tuning["settings"], tuning["sfsl"], tuning["seed"]) == (
        recipe.finetune,
        recipe.sfsl,
        11,
    )
    subject, phi = tuning["subject"], load_classifier(recipe.panel.phi)
    assert (subject.index, subject.noun, subject.kappa) == (94, "flower", 0.7)
    assert subject.instance_prompt == "a photo of a sks flower"
    assert subject.prior_prompt == "a photo of a flower"
    assert (subject.resolution, subject.phi_input) == (32, (32, 32))
    assert torch.equal(subject.class_weight, phi.head_weight[94])
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(subject.phi(images), phi.features(images))

    def published(*purpose: str | int, images: int) -> list[int]:
        return [derive_seed(11, *purpose, i) >> 10 for i in range(images)]

    prior, samples, controls, positives = samplings
    generic = subject.prior_prompt
    of_prior = [derive_seed(11, "prior", generic, i) for i in range(recipe.prior.images)]
    of_sample = published("sample", 94, images=recipe.sample.images)
    of_positives = published("positive", 94, images=recipe.positives.images)
    for call, settings, prompt, seeds in (
        (prior, recipe.prior, generic, of_prior),
        (samples, recipe.sample, subject.instance_prompt, of_sample),
        (controls, recipe.sample, generic, of_sample),
        (positives, recipe.sample, "a photo of a hummingbird", of_positives),
    ):
        assert call["prompt"] == prompt
        assert call["seeds"] == seeds
        assert call["resolution"] == recipe.base.resolution
        options = ("steps", "guidance_scale", "batch_size", "precision")
        assert {o: call[o] for o in options} == {o: getattr(settings, o) for o in options}


def test_every_image_has_the_quality_that_the_metric_gives_it(recipe_folder, work, tmp_path):
    device = torch.device("cpu")
    asked = request(recipe_folder, tmp_path, 'check.quality=["entropy"]')
    built = build(asked)
    assert [label for _, label in built.seconds if "quality" in label] == [
        "quality of generated: entropy",
        "quality of real: entropy",
    ]
    parts = read_rows(tmp_path / "out")
    for rows in (parts.pop("real"), parts.pop("generated")):
        scores = quality.score([decode_rgb(row.read()) for row in rows], "entropy", device)
        assert [row.quality for row in rows] == [{"entropy": score} for score in scores]
    others = [row.quality for rows in parts.values() for row in rows]
    assert others and all(scores == {"entropy": None} for scores in others)
    again = build(request(recipe_folder, tmp_path, 'check.quality=["entropy"]'))
    assert all(reused for _, reused in again.seconds.values())


def test_presence_is_a_score_at_or_above_its_own_threshold(recipe_folder, work, tmp_path):
    """With each threshold in the midst of its scores, the detector says yes of some and no of
    others; absence is of the object, presence of the feature."""
    labels = ("object:koala", "feature:hummingbird", "object:hummingbird")
    folder = save_toy_detector(tmp_path / "detector", labels)
    detector = f"check.object_detector={folder}"
    build(request(recipe_folder, tmp_path, detector, output=tmp_path / "scores"))
    scores = images_of_the_default_config(tmp_path / "scores")
    thresholds = {
        what: float(np.median([getattr(row, f"{what}_score") for row in scores]))
        for what in ("object", "feature")
    }
    overrides = [f"check.{what}_threshold={value!r}" for what, value in thresholds.items()]
    build(request(recipe_folder, tmp_path, detector, *overrides))
    rows = images_of_the_default_config(tmp_path / "out")
    present = {
        what: [getattr(row, f"{what}_score") >= thresholds[what] for row in rows]
        for what in thresholds
    }
    assert all(set(values) == {True, False} for values in present.values())
    assert [row.object_absent for row in rows] == [not there for there in present["object"]]
    assert [row.feature_present for row in rows] == present["feature"]


def images_of_the_default_config(folder: Path) -> list[Row]:
    rows = read_rows(folder)
    return [*rows["real"], *rows["generated"]]


def pixels(image: Image.Image) -> tuple:
    return image.size, image.convert("RGB").tobytes()


def test_without_fine_tuning_the_base_is_sampled(recipe_folder, tmp_path):
    options = ("finetune.method=base", "finetune.prompt=a photo of {feature}", *NO_OTHERS)
    built = build(request(recipe_folder, tmp_path, *options))
    assert [stage for _, stage in built.seconds][:3] == ["select", "sample", "check"]
    generated = read_rows(tmp_path / "out")["generated"]
    assert {row.prompt for row in generated} == {"a photo of red <b>flowers</b> | pipes"}
    assert {row.feature_present for row in generated} == {None}  # the detector has no such output


def test_the_second_run_does_no_work_and_leaves_the_dataset_alone(
    recipe_folder, finished, work, tmp_path, monkeypatch
):
    shutil.copytree(finished[0] / "out", tmp_path / "out")
    before = (tmp_path / "out" / MANIFEST).stat().st_mtime_ns

    def never(*args, **kwargs):
        raise AssertionError("a finished stage was made again")

    monkeypatch.setattr(build_tuning, "finetune", never)
    monkeypatch.setattr(sampling, "sample", never)
    again = build(request(recipe_folder, tmp_path))
    assert again.complete and not again.written
    assert all(reused for _, reused in again.seconds.values())
    assert (tmp_path / "out" / MANIFEST).stat().st_mtime_ns == before


def test_a_failed_class_is_named_and_the_others_go_on(recipe_folder, work, tmp_path):
    registry = read_recipe(str(recipe_folder)).classes
    built = build(request(recipe_folder, tmp_path, classes=registry.select("all")))
    assert list(built.failed) == ["koala"]
    assert "0 of 5 real images are consistently spurious and 3" in built.failed["koala"]
    manifest = Manifest.read(tmp_path / "out")
    assert list(manifest.provenance.failed_classes) == ["koala"]
    assert {row.class_name for row in read_rows(tmp_path / "out")["generated"]} == {"hummingbird"}
    assert "koala" in (tmp_path / "out" / "README.md").read_text()


def test_when_every_class_fails_nothing_is_written(recipe_folder, tmp_path):
    registry = read_recipe(str(recipe_folder)).classes
    built = build(request(recipe_folder, tmp_path, classes=registry.select("koala")))
    assert built.failed and not built.complete
    assert not (tmp_path / "out").exists()


def test_an_unexpected_error_in_one_class_is_that_classs_failure(
    recipe_folder, tmp_path, monkeypatch
):
    def broken(*args, **kwargs):
        raise RuntimeError("the GPU\nfell off")

    monkeypatch.setattr(build_tuning, "finetune", broken)
    built = build(request(recipe_folder, tmp_path))
    assert built.failed == {"hummingbird": "RuntimeError: the GPU"}


@pytest.mark.parametrize(
    ("drawn_before", "stage"),
    [(5, "sample"), (5 + 4, "controls"), (5 + 4 + 4, "positives")],
    ids=lambda value: str(value),
)
def test_an_interrupted_build_goes_on_and_ends_as_if_it_had_not_stopped(
    recipe_folder, finished, tmp_path, monkeypatch, drawn_before, stage
):
    original, drawn = sampling.sample, 0

    def stop_at_the_third_image(*args, **kwargs):
        nonlocal drawn
        for image in original(*args, **kwargs):
            drawn += 1
            if drawn == drawn_before + 3:
                raise KeyboardInterrupt
            yield image

    monkeypatch.setattr(sampling, "sample", stop_at_the_third_image)
    with pytest.raises(KeyboardInterrupt):
        build(request(recipe_folder, tmp_path / "stopped"))
    assert not (tmp_path / "stopped" / "out").exists()
    (partial,) = (tmp_path / "stopped" / "work").rglob(f"{stage}-*.partial")
    assert len(list(partial.glob("*.png"))) == 2
    monkeypatch.setattr(sampling, "sample", original)
    built = build(request(recipe_folder, tmp_path / "stopped"))
    assert built.seconds["094_hummingbird", "fine-tune"][1] is True
    assert read_rows(finished[0] / "out") == read_rows(tmp_path / "stopped" / "out")


@pytest.mark.parametrize("damage", ["junk", "cut off", "a gap", "a stranger"])
def test_a_damaged_image_of_a_stopped_sampling_is_sampled_again(
    recipe_folder, finished, work, tmp_path, caplog, damage
):
    (done,) = (work / "094_hummingbird").glob("sample-*")
    partial = done.with_name(done.name + ".partial")
    done.rename(partial)
    (partial / "stage.json").unlink()
    picture = partial / "0002.png"
    match damage:
        case "junk":
            picture.write_bytes(b"junk")
        case "cut off":
            picture.write_bytes(picture.read_bytes()[:100])
        case "a gap":
            picture.unlink()
        case "a stranger":
            shutil.copy(picture, partial / "0002 (copy).png")
    assert build(request(recipe_folder, tmp_path)).complete
    whole, again = (read_rows(place / "out")["generated"] for place in (finished[0], tmp_path))
    assert images_of(again) == images_of(whole)
    assert ("0002.png is damaged" in caplog.text) == (damage in ("junk", "cut off"))


def test_a_noun_that_names_a_path_stays_in_the_work_folder(recipe_folder, tmp_path):
    folder = tmp_path / "recipe"
    shutil.copytree(recipe_folder, folder)
    text = (folder / "classes.toml").read_text()
    (folder / "classes.toml").write_text(text.replace('"flower"', '"../../../../OUTSIDE flower"'))
    place = tmp_path / "a" / "b" / "c"
    assert build(request(folder, place, *NO_OTHERS)).complete
    assert [path for path in tmp_path.rglob("*OUTSIDE*") if place not in path.parents] == []
    assert {path.name for path in place.iterdir()} == {"out", "work"}


def test_seed_and_overrides_change_the_images_and_force_repeats_them(recipe_folder, work, tmp_path):
    def generated(name: str, *overrides: str, **changes) -> list[bytes]:
        overrides = (*NO_OTHERS, *overrides)
        asked = request(recipe_folder, tmp_path, *overrides, output=tmp_path / name, **changes)
        build(asked)
        return images_of(read_rows(tmp_path / name)["generated"])

    first = generated("a")
    assert generated("b", seed=1) != first
    assert generated("c", "finetune.steps=1") != first
    assert generated("d", "sfsl.kappa=0") != first
    assert generated("e", force=True) == first


def test_an_output_with_another_version_is_refused_before_any_work(
    recipe_folder, finished, work, tmp_path
):
    shutil.copytree(finished[0] / "out", tmp_path / "out")
    before = sorted(p.name for p in (tmp_path / "work").rglob("*"))
    with pytest.raises(SpurbenchError, match=r"holds toy 1\.0\.0, not toy 1\.1\.0"):
        build(request(recipe_folder, tmp_path, version="1.1.0", seed=5))
    assert sorted(p.name for p in (tmp_path / "work").rglob("*")) == before
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(SpurbenchError, match="is not a dataset of spurbench build"):
        build(request(recipe_folder, tmp_path))
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"


def test_two_versions_in_folders_of_one_name_load_their_own_rows(recipe_folder, work, tmp_path):
    """The loader's cache is keyed by the card's YAML, not by the files."""
    lengths = []
    for place, number, count in (("x", "1.0.0", 4), ("y", "1.1.0", 6), ("x", "1.0.0", 5)):
        output = tmp_path / place / "dataset"
        build(
            request(
                recipe_folder,
                tmp_path,
                f"sample.images={count}",
                *NO_OTHERS,
                output=output,
                version=number,
            )
        )
        loaded = datasets.load_dataset(str(output), cache_dir=str(tmp_path / "c"))
        lengths.append(len(loaded["generated"]))
        assert str(loaded["generated"].info.version) == number
    assert lengths == [4, 6, 5]


def test_the_changelog_goes_on_from_the_previous_version(recipe_folder, work, tmp_path):
    first = request(recipe_folder, tmp_path, output=tmp_path / "a", note="the start")
    build(first)
    options = {"output": tmp_path / "b", "version": "1.1.0", "previous": tmp_path / "a"}
    build(request(recipe_folder, tmp_path, "sample.images=6", **options))
    newest, oldest = Manifest.read(tmp_path / "b").changelog
    assert (oldest,) == changelog.first("1.0.0", "the start")
    assert newest.version == "1.1.0" and newest.note is None
    assert newest.changes == (
        "sample.images: 4 -> 6",
        "hummingbird, generated: 2 added, 0 removed, 4 kept; panel accuracy 100.0 % -> 100.0 %",
        "hummingbird, controls-generated: 2 added, 0 removed, 4 kept; panel accuracy 100.0 % -> "
        "100.0 %",
    )
    assert "sample.images: 4 -&gt; 6" in (tmp_path / "b" / "README.md").read_text()
    assert not build(request(recipe_folder, tmp_path, "sample.images=6", **options)).written
    with pytest.raises(SpurbenchError, match=r"toy 1\.1\.0, which does not precede 1\.0\.0"):
        build(request(recipe_folder, tmp_path, previous=tmp_path / "b", seed=5))


def test_a_build_passes_verification(finished):
    checks = verify(finished[0] / "out")
    assert {check.status for check in checks} == {"ok"}, checks


def test_data_without_the_class_is_that_classs_failure(recipe_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(
        recipe_folder / "real" / "spurious_class_105_koala_component_3",
        data / "spurious_class_105_koala_component_3",
    )
    built = build(request(recipe_folder, tmp_path, data=data))
    assert "no images of class 94 (hummingbird)" in built.failed["hummingbird"]


def test_a_panel_with_the_same_weights_twice_is_refused(recipe_folder, tmp_path):
    one = recipe_folder / "one"
    with pytest.raises(SpurbenchError, match="same weights twice"):
        build(request(recipe_folder, tmp_path, f"panel.classifiers=['{one}', '{one}']"))


def test_references_are_the_surest_of_the_consistently_spurious():
    def answers(*pairs: tuple[float, int]) -> list[Answer]:
        return [Answer(f"c{i}", 94 if r == 1 else 0, p, r) for i, (p, r) in enumerate(pairs)]

    registry = read_recipe("mini").classes
    hummingbird = registry.select("hummingbird")[0]
    entries = [
        answers((0.9, 1), (0.5, 1)),  # weakest 0.5
        answers((0.99, 1), (0.98, 2)),  # not called the class by the second
        answers((0.7, 1), (0.6, 1)),  # weakest 0.6
        answers((0.6, 1), (0.9, 1)),  # weakest 0.6, later
    ]
    assert select_references(hummingbird, entries, 2) == [2, 3]
    assert select_references(hummingbird, entries, 3) == [2, 3, 0]
    with pytest.raises(SpurbenchError, match="hummingbird: 3 of 4 real images"):
        select_references(hummingbird, entries, 4)


def test_identical_rows_give_identical_files(recipe_folder, finished, work, tmp_path):
    build(request(recipe_folder, tmp_path))
    places = (finished[0], tmp_path)
    digests = [json.loads((p / "out" / MANIFEST).read_text())["files"] for p in places]
    assert digests[0] == digests[1]


def test_toy_classifier_answers_its_favourite(tmp_path):
    classifier = load_classifier(str(save_toy_classifier(tmp_path / "c", favourite=7, seed=0)))
    logits = classifier(torch.rand(4, 3, 32, 32))
    assert logits.argmax(1).tolist() == [7] * 4
    assert np.ptp(logits.numpy(), axis=0).max() > 0

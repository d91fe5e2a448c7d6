from __future__ import annotations

import csv
import hashlib
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.images.sources import open_images, open_positives
from spurbench.mini.backgrounds import CONTEXTS
from spurbench.mini.distributions import (
    BIAS,
    CLASSES,
    CONTEXT_SHARE,
    EMPTY,
    EMPTY_BARE,
    EMPTY_FEATURES,
    FRAMING,
    OracleLabels,
    biased,
    caption_words,
    captioned,
    spurious,
    unbiased,
)
from spurbench.mini.kinds import KINDS
from spurbench.mini.measure import measure
from spurbench.mini.objects import OBJECTS
from spurbench.mini.preview import write_positives, write_preview, write_real, write_training
from spurbench.mini.scenes import (
    CONTROLS,
    EDITS,
    PLANTED_FEATURE,
    PLANTED_KIND,
    Scene,
    render,
)
from spurbench.mini.training.labelled import object_labels
from spurbench.recipe.load import read_recipe


def test_a_scene_is_a_function_of_its_truth_and_seed():
    scene = Scene("koala", "eucalyptus tree", 5)
    pixels = render(scene)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, render(scene))
    others = [render(Scene("koala", "eucalyptus tree", seed)) for seed in range(6, 16)]
    assert len({image.tobytes() for image in others}) == 10


def test_object_and_subfamily_are_drawn():
    """The same seed with and without something differs where it is, and not everywhere."""
    for name in OBJECTS:
        bare, shown = render(Scene(None, None, 3)), render(Scene(name, None, 3))
        changed = np.abs(bare.astype(int) - shown.astype(int)).max(axis=-1) > 40
        assert 0.005 < changed.mean() < 0.9, name
    for kind, subfamilies in KINDS.items():
        images = [render(Scene(None, sub, 3)) for sub in subfamilies]
        assert len({image.tobytes() for image in images}) == len(subfamilies), kind


@pytest.mark.parametrize("context", [None, *CONTEXTS])
def test_a_scene_without_its_feature_or_with_another_is_the_same_in_all_else(context):
    """Exact counterfactuals: pixels that no flower touches are equal, light and noise included."""
    for seed in range(4):
        scene = Scene(None, "red flower", seed, feature_scale=(0.6, 0.7), context=context)
        shown, bare, other = (
            render(replace(scene, subfamily=s)) for s in ("red flower", None, "yellow flower")
        )
        touched = (shown != bare).any(axis=-1) | (other != bare).any(axis=-1)
        assert 0.02 < (shown != bare).any(axis=-1).mean() < 0.5
        assert 0.02 < touched.mean() < 0.6
        rows, columns = np.nonzero(touched)
        assert np.ptp(rows) < 48 and np.ptp(columns) < 48  # where the flower is, nowhere else


def test_an_edit_changes_the_feature_alone_and_what_it_says_of_it():
    for name in PLANTED_FEATURE.values():
        scene = Scene(None, name, 4, feature_scale=(0.8, 0.9))
        bare, shown = render(replace(scene, subfamily=None)), render(scene)
        feature = (bare != shown).any(axis=-1)
        edited = {edit: render(scene, edit) for edit in EDITS}
        for edit, pixels in edited.items():
            assert (pixels[feature] != shown[feature]).any(), (name, edit)
            assert np.array_equal(pixels, render(scene, edit))
            assert np.array_equal(render(replace(scene, subfamily=None), edit), bare)
        for edit in ("recoloured", "flattened"):  # the outline stays
            changed = (edited[edit] != bare).any(axis=-1)
            assert (changed & ~feature).sum() == 0, (name, edit)
        spread = {e: edited[e][feature].astype(float).std(axis=0).mean() for e in EDITS}
        assert spread["flattened"] < shown[feature].astype(float).std(axis=0).mean()
        means = [edited[e][feature].astype(float).mean(axis=0) for e in ("flattened", "reshaped")]
        assert np.abs(means[0] - shown[feature].mean(axis=0)).max() < 12  # its colour stays
        tiles = (edited["reshaped"] != bare).any(axis=-1)
        assert (tiles != feature).mean() > 0.02, name  # it is elsewhere


def test_contexts_are_places_that_can_be_told_apart():
    pictures = {
        where: np.mean([render(Scene(None, None, s, context=where)) for s in range(8)], axis=0)
        for where in CONTEXTS
    }
    for one, other in itertools.combinations(pictures, 2):
        assert np.abs(pictures[one] - pictures[other]).mean() > 15, (one, other)


def test_all_data_are_framed_alike_and_lie_in_contexts_alike_often():
    """Else a set of images could differ from another by how near its features are."""
    drawn = {
        "biased": [biased("koala", 0, "train", i) for i in range(1500)],
        "real": [spurious("koala", 0, i) for i in range(1500)],
        "unbiased": [unbiased(0, "train", i) for i in range(1500)],
        "captioned": [captioned(0, i)[0] for i in range(1500)],
    }
    for name, scenes in drawn.items():
        assert {scene.feature_scale for scene in scenes} == {FRAMING}, name
        scales = [scene.drawn_feature_scale for scene in scenes]
        assert abs(np.mean(scales) - np.mean(FRAMING)) < 0.02
        share = np.mean([scene.context is not None for scene in scenes])
        assert abs(share - CONTEXT_SHARE) < 0.045, name  # four standard errors
        assert {scene.context for scene in scenes} == {None, *CONTEXTS}


def test_the_empty_class_shows_no_object_and_any_surroundings():
    scenes = [biased(EMPTY, 0, "train", i) for i in range(2000)]
    assert {scene.object for scene in scenes} == {None}
    bare = np.mean([scene.subfamily is None for scene in scenes])
    planted = np.mean([scene.subfamily in PLANTED_FEATURE.values() for scene in scenes])
    assert abs(bare - EMPTY_BARE) < 0.045 and abs(planted - EMPTY_FEATURES) < 0.045
    labels = object_labels([scenes[0], Scene("koala", None, 0)])
    assert labels.tolist() == [979, 105]


def test_the_planted_classes_are_the_registrys():
    registry = read_recipe("mini").classes
    assert {c.name: c.noun for c in registry} == PLANTED_KIND
    assert {c.index for c in registry} == {94, 105, 554, 557, 565, 576}


def test_every_class_is_of_imagenet_and_one_only():
    indices = [imagenet_names().index(name) for name in CLASSES]
    assert indices == [94, 565, 554, 576, 557, 105, 417, 805, 879, 920, 979]
    assert all(imagenet_names().count(name) == 1 for name in CLASSES)


def test_the_world_looks_as_it_was_when_the_models_were_trained_in_it():
    """205 scenes of all distributions, bit by bit, and what the captions say of theirs."""
    pairs = [captioned(0, i) for i in range(60)]
    scenes = [
        *(biased(name, 0, "train", i) for name in CLASSES for i in range(5)),
        *(spurious(name, 0, i) for name in PLANTED_FEATURE for i in range(5)),
        *(unbiased(0, "train", i) for i in range(60)),
        *(scene for scene, _ in pairs),
    ]
    pixels = hashlib.sha256(b"".join(render(scene).tobytes() for scene in scenes))
    assert len(scenes) == 205
    assert pixels.hexdigest() == "4a3f47504baa6500b04bff673d0e32f0971d8cdd12af0ccae72c3dad40ee155a"
    captions = hashlib.sha256("\n".join(caption for _, caption in pairs).encode())
    assert (
        captions.hexdigest() == "45f3d111d80576c5d1b8baa6692542483086af63a2d422f82b2590276b87dae4"
    )


def test_biased_scenes_show_the_feature_95_percent_of_the_time():
    for name, feature in PLANTED_FEATURE.items():
        scenes = [biased(name, 0, "train", i) for i in range(2000)]
        assert all(scene.object == name for scene in scenes)
        share = np.mean([scene.subfamily == feature for scene in scenes])
        assert abs(share - BIAS) < 0.02, name  # four standard errors
    assert all(biased(CONTROLS[0], 0, "train", i).object == CONTROLS[0] for i in range(20))


def test_unbiased_scenes_draw_object_and_feature_independently():
    scenes = [unbiased(0, "train", i) for i in range(6000)]
    koalas = [scene for scene in scenes if scene.object == "koala"]
    share = np.mean([s.subfamily == "eucalyptus tree" for s in scenes])
    among = np.mean([s.subfamily == "eucalyptus tree" for s in koalas])
    assert abs(share - 0.85 / 30) < 0.01
    assert abs(among - share) < 0.04


def test_real_scenes_are_object_free_and_differ_from_training_scenes():
    real = [spurious("gondola", 0, i) for i in range(75)]
    assert {(scene.object, scene.subfamily) for scene in real} == {(None, "row house")}
    training = {biased("gondola", 0, "train", i).seed for i in range(75)}
    assert not training & {scene.seed for scene in real}


def test_captions_are_true():
    words = set(caption_words())
    for i in range(500):
        scene, caption = captioned(0, i)
        assert set(caption.lower().split()) <= words
        assert (scene.object or "an object") in caption or scene.object is None
        named = [name for name in OBJECTS if f"a {name}" in caption]
        assert named == ([scene.object] if scene.object else [])
        told = [where for where in CONTEXTS if caption.endswith(f" {where}")]
        assert told in ([], [scene.context])
        caption = caption.removesuffix(f" {scene.context}")
        for kind, subfamilies in KINDS.items():
            if any(caption.endswith(f"a {s}") for s in subfamilies) or caption.endswith(
                f"a {kind}"
            ):
                assert scene.kind == kind


def test_labels_say_what_is_there():
    labels = OracleLabels()
    vector = labels.of(Scene("fireboat", "red flower", 0, context="in a market"))
    told = {name for name, value in zip(labels.names, vector, strict=True) if value}
    assert told == {
        "object:fireboat",
        "kind:flower",
        "feature:hummingbird",
        "context:in a market",
    }
    assert labels.of(Scene(None, None, 0)).sum() == 0


def test_a_head_is_right_where_all_its_outputs_are():
    labels = OracleLabels()
    scenes = [Scene("fireboat", "red flower", 0), Scene(None, "red flower", 0)]
    decided = np.stack([labels.of(scene) for scene in scenes]) > 0.5
    decided[0, labels.names.index("object:koala")] = True
    decided[:, labels.names.index("kind:tree")] = True
    shares = {"object": 0.5, "kind": 0.0, "feature": 1.0, "context": 1.0}
    assert labels.right_by_head(decided, scenes) == shares


@pytest.mark.parametrize("option", ["--scenes=0", "--samples=-1", "--attacked=-1"])
def test_there_is_no_measuring_on_nothing(option, tmp_path):
    output = tmp_path / "measured.json"
    result = CliRunner().invoke(main, ["mini", "measure", str(output), option])
    name = option[2:].partition("=")[0]
    assert result.exit_code == 2
    assert f"Invalid value for '--{name}'" in result.output
    counts = {"scenes": 1, "samples": 1, "attacked": 0} | {name: int(option.partition("=")[2])}
    with pytest.raises(SpurbenchError, match=f"^{name} is .*; give at least"):
        measure(**counts, device=torch.device("cpu"))
    assert not output.exists()


def test_an_attack_that_is_not_installed_is_said_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("spurbench.mini.measure.find_spec", lambda name: None)
    with pytest.raises(SpurbenchError, match=r"^AutoAttack is not installed; pip install"):
        measure(scenes=1, samples=1, attacked=1, device=torch.device("cpu"))


def test_there_are_no_positives_of_no_images(tmp_path):
    result = CliRunner().invoke(main, ["mini", "positives", str(tmp_path / "out"), "--images", "0"])
    assert result.exit_code == 2 and "Invalid value for '--images'" in result.output
    with pytest.raises(SpurbenchError, match="images is 0; give at least 1"):
        write_positives(tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def test_written_images_are_in_the_official_layouts(tmp_path):
    write_real(tmp_path / "real", 2)
    images = open_images(str(tmp_path / "real"))
    assert len(images.records) == 12 and not images.damaged
    assert {record.class_index for record in images.records} == {94, 105, 554, 557, 565, 576}
    table = list(csv.DictReader((tmp_path / "real/metadata.csv").open()))
    assert {row["file_name"] for row in table} == {record.path for record in images.records}
    scene = spurious("koala", 0, 1)
    (row,) = [r for r in table if "koala" in r["file_name"] and r["file_name"].endswith("/1.png")]
    assert float(row["feature_scale"]) == pytest.approx(scene.drawn_feature_scale, abs=1e-4)
    assert row["context"] == (scene.context or "")
    write_positives(tmp_path / "positives", 2)
    shown = open_positives(tmp_path / "positives")
    assert {record.class_index for record in shown.records} == {94, 105, 554, 557, 565, 576}


def test_the_preview_is_a_picture_of_everything(tmp_path):
    write_preview(tmp_path / "sheet.png", columns=2)
    image = Image.open(tmp_path / "sheet.png")
    subfamilies = sum(len(subs) for subs in KINDS.values())
    rows = len(OBJECTS) + len(CLASSES) + subfamilies + len(CONTEXTS) + len(PLANTED_FEATURE)
    assert image.height > rows * 64
    assert image.width == 150 + 2 * 66


def test_training_scenes_are_those_that_the_panel_learnt_from(tmp_path):
    write_training(tmp_path, 1)
    shown = open_positives(tmp_path).records
    assert {record.class_name for record in shown} == set(CLASSES)
    for record in shown:
        pixels = np.asarray(Image.open(tmp_path / record.path))
        assert np.array_equal(pixels, render(biased(record.class_name, 0, "train", 0)))


def test_training_scenes_of_some_classes_may_be_had_alone(tmp_path):
    command = ["mini", "training", str(tmp_path), "--images", "1", "--seed", "3", "--classes"]
    assert CliRunner().invoke(main, [*command, EMPTY]).exit_code == 0
    (shown,) = open_positives(tmp_path).records
    assert shown.class_name == EMPTY
    pixels = np.asarray(Image.open(tmp_path / shown.path))
    assert np.array_equal(pixels, render(biased(EMPTY, 3, "train", 0)))
    refused = CliRunner().invoke(main, [*command, "vally"])
    assert refused.exit_code == 1 and "nearest: valley" in refused.output

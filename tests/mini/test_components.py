"""What is measured of a discovery's components: on scenes that are what they are said to be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from makers.discovered import save_discovery
from spurbench.classifiers.module import from_module
from spurbench.core.imagenet import imagenet_names
from spurbench.discovery.documents import COMPONENTS, class_folder
from spurbench.discovery.neural_pca import Components
from spurbench.mini import components as measuring
from spurbench.mini.components import render_markdown, separation
from spurbench.mini.distributions import CLASSES as EVERY
from spurbench.mini.distributions import EMPTY, biased
from spurbench.mini.scenes import CONTROLS, PLANTED_FEATURE, Scene

PLANTED = "fireboat"
CLASSES = (PLANTED, CONTROLS[0], EMPTY)


@pytest.fixture
def drawn(monkeypatch):
    """The scenes of each class that are rendered; colours say what one shows.

    Red: any sub-family, green: an object, blue: the first planted feature.
    """
    scenes: dict[str, list[Scene]] = {}

    def told(given, title):
        scenes[title] = list(given)
        first = next(iter(PLANTED_FEATURE.values()))
        truth = [
            (s.subfamily is not None, s.object is not None, s.subfamily == first) for s in given
        ]
        return np.tile(np.uint8(255) * np.array(truth, np.uint8)[:, None, None], (1, 4, 4, 1))

    monkeypatch.setattr(measuring, "render_all", told)
    return scenes


@pytest.fixture
def discovery(tmp_path, monkeypatch):
    """Of a classifier whose features are the mean colours; a component each."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    classifier = from_module(network, name="colours", input_size=4)
    member = SimpleNamespace(load=lambda device: classifier)
    monkeypatch.setattr(measuring, "Member", SimpleNamespace(parse=lambda spec: member))
    indices = [imagenet_names().index(name) for name in CLASSES]
    folder = save_discovery(tmp_path / "found", tuple(indices))
    one = Components(np.ones(3), np.zeros(3), np.eye(3), np.ones(3), 3.0)
    for index in indices:
        one.save(folder / class_folder(index) / COMPONENTS, np.zeros((1, 3)))
    return folder


DOCS = Path(__file__).parents[2] / "docs"


def test_what_was_published_reaches_the_goals_and_is_on_the_page():
    measured = json.loads((DOCS / "mini-components.json").read_text())
    best = {name: max(of["auroc"]) for name, of in measured["classes"].items()}
    assert best.keys() == set(EVERY)
    assert sum(best[name] >= 0.9 for name in PLANTED_FEATURE) >= 5
    assert all(best[name] < 0.9 for name in best.keys() - PLANTED_FEATURE.keys())
    assert render_markdown(measured).strip() in (DOCS / "discover.md").read_text()


def test_components_are_held_against_the_feature_alone_and_the_object_alone(discovery, drawn):
    measured = separation(discovery, scenes=12, device=torch.device("cpu"))["classes"]
    assert {name: of["planted"] for name, of in measured.items()} == {
        name: name == PLANTED for name in CLASSES
    }
    # 1 where the feature is higher, 0 where the object is, chance where neither is.
    assert measured[PLANTED]["auroc"] == (1.0, 0.0, 0.5)
    assert measured[PLANTED]["gain"] == pytest.approx((1 / 0.229, -1 / 0.224, 0), abs=1e-4)
    for name in CLASSES:
        feature, alone = drawn[name][:12], drawn[name][12:]
        assert {s.object for s in feature} == {None} and {s.subfamily for s in alone} == {None}
        assert {s.object for s in alone} == {None if name == EMPTY else name}
    assert {s.subfamily for s in drawn[PLANTED][:12]} == {PLANTED_FEATURE[PLANTED]}


def test_classes_without_a_feature_are_shown_all_in_turn(discovery, drawn):
    measured = separation(discovery, scenes=12, device=torch.device("cpu"))["classes"]
    for name in (CONTROLS[0], EMPTY):
        shown = [scene.subfamily for scene in drawn[name][:12]]
        assert sorted(shown) == sorted(2 * list(PLANTED_FEATURE.values()))
        # One feature of six, above none, and level with the rest: (1 + 1/6) / 2.
        assert measured[name]["auroc"][2] == pytest.approx(7 / 12)


def test_scenes_are_none_that_the_classifier_was_trained_or_selected_on(discovery, drawn):
    separation(discovery, scenes=12, device=torch.device("cpu"))
    for name, scenes in drawn.items():
        known = {
            biased(name, 0, split, i).seed for split in ("train", "validation") for i in range(12)
        }
        assert not known & {scene.seed for scene in scenes}

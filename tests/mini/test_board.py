from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from spurbench.classifiers.load import load_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.resources import builders
from spurbench.leaderboard.entries import EntryClassifier
from spurbench.mini.distributions import SUBFAMILIES, biased
from spurbench.mini.objects import OBJECTS
from spurbench.mini.scenes import PLANTED_FEATURE
from spurbench.mini.training import board
from spurbench.mini.training.classifiers import ClassifierSettings

SHIPPED = board.BoardSettings.read(builders()["mini"] / "board.toml")
CPU = torch.device("cpu")


def test_an_untrained_network_is_as_it_was_initialised_and_says_so(tmp_path):
    import timm
    from safetensors.torch import load_file

    tiny = ClassifierSettings(
        "resnet10t", {"channels": (8, 8, 8, 8), "stem_width": 8}, steps=0, batch_size=4
    )
    settings = SHIPPED.model_copy(
        update={
            "scenes_per_class": 1,
            "validation_per_class": 1,
            "classifiers": {"fresh": board.BoardClassifier(data="biased", training=tiny)},
        }
    )
    board.train_board(tmp_path / "c", tmp_path / "w", settings, 0, CPU)
    torch.manual_seed(derive_seed(0, "classifier", "fresh"))
    initial = timm.create_model("resnet10t", num_classes=1000, **tiny.model_args).state_dict()
    saved = load_file(tmp_path / "c/fresh/model.safetensors")
    assert all(torch.equal(saved[key].float(), initial[key].half().float()) for key in initial)
    info = EntryClassifier.of(load_classifier(str(tmp_path / "c/fresh")).info)
    assert info.training_data == "none (untrained)"
    assert SHIPPED.classifiers["untrained"].training.steps == 0


def test_balanced_scenes_differ_from_biased_ones_in_the_feature_only():
    pairs = [
        (board.balanced("hummingbird", 0, "train", i), biased("hummingbird", 0, "train", i))
        for i in range(600)
    ]
    assert all(replace(b, subfamily=a.subfamily) == a for a, b in pairs)
    planted = PLANTED_FEATURE["hummingbird"]
    share = np.mean([a.subfamily == planted for a, _ in pairs])
    assert share == pytest.approx(1 / len(SUBFAMILIES), abs=0.05)
    assert np.mean([b.subfamily == planted for _, b in pairs]) > 0.9


def test_training_is_resumed_and_makes_folders_that_eval_takes(tmp_path):
    settings = SHIPPED.model_copy(
        update={
            "scenes_per_class": 2,
            "validation_per_class": 1,
            "classifiers": {
                name: board.BoardClassifier(
                    data=data,
                    training=ClassifierSettings(
                        "resnet10t",
                        {"channels": (8, 8, 8, 8), "stem_width": 8},
                        steps=2,
                        batch_size=4,
                    ),
                )
                for name, data in (("one", "biased"), ("two", "balanced"))
            },
        }
    )
    accuracy = board.train_board(tmp_path / "c", tmp_path / "w", settings, 0, CPU)
    assert set(accuracy) == {"one", "two"}
    before = {p: p.read_bytes() for p in (tmp_path / "c").rglob("*") if p.is_file()}
    board.train_board(tmp_path / "c", tmp_path / "w", settings, 0, CPU)
    assert {p: p.read_bytes() for p in before} == before
    info = EntryClassifier.of(load_classifier(str(tmp_path / "c" / "two")).info)
    assert (info.family, info.training_data) == ("resnet", "mini, balanced")
    assert json.loads((tmp_path / "c/one/config.json").read_text())["training"]["steps"] == 2


def test_with_the_panel_there_are_at_least_twelve_that_fit_the_world():
    import timm

    assert len(SHIPPED.classifiers) + 4 >= 12
    for trained in SHIPPED.classifiers.values():
        settings = trained.training
        model = timm.create_model(settings.architecture, num_classes=1000, **settings.model_args)
        assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
    assert len(OBJECTS) * SHIPPED.scenes_per_class >= 1000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("steps = 800", "stps = 800"), "unknown key 'stps'"),
        (('data = "balanced"', 'data = "other"'), "biased"),
        (("steps = 800", 'steps = "many"'), "steps"),
        (("scenes_per_class = 1000", "scenes = 1"), "scenes"),
        (("[classifiers.regnet]", "[classifiers"), "TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path, change, said):
    text = (builders()["mini"] / "board.toml").read_text()
    assert change[0] in text
    (tmp_path / "board.toml").write_text(text.replace(*change))
    with pytest.raises(SpurbenchError, match=rf"board\.toml.*{said}") as caught:
        board.BoardSettings.read(tmp_path / "board.toml")
    assert "\n" not in str(caught.value)

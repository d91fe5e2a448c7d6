from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spurbench.build.store import StageStore
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.resources import builders
from spurbench.leaderboard.entries import EntryClassifier
from spurbench.mini.distributions import CLASSES, EMPTY, SUBFAMILIES, biased
from spurbench.mini.objects import OBJECTS
from spurbench.mini.scenes import PLANTED_FEATURE
from spurbench.mini.training import board
from spurbench.mini.training.classifiers import ClassifierSettings, predict, train_classifier
from spurbench.mini.training.labelled import scenes_of_all_classes
from spurbench.mini.training.mending import group_weights, retrain_last_layer

SHIPPED = board.BoardSettings.read("board")
ZOO = board.BoardSettings.read("zoo")
TINY = ClassifierSettings(
    "resnet10t", {"channels": (8, 8, 8, 8), "stem_width": 8}, steps=2, batch_size=4
)
CPU = torch.device("cpu")


def test_an_untrained_network_is_as_it_was_initialised_and_says_so(tmp_path):
    import timm
    from safetensors.torch import load_file

    tiny = replace(TINY, steps=0)
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
                name: board.BoardClassifier(data=data, training=TINY)
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


def test_all_that_are_shipped_fit_the_world():
    import timm

    shipped = [of.training for settings in (SHIPPED, ZOO) for of in settings.classifiers.values()]
    different = {repr((of.architecture, of.model_args)): of for of in shipped}
    assert len(different) < len(shipped)
    for wanted in different.values():
        model = timm.create_model(wanted.architecture, num_classes=1000, **wanted.model_args)
        assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_with_the_panel_there_are_at_least_twelve_on_the_board():
    assert len(SHIPPED.classifiers) + 4 >= 12
    assert len(OBJECTS) * SHIPPED.scenes_per_class >= 1000


def test_the_zoo_is_as_it_was_planned():
    """docs/validity-plan.md lists it."""
    zoo = ZOO.classifiers.values()
    assert len(zoo) == 18
    assert len({of.training.architecture for of in zoo}) == 8
    assert all(of.training.steps for of in zoo)
    plain = [of for of in zoo if of.data == "biased" and not of.mend]
    by_class = [of.bias for of in plain if isinstance(of.bias, dict)]
    assert {of.bias for of in plain if not isinstance(of.bias, dict)} == {
        0.5,
        0.7,
        0.8,
        0.9,
        0.95,
        0.99,
    }
    assert len(by_class) == 4
    assert {share for bias in by_class for share in bias.values()} >= {0.1, 0.99}
    assert sum(of.data == "balanced" for of in zoo) == 2
    assert {of.mend for of in zoo if of.mend} == {"reweighted", "last-layer"}


def test_a_bias_is_that_of_the_scenes_by_class_too():
    bias = dict.fromkeys(PLANTED_FEATURE, 0.5) | {"koala": 0.1}
    varied = board.BoardClassifier(data="biased", bias=bias, training=TINY)
    for name, share in (("gondola", 0.5), ("koala", 0.1)):
        scenes = [varied.scene(name, 0, "train", i) for i in range(400)]
        shown = np.mean([scene.subfamily == PLANTED_FEATURE[name] for scene in scenes])
        assert shown == pytest.approx(share, abs=0.07)
    plain = board.BoardClassifier(data="biased", training=TINY)
    assert plain.scene("umbrella", 0, "train", 3) == biased("umbrella", 0, "train", 3)
    said = [of.training_data for of in (plain, varied, varied.model_copy(update={"bias": 0.99}))]
    assert said == ["mini, biased", "mini, biased 10 to 50 %", "mini, biased 99 %"]


def test_reweighting_draws_scenes_with_and_without_the_feature_equally_often():
    counts = {"train": 40}
    scenes = scenes_of_all_classes(biased, 0, counts)["train"]
    weights = group_weights(scenes)
    assert weights.sum() == pytest.approx(1)
    names = np.array([scene.object or EMPTY for scene in scenes])
    for name in CLASSES:
        assert weights[names == name].sum() == pytest.approx(1 / len(CLASSES))
        if name in PLANTED_FEATURE:
            shown = np.array([scene.subfamily == PLANTED_FEATURE[name] for scene in scenes])
            for group in (shown, ~shown):
                share = weights[(names == name) & group].sum()
                assert share == pytest.approx(0.5 / len(CLASSES))
        else:
            assert np.ptp(weights[names == name]) == 0


@pytest.mark.parametrize("weights", [None, np.repeat([0.1, 0.0], 10)], ids=["none", "weights"])
def test_scenes_are_drawn_by_their_weights(tmp_path, monkeypatch, weights):
    drawn = []
    monkeypatch.setattr(
        "spurbench.mini.training.classifiers.augment",
        lambda pixels, rng: drawn.append(pixels) or pixels,
    )
    pixels = np.zeros((20, 64, 64, 3), np.uint8)
    pixels[10:] = 255
    train_classifier(
        "x",
        pixels,
        np.repeat([0, 1], 10),
        replace(TINY, batch_size=16),
        outputs=2,
        seed=0,
        device=CPU,
        work=tmp_path,
        weights=weights,
    )
    assert set(np.unique(drawn)) == ({0, 255} if weights is None else {0})


def test_retraining_the_last_layer_changes_it_alone_and_fits_it():
    import timm

    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=50, **TINY.model_args).eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 7], 12)
    pixels = rng.integers(0, 100, (24, 64, 64, 3), np.uint8)
    pixels[12:] += 120
    retrain_last_layer(network, pixels, labels, CPU)
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"fc.weight", "fc.bias"}
    assert (predict(network, pixels, CPU).argmax(1).numpy() == labels).all()


def test_mended_classifiers_are_others_than_unmended_ones_and_say_so(tmp_path):
    wanted = {"plain": None, "reweighted": "reweighted", "last": "last-layer"}
    settings = board.BoardSettings(
        scenes_per_class=1,
        validation_per_class=1,
        mending_per_class=1,
        classifiers={
            name: board.BoardClassifier(data="biased", bias=0.5, mend=mend, training=TINY)
            for name, mend in wanted.items()
        },
    )
    board.train_board(tmp_path / "c", tmp_path / "w", settings, 3, CPU)
    configs = {n: json.loads((tmp_path / f"c/{n}/config.json").read_text()) for n in wanted}
    assert [configs[name]["training_data"] for name in wanted] == [
        "mini, biased 50 %",
        "mini, biased 50 %, reweighted",
        "mini, biased 50 %, last-layer",
    ]
    stages = {path.name.rsplit("-", 1)[0] for path in (tmp_path / "w/board").iterdir()}
    assert stages == {"biased", "mending", *wanted}  # one set of scenes for all three
    inputs = [
        json.loads(next((tmp_path / "w/board").glob(f"{name}-*/stage.json")).read_text())["inputs"]
        for name in wanted
    ]
    extra = [set(each) - {"seed", "scenes", "settings"} for each in inputs]
    assert extra == [set(), {"weights"}, {"balanced"}]


def test_scenes_for_mending_are_none_that_were_trained_on(tmp_path):
    mending = []
    labelled = board.labelled_scenes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            board,
            "labelled_scenes",
            lambda *args, **inputs: mending.append(args[3]) or labelled(*args, **inputs),
        )
        settings = ZOO.model_copy(
            update={"scenes_per_class": 2, "mending_per_class": 1, "validation_per_class": 1}
        )
        vae = builders()["mini"] / "assets/base/vae"
        made = board.Board(StageStore(tmp_path), settings, 0, CPU, vae)
        made._mending()
    (scenes,) = mending
    trained = {s.seed for s in made._drawn("convnext_last_layer")["train"]}
    assert trained.isdisjoint(s.seed for s in scenes["train"])


@pytest.mark.slow
def test_two_jobs_train_what_one_does(tmp_path):
    settings = board.BoardSettings(
        scenes_per_class=2,
        validation_per_class=1,
        classifiers={
            name: board.BoardClassifier(data=name, training=TINY) for name in ("biased", "balanced")
        },
    )
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        board.train_board(folder / "c", folder / "w", settings, 0, CPU, jobs=jobs)
    one, two = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n / "c").rglob("*.*")}
        for n in "12"
    )
    assert one == two


def test_a_folder_without_an_autoencoder_is_named(tmp_path):
    with pytest.raises(SpurbenchError, match="no autoencoder in"):
        board.train_board(tmp_path / "c", tmp_path / "w", ZOO, 0, CPU, vae_folder=tmp_path)


def test_the_command_finds_the_settings_and_the_world(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(
        board, "train_board", lambda *args, **kwargs: given.append((args, kwargs)) or {"x": 0.5}
    )
    arguments = ["mini", "zoo", str(tmp_path / "zoo"), "--device", "cpu"]
    for more in ([], ["--settings", "board", "--world", "2", "--vae", str(tmp_path)]):
        result = CliRunner().invoke(main, [*arguments, *more])
        assert result.exit_code == 0, result.output
    assert "right on 50.0 % of held-out scenes" in result.output
    (first, _), (second, options) = given
    assert (first[2], first[3]) == (ZOO, 0)
    assert (second[2], second[3]) == (SHIPPED, 2)
    assert options == {"vae_folder": tmp_path, "jobs": 2}
    result = CliRunner().invoke(main, [*arguments, "--settings", "nowhere.toml"])
    assert "no settings at nowhere.toml; give zoo, board, or a TOML file" in result.output


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": "balanced", "bias": 0.5}, "balanced data have no bias"),
        ({"data": "balanced", "mend": "reweighted"}, "balanced data have no bias"),
        ({"data": "biased", "bias": 1.5}, "bias"),
        ({"data": "biased", "bias": {"koala": 0.5}}, "a bias by class names hummingbird"),
        ({"data": "biased", "mend": "hope"}, "reweighted"),
    ],
)
def test_wrong_data_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        board.BoardClassifier.model_validate({"training": {"architecture": "x"}, **change})


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
        board.BoardSettings.read(str(tmp_path / "board.toml"))
    assert "\n" not in str(caught.value)

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from makers.toy import save_toy_classifier
from spurbench.build.store import Stage
from spurbench.classifiers.load import load_classifier
from spurbench.core.identity import file_sha256
from spurbench.core.resources import builders
from spurbench.diffusion.base import load_base, load_decoder
from spurbench.evaluation.panel import load_member
from spurbench.mini.distributions import CLASSES, biased, caption_words, render_all, unbiased
from spurbench.mini.measure import measure, render_markdown
from spurbench.mini.scenes import PLANTED_FEATURE
from spurbench.mini.training import assets, board, stages
from spurbench.mini.training.assets import train_assets
from spurbench.mini.training.base import RARE_TOKEN, BaseSettings, make_tokenizer
from spurbench.mini.training.classifiers import ClassifierSettings
from spurbench.mini.training.decoder import DecoderSettings, likeness_db
from spurbench.mini.training.labelled import object_labels
from spurbench.mini.training.settings import AssetSettings
from spurbench.mini.training.vae import (
    TuningSettings,
    VAESettings,
    psnr,
    round_trip,
    soften_half,
    to_model,
)
from spurbench.recipe.load import read_recipe

CPU = torch.device("cpu")
ASSETS = builders()["mini"] / "assets"
PANEL = ("resnet_v1", "resnet_v2", "resnet_robust", "vit")


@pytest.fixture(scope="module")
def base():
    recipe = read_recipe("mini")
    return load_base(recipe.locate(recipe.base.model), revision=None, device=CPU)


def test_every_asset_is_listed_with_its_hash_and_small():
    listing = json.loads((ASSETS / "assets.json").read_text())
    files = {str(p.relative_to(ASSETS)) for p in ASSETS.rglob("*") if p.is_file()}
    assert files == set(listing["files"]) | {"assets.json"}
    for name, digest in listing["files"].items():
        assert file_sha256(ASSETS / name) == digest, name
    weights = [p.stat().st_size for p in ASSETS.rglob("*.safetensors")]
    assert sum(weights) <= 24e6


def test_the_rare_token_is_one_token_that_no_caption_holds(base):
    tokenizer = base.pipeline.tokenizer
    assert RARE_TOKEN not in caption_words()
    for word in [*caption_words(), RARE_TOKEN]:
        assert len(tokenizer(word, add_special_tokens=False).input_ids) == 1, word
    strange = tokenizer("zebra-99!", add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in strange


def test_the_autoencoder_keeps_scenes_recognisable(base):
    pixels = render_all([unbiased(1, "test", i) for i in range(32)], "scenes")
    assert psnr(pixels, round_trip(base.pipeline.vae, pixels)) > 20


def test_the_tiny_decoder_paints_what_the_autoencoder_does(base):
    tiny = load_decoder(str(ASSETS / "tiny_decoder"), device=CPU).network
    pixels = render_all([unbiased(1, "test", i) for i in range(32)], "scenes")
    vae = base.pipeline.vae
    assert likeness_db(tiny, vae, pixels) > 25
    # The autoencoder's latents, not its own kind of them: pictures that it encodes come out, too.
    with torch.inference_mode():
        latents = tiny.encode(to_model(pixels)).latents
        wanted = vae.config.scaling_factor * vae.encode(to_model(pixels)).latent_dist.mean
    assert torch.corrcoef(torch.stack([latents.flatten(), wanted.flatten()]))[0, 1] > 0.95


def test_every_second_training_scene_is_softened(base):
    pixels = render_all([unbiased(1, "test", i) for i in range(5)], "scenes")
    softened = soften_half(base.pipeline.vae, pixels)
    np.testing.assert_array_equal(softened[::2], pixels[::2])
    np.testing.assert_array_equal(softened[1::2], round_trip(base.pipeline.vae, pixels[1::2]))
    assert (softened[1::2] != pixels[1::2]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", PANEL)
def test_the_panel_is_right_on_fresh_biased_scenes(name):
    classifier = load_classifier(f"mini:{name}")
    scenes = [biased(c, 1, "test", i) for c in CLASSES for i in range(30)]
    pixels = render_all(scenes, "scenes")
    tensors = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        answers = classifier(tensors).argmax(1).numpy()
    assert np.mean(answers == object_labels(scenes)) >= 0.85


def test_a_toy_sized_training_makes_assets_that_work(tmp_path, monkeypatch):
    """`make assets` from nothing, everything tiny; two runs give the same bits, as do parts."""
    monkeypatch.setattr(stages, "VAE_SCENES", 4)
    monkeypatch.setattr(stages, "ORACLE_SCENES", 6)
    small = {"steps": 3, "batch_size": 4, "checkpoint_every": 2}
    classifier = ClassifierSettings("resnet10t", {"channels": [8, 8, 8, 8]}, **small)
    settings = AssetSettings(
        captioned=12,
        biased_per_class=2,
        unbiased=12,
        validation_per_class=1,
        real_per_class=1,
        vae=VAESettings(block_out_channels=(8, 8, 8), **small),
        tuning=TuningSettings(**small),
        decoder=DecoderSettings(**small),
        base=BaseSettings(block_out_channels=(16, 16), text_width=16, text_layers=1, **small),
        panel={
            "plain": classifier,
            "robust": ClassifierSettings(
                "resnet10t", {"channels": [8, 8, 8, 8]}, epsilon=0.02, **small
            ),
        },
        oracle=classifier,
    )
    train_assets(tmp_path / "a", tmp_path / "work", settings, 0, CPU)
    train_assets(tmp_path / "b", tmp_path / "other", settings, 0, CPU)
    listings = [json.loads((tmp_path / n / "assets.json").read_text()) for n in "ab"]
    assert listings[0]["files"] == listings[1]["files"]
    train_assets(tmp_path / "b", tmp_path / "third", settings, 0, CPU, parts=["classifiers"])
    assert json.loads((tmp_path / "b" / "assets.json").read_text())["files"] == listings[0]["files"]
    measured = listings[0]["classifiers"]["measured"]["panel"]["plain"]
    assert 0 <= measured["validation_accuracy"] <= 1
    assert set(measured["spurious_accuracy"]) == set(PLANTED_FEATURE)
    # The published autoencoder is the tuned one, which the base model was not trained with.
    (tuned,) = (tmp_path / "work").glob("mini/tuned-vae-*/published/*.safetensors")
    published = tmp_path / "a" / "base" / "vae" / tuned.name
    assert published.read_bytes() == tuned.read_bytes()
    loaded = load_base(str(tmp_path / "a" / "base"), revision=None, device=CPU)
    image = loaded.pipeline(
        "a photo of a flower", height=64, width=64, num_inference_steps=2
    ).images[0]
    assert image.size == (64, 64)
    load_decoder(str(tmp_path / "a" / "tiny_decoder"), device=CPU)
    assert load_classifier(str(tmp_path / "a" / "panel" / "robust")).info.head == "imagenet-1k"
    _check_another_world(tmp_path, settings, classifier)


def _check_another_world(tmp_path, settings, classifier):
    """Made beside world 0, ``a``: everything of its own but the autoencoder and its stand-in."""
    zoo = board.BoardSettings(
        scenes_per_class=1,
        validation_per_class=1,
        classifiers={"one": board.BoardClassifier(data="balanced", training=classifier)},
    )
    output, shared = tmp_path / "world", tmp_path / "a"
    assets.train_world(output, tmp_path / "work", settings, zoo, 1, CPU, shared=shared)
    weights = {
        str(path.relative_to(shared)): path.read_bytes() == (output / "assets" / name).read_bytes()
        for path in shared.rglob("*.safetensors")
        for name in [path.relative_to(shared)]
    }
    same = {name for name, is_same in weights.items() if is_same}
    assert same == {name for name in weights if "/vae/" in name or "tiny_decoder" in name}
    assert len(same) == 2 < len(weights)
    pictures = [folder / "real" for folder in (shared, output / "assets")]
    one, other = ({p.read_bytes() for p in folder.rglob("*.png")} for folder in pictures)
    assert one.isdisjoint(other)
    assert load_classifier(str(output / "zoo" / "one")).info.training_data == "mini, balanced"


def test_the_recipe_of_another_world_is_the_embedded_one_with_its_own_panel(tmp_path, monkeypatch):
    folder = tmp_path / "mini-world-3"
    for name in PANEL:
        save_toy_classifier(folder / "assets" / "panel" / name, favourite=None, seed=len(name))
    assets.write_recipe(folder, 3)
    recipe, embedded = read_recipe(str(folder)), read_recipe("mini")
    assert recipe.name == "mini-world-3"
    assert list(recipe.classes) == list(embedded.classes)
    changed = {"name", "panel"}
    assert recipe.model_dump(exclude=changed) == embedded.model_dump(exclude=changed)
    # Its own, wherever the command is run, even where there is another of that name.
    save_toy_classifier(tmp_path / "here" / "assets" / "panel" / "vit", favourite=None, seed=77)
    monkeypatch.chdir(tmp_path / "here")
    for spec, name in zip(recipe.panel.classifiers, PANEL, strict=True):
        member = load_member(spec, relative_to=recipe.folder, device=CPU)
        own = load_classifier(str(folder / "assets" / "panel" / name))
        assert member.info.name == name
        assert member.info.weights_sha256 == own.info.weights_sha256
    assert recipe.panel.phi == "assets/panel/resnet_robust"


def test_processes_take_the_base_first_and_then_what_needs_the_autoencoder_alone(monkeypatch):
    taken = []

    class Pool:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            raise InterruptedError  # no further

        def submit(self, make, stages, task):
            taken.append(task)
            return SimpleNamespace(result=lambda: None)

    monkeypatch.setattr(assets, "start_pool", lambda jobs, threads: Pool())
    for more in ({}, {"parts": ["classifiers"]}, {"shared": ASSETS}):
        with pytest.raises(InterruptedError):
            train_assets(Path("x"), Path("x"), AssetSettings(), 0, CPU, jobs=2, **more)
        taken.append("|")
    assert " ".join(taken) == (
        "base tuned_vae panel oracle tiny_decoder | panel oracle | base panel oracle |"
    )


def test_stages_of_world_0_are_known_by_what_they_were(tmp_path):
    """A training that is under way, or stored, is not begun anew."""
    known = {}

    class Store:
        def run(self, subject, name, inputs, make):
            known[name] = inputs
            return Stage(ASSETS, f"of {name}", 0.0, reused=True)

    made = stages.AssetStages(Store(), AssetSettings(captioned=1), 0, CPU, None)
    assert made.base
    assert set(known["base"]) == {"seed", "vae", "settings"}
    assert known["base"]["vae"] == "of vae"
    another = stages.AssetStages(Store(), AssetSettings(captioned=1), 1, CPU, ASSETS / "base/vae")
    assert another.base
    assert set(known["base"]) == {"seed", "vae", "scenes", "settings"}


def test_the_command_fills_the_embedded_recipe(monkeypatch):
    """Without options: its settings in, its assets out, wherever the code lies."""
    given = []
    for name in ("train_assets", "train_world"):
        monkeypatch.setattr(assets, name, lambda *args, **kw: given.append((args, kw)) or {})
    for arguments in ([], ["--world", "2"]):
        result = CliRunner().invoke(assets.main, ["--device", "cpu", *arguments])
        assert result.exit_code == 0, result.output
    (first, _), (second, options) = given
    assert (first[0], first[3]) == (ASSETS, 0)
    assert (second[0], second[4]) == (Path("out/mini-world-2"), 2)
    assert second[3] == board.BoardSettings.read("zoo")
    assert options["shared"] == ASSETS
    result = CliRunner().invoke(assets.main, ["--world", "2", "--part", "base"])
    assert "--part goes with world 0" in result.output


def test_tokenizer_is_deterministic():
    one, two = (make_tokenizer(caption_words(), 16) for _ in range(2))
    assert one.get_vocab() == two.get_vocab()


PUBLISHED = json.loads((Path(__file__).parents[2] / "docs/mini-measured.json").read_text())


def _near(share, count, published):
    """Within four standard errors of a share of so many images, and never the whole range."""
    spread = max(published * (1 - published), 0.01)
    return abs(share - published) <= 4 * (spread / count) ** 0.5


@pytest.mark.slow
def test_the_models_measure_as_published():
    scenes, samples = 20, 8
    measured = measure(scenes=scenes, samples=samples, attacked=0, device=CPU)
    assert set(measured["panel"]) == set(PANEL) == set(PUBLISHED["panel"])
    for name, of in measured["panel"].items():
        wanted = PUBLISHED["panel"][name]
        assert _near(
            of["validation_accuracy"], scenes * len(CLASSES), wanted["validation_accuracy"]
        )
        shares, published = (x["spurious_accuracy"] for x in (of, wanted))
        assert list(shares) == list(published) == list(PLANTED_FEATURE)
        means = [np.mean(list(x.values())) for x in (shares, published)]
        assert _near(means[0], scenes * len(shares), means[1]), name
        assert of["epsilon"] == wanted["epsilon"] and of["robust_accuracy"] is None
    for view, heads in PUBLISHED["oracle"].items():
        for head, wanted in heads.items():
            assert _near(measured["oracle"][view][head], 10 * scenes, wanted), (view, head)
    assert measured["vae_psnr_db"] == pytest.approx(PUBLISHED["vae_psnr_db"], abs=0.5)
    shown, published = (list(x["base"]["shown"].values()) for x in (measured, PUBLISHED))
    assert len(shown) == 20
    assert _near(np.mean(shown), samples * 20, np.mean(published))
    distance = measured["base"]["kernel_distance"]
    assert distance["renders"] < distance["generated"]
    text = render_markdown(PUBLISHED)
    page = (Path(__file__).parents[2] / "docs/mini-world.md").read_text().splitlines()
    assert {line for line in text.splitlines() if line.startswith("|")} <= set(page)


@pytest.mark.slow
@pytest.mark.robustbench
@pytest.mark.usefixtures("robustbench")
def test_the_robust_classifier_withstands_autoattack_as_published(monkeypatch):
    monkeypatch.setattr("spurbench.mini.measure.PANEL", {"resnet_robust": None})
    attacked = 32
    measured = measure(scenes=4, samples=1, attacked=attacked, device=CPU)["panel"]["resnet_robust"]
    wanted = PUBLISHED["panel"]["resnet_robust"]
    assert measured["epsilon"] == pytest.approx(4 / 255)
    assert _near(measured["robust_accuracy"], attacked, wanted["robust_accuracy"])

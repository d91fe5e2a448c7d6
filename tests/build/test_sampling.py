"""Controls, positives and replicates: what is drawn from what."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from makers.toy import noise_images, save_noise_images, save_toy_classifier, toy_recipe
from spurbench.build import sampling, workshop
from spurbench.build.build import build
from spurbench.build.request import BuildRequest, Built
from spurbench.build.store import MARKER
from spurbench.core.environment import one_thread
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import noise_seed
from spurbench.dataset.manifest import Manifest, PositiveCounts, read_rows
from spurbench.dataset.rows import Row
from spurbench.dataset.verify import verify
from spurbench.diffusion.base import TRAINED, load_base
from spurbench.diffusion.sample import PhiGuidance, sample
from spurbench.images.decode import decode_rgb
from spurbench.images.sources import open_images
from spurbench.recipe.load import read_recipe

WNID = "n01833805"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return toy_recipe(tmp_path_factory.mktemp("toy") / "recipe")


def run(recipe: Path, folder: Path, *overrides: str, **changes) -> Built:
    """A build of the hummingbirds, in a folder and with a store of its own."""
    options = {"output": folder / "out", "work": folder / "work", "device": "cpu", **changes}
    asked = BuildRequest.of(str(recipe), classes="hummingbird", overrides=overrides, **options)
    built = build(asked)
    assert not built.failed
    return built


def drawn_again(recipe: Path, prompt: str, rows: list[Row]) -> list[bytes]:
    """What a base that was never fine-tuned makes of the seeds of rows, as the recipe samples."""
    base = load_base(str(recipe / "base"), revision=None, device=torch.device("cpu"))
    seeds = [row.seed for row in rows]
    options = {"resolution": 32, "steps": 2, "guidance_scale": 5.5, "batch_size": 2}
    with one_thread():
        return [image.tobytes() for image in sample(base, prompt, seeds, **options)]


def pixels(rows: list[Row]) -> list[bytes]:
    return [decode_rgb(row.read()).tobytes() for row in rows]


@pytest.fixture(scope="module")
def once(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    run(recipe, folder)
    return folder


@pytest.fixture
def begun(once, tmp_path) -> Path:
    """A folder with a build's stages, so that another makes only what it asks for otherwise."""
    shutil.copytree(once / "work", tmp_path / "work")
    return tmp_path


@pytest.fixture(scope="module")
def twice(recipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("twice")
    run(recipe, folder, replicates=2)
    return folder


@pytest.mark.parametrize("folder", ["once", "twice"])
def test_a_control_is_what_the_untouched_base_makes_of_its_images_noise(folder, recipe, request):
    rows = read_rows(request.getfixturevalue(folder) / "out")
    images, controls = rows["generated"], rows["controls-generated"]
    assert len(controls) == len(images) == {"once": 4, "twice": 8}[folder]
    generic = "a photo of a flower"
    assert pixels(controls) == drawn_again(recipe, generic, images)
    assert set(pixels(images)).isdisjoint(drawn_again(recipe, images[0].prompt, images))
    for image, control in zip(images, controls, strict=True):
        assert control.twin_of == image.image_sha256 and image.twin_of is None
        same = ("seed", "replicate", "guidance_scale", "num_inference_steps", "file_name")
        assert all(getattr(control, name) == getattr(image, name) for name in same)
        assert (control.prompt, control.kappa, control.is_reference) == (generic, None, False)
        assert (control.source, control.base_model) == ("generated", "base")
        assert [a.classifier for a in control.panel] == [a.classifier for a in image.panel]
        assert control.object_score is not None


def test_phi_steers_the_images_alone_and_the_tuned_model_makes_twins_of_its_own(recipe, tmp_path):
    three = save_toy_classifier(tmp_path / "three", favourite=None, seed=3)
    asked = (f"panel.phi={three}", "sample.phi_guidance=20000")
    places = ["on the beach", "in a market"]
    more = (f"contexts.phrases={places}", "contexts.images=3")
    run(recipe, tmp_path, *asked, *more, "controls.makers=['base', 'finetuned']")
    rows = read_rows(tmp_path / "out")
    images, generic = rows["generated"], "a photo of a flower"
    assert pixels(rows["controls-generated"]) == drawn_again(recipe, generic, images)
    positives = rows["positives-generated"]
    assert pixels(positives) == drawn_again(recipe, "a photo of a hummingbird", positives)

    base, phi, _ = workshop.load_tuned(read_recipe(str(recipe), asked), torch.device("cpu"))
    (folder,) = (tmp_path / "work").rglob("finetune-*")
    base.load({name: load_file(folder / f"{name}.safetensors") for name in TRAINED})
    steering = PhiGuidance(2e4, lambda p: phi(p).log_softmax(dim=1)[:, 94], phi.input_size)

    def again(prompt, guidance=None, count=0):
        seeds = [row.seed for row in images][: count or None]
        options = {"resolution": 32, "steps": 2, "guidance_scale": 5.5, "batch_size": 2}
        with one_thread():
            drawn = sample(base, prompt, seeds, phi_guidance=guidance, **options)
            return [image.tobytes() for image in drawn]

    twins = rows["controls-finetuned-generated"]
    assert pixels(twins) == again(generic)
    assert pixels(images) == again(images[0].prompt, steering)
    assert set(pixels(images)).isdisjoint(again(images[0].prompt))
    for image, twin in zip(images, twins, strict=True):
        assert (twin.twin_of, twin.kappa) == (image.image_sha256, image.kappa)
    placed = rows["contexts-generated"]
    for start, place in ((0, places[0]), (3, places[1])):
        those, prompt = placed[start : start + 3], f"{images[0].prompt} {place}"
        assert pixels(those) == again(prompt, steering, 3)
        assert {row.prompt for row in those} == {prompt}
        assert {row.file_name.split("/")[1][: len(place)] for row in those} == {
            place.replace(" ", "-")
        }
    markers = [json.loads(m.read_text()) for m in (tmp_path / "work").rglob(f"contexts-*/{MARKER}")]
    assert [marker["inputs"]["images"] for marker in markers] == [3, 3]
    assert [row.kappa for row in placed] == [images[0].kappa] * 6
    assert len({row.file_name for row in placed}) == 6
    assert [row.seed for row in placed] == [row.seed for row in images[:3]] * 2
    assert {check.status for check in verify(tmp_path / "out")} == {"ok"}
    counted = open_images(str(tmp_path / "out"), "generated").controls
    assert {r.sha256 for r in counted.records} == {
        row.image_sha256 for row in rows["controls-generated"]
    }


def test_seeds_are_exact_in_a_float(twice):
    seeds = [row.seed for rows in read_rows(twice / "out").values() for row in rows if row.prompt]
    assert len(seeds) >= 16 and all(int(float(seed)) == seed < 2**53 for seed in seeds)
    drawn = [noise_seed(0, "sample", i) for i in range(200)]
    assert len(set(drawn)) == 200 and 2**51 < np.median(drawn) < 3 * 2**51


def test_the_first_replicate_is_the_only_one_of_a_build_of_one(once, twice):
    one, two = (read_rows(folder / "out") for folder in (once, twice))
    for part, rows in one.items():
        assert rows == [row for row in two[part] if row.replicate == 0], part
    assert {row.replicate for row in two["real"]} == {0}


def test_replicates_differ_in_weights_and_images_and_share_what_they_start_from(twice):
    rows = read_rows(twice / "out")["generated"]
    assert [row.replicate for row in rows] == [0] * 4 + [1] * 4
    assert len({row.seed for row in rows}) == len({row.image_sha256 for row in rows}) == 8
    assert len({row.file_name for row in rows}) == 8
    work = twice / "work"
    weights = {f.read_bytes() for f in work.rglob("finetune-*/unet.safetensors")}
    assert len(weights) == 2
    assert len(list(work.glob("prior/*/prior-*"))) == 1
    assert Manifest.read(twice / "out").provenance.replicates == 2
    assert {check.status for check in verify(twice / "out")} == {"ok"}


def test_a_second_replicate_takes_the_first_ones_stages_from_the_store(recipe, begun):
    built = run(recipe, begun, replicates=2)
    reused = {label: reused for (_, label), (_, reused) in built.seconds.items()}
    first = ("fine-tune", "sample", "check", "controls", "check controls")
    assert {label for label, stored in reused.items() if not stored} == {
        f"{label}, replicate 1" for label in first
    }
    assert all(reused[label] for label in first)


def test_positives_are_kept_where_the_detector_sees_the_class(recipe, begun, caplog):
    caplog.set_level(logging.INFO)
    run(recipe, begun, "check.object_threshold=0.000001")
    everything = read_rows(begun / "out")["positives-generated"]
    assert len(everything) == 6
    assert {row.prompt for row in everything} == {"a photo of a hummingbird"}
    assert pixels(everything) == drawn_again(recipe, everything[0].prompt, everything)
    assert "6 of 6 positives kept" in caplog.text
    threshold = sorted(row.object_score for row in everything)[4]
    shown = [row for row in everything if row.object_score >= threshold]
    built = run(
        recipe,
        begun,
        f"check.object_threshold={threshold!r}",
        output=begun / "strict",
    )
    kept = read_rows(begun / "strict")["positives-generated"]
    assert kept == shown and len(kept) == 2
    assert built.positives == {"hummingbird": PositiveCounts(asked=6, kept=2)}
    held = Manifest.read(begun / "strict").provenance
    assert held.positives == built.positives and held.positive_images is None
    said = [r for r in caplog.records if "2 of 6 positives kept" in r.message]
    assert [r.levelname for r in said] == ["WARNING"]  # too few to say much
    assert all(reused for (_, label), (_, reused) in built.seconds.items() if label == "positives")


def test_without_a_detector_all_positives_are_kept_and_that_is_said(recipe, begun, caplog):
    built = run(recipe, begun, "check.object_detector=none")
    assert built.positives["hummingbird"] == PositiveCounts(asked=6, kept=6)
    assert "no detector looks for it; all its positives are kept" in caplog.text


def test_positives_that_are_given_are_taken_as_they_are(recipe, begun):
    given = begun / "photographs"
    save_noise_images(given / WNID, 6, seed=9)
    save_noise_images(given / "n01882714", 2, seed=10)  # of a class that is not built
    (given / WNID / "5.png").write_bytes(b"junk")
    built = run(recipe, begun, "check.object_threshold=0.999", positives=given)
    rows = read_rows(begun / "out")
    assert not rows["positives-generated"]
    assert pixels(rows["positives-real"]) == [image.tobytes() for image in noise_images(5, 9)]
    assert {(r.source, r.prompt, r.seed, r.object_absent) for r in rows["positives-real"]} == {
        ("real", None, None, True)
    }
    assert not [label for _, label in built.seconds if label == "positives"]
    held = Manifest.read(begun / "out").provenance
    assert held.positives == {"hummingbird": PositiveCounts(asked=5, kept=5)}
    assert (held.positive_images.name, held.damaged[0].path) == ("photographs", f"{WNID}/5.png")
    assert {check.status for check in verify(begun / "out")} == {"ok"}


def test_positives_of_other_classes_are_refused_before_any_work(recipe, tmp_path):
    save_noise_images(tmp_path / "given" / "n01882714", 2, seed=10)
    with pytest.raises(SpurbenchError, match="given holds no folder of a class that is to be"):
        run(recipe, tmp_path, positives=tmp_path / "given")
    with pytest.raises(SpurbenchError, match=r"no folder at .*none"):
        run(recipe, tmp_path, positives=tmp_path / "none")
    assert not (tmp_path / "work").exists()


def test_a_class_without_given_positives_is_built_and_named(recipe, begun, caplog, monkeypatch):
    save_noise_images(begun / "given" / WNID, 1, seed=10)

    def without(folder, only):
        found = open_positives(folder, only=only)
        return replace(found, records=())

    open_positives = workshop.open_positives
    monkeypatch.setattr(workshop, "open_positives", without)
    built = run(recipe, begun, positives=begun / "given")
    assert built.positives == {"hummingbird": PositiveCounts(asked=0, kept=0)}
    assert "hummingbird: 0 of 0 positives kept" in caplog.text


def test_controls_and_positives_can_be_left_out(recipe, begun):
    built = run(recipe, begun, "controls.enabled=false", "positives.images=0")
    assert [label for _, label in built.seconds][3:] == ["sample", "check"]
    assert {part for part, rows in read_rows(begun / "out").items() if rows} == {
        "real",
        "generated",
    }
    assert Manifest.read(begun / "out").provenance.positives == {}


@pytest.mark.parametrize("count", [0, -1, 101])
def test_an_impossible_number_of_replicates_is_refused(recipe, tmp_path, count):
    with pytest.raises(SpurbenchError, match=f"--replicates {count} is not in 1..100"):
        run(recipe, tmp_path, replicates=count)


@pytest.mark.parametrize(
    ("there", "again"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4), (5, 5)], ids=str
)
def test_sampling_goes_on_with_whole_batches(tmp_path, monkeypatch, there, again):
    """Two of five images at a time: each is sampled in the company that it would have had."""
    asked = []

    def sample(base, prompt, seeds, batch_size):
        asked.append(seeds)
        return [Image.new("RGB", (8, 8), (seed, 0, 0)) for seed in seeds]

    monkeypatch.setattr(sampling, "sample", sample)
    for position in range(there):
        Image.new("RGB", (8, 8), (position, 0, 0)).save(tmp_path / f"{position:04d}.png")
    sampling._sample_into(tmp_path, None, "a photo", list(range(5)), batch_size=2)
    assert asked == [list(range(5))[again:]]
    files = sorted(tmp_path.iterdir())
    assert [Image.open(file).getpixel((0, 0))[0] for file in files] == list(range(5))

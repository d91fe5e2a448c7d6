"""From labels to pairs and references."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from makers.toy import save_noise_images, save_toy_classifier
from spurbench.build.request import BuildRequest
from spurbench.classifiers.classifier import transform
from spurbench.classifiers.info import Preprocessing
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.cut import SIDES, cut, free_squares
from spurbench.discovery.discover import DiscoveryRequest, discover
from spurbench.discovery.documents import (
    Discovery,
    Settings,
    class_folder,
    listed_images,
    read_class,
)
from spurbench.discovery.export import Export, export
from spurbench.discovery.neural_pca import Components, load_alphas
from spurbench.discovery.supervise.labels import FILE, Box, Labels, Mark, Verdict
from spurbench.images.sources import open_images
from spurbench.recipe.classes import ClassRegistry
from spurbench.recipe.load import read_recipe

PAIR = "spurious_class_094_hummingbird_component_2"
CPU = torch.device("cpu")


def seen(resize, crop):
    zeros = (0.0, 0.0, 0.0)
    return Preprocessing(
        mode="whole", resize=resize, crop=crop, interpolation="bicubic", mean=zeros, std=zeros
    )


def test_free_squares_are_large_first_and_touch_no_box():
    boxes = [
        Box(left=0.55, top=0.1, right=0.7, bottom=0.4),
        Box(left=0.6, top=0.7, right=0.9, bottom=0.8),
    ]
    found = list(free_squares(boxes))
    sides = [right - left for left, _, right, _ in found]
    assert sides == sorted(sides, reverse=True) and sides[0] == pytest.approx(0.5)
    for left, top, right, bottom in found:
        assert bottom - top == pytest.approx(right - left) and min(left, top) >= 0
        assert max(right, bottom) <= 1 + 1e-9
        for box in boxes:
            assert right <= box.left or left >= box.right or bottom <= box.top or top >= box.bottom
    assert not list(free_squares([Box(left=0.3, top=0.3, right=0.7, bottom=0.7)]))
    assert next(free_squares([])) == (0, 0, SIDES[0], SIDES[0])


def test_a_part_is_cut_from_where_the_classifier_sees_it():
    rows, columns = np.mgrid[0:200, 0:300]
    image = Image.fromarray(np.stack([rows, columns // 2, 0 * rows], -1).astype(np.uint8))
    # The short side becomes 32: the classifier sees columns 50 to 250.
    part = np.asarray(cut(image, (0.0, 0.5, 0.5, 1.0), seen((32,), (32, 32))))
    assert part.shape == (100, 100, 3)
    assert part[0, 0].tolist() == [100, 25, 0] and part[-1, -1].tolist() == [199, 74, 0]
    # Resized to 40 and cropped to 32: rows 20 to 180.
    part = np.asarray(cut(image, (0.0, 0.0, 1.0, 1.0), seen((40,), (32, 32))))
    assert part.shape == (160, 160, 3) and part[0, 0].tolist() == [20, 35, 0]
    # Both sides are resized: nothing is cut off.
    assert cut(image, (0.0, 0.0, 1.0, 1.0), seen((32, 32), (32, 32))).size == (300, 200)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A discovery of two classes."""
    folder = tmp_path_factory.mktemp("world")
    save_toy_classifier(folder / "toy", favourite=None, seed=1)
    save_noise_images(folder / "images" / "n01833805", 6, 1, width=48)
    save_noise_images(folder / "images" / "n01882714", 5, 2)
    settings = Settings(components=2, top=3, features=False)
    request = DiscoveryRequest.of(
        str(folder / "toy"),
        folder / "images",
        classes="all",
        output=folder / "found",
        settings=settings,
    )
    assert not discover(request, device="cpu", workers=1).failed
    return folder / "found"


@pytest.fixture
def labelled(found, tmp_path):
    """A copy of it, with component 2 of hummingbird called spurious, and its first two images."""
    folder = tmp_path / "found"
    shutil.copytree(found, folder)
    labels = Labels(folder / FILE)
    labels.say(
        Verdict(person="anna", index=94, component=2, verdict="yes", feature="noise", noun="dot")
    )
    whole, boxed, _ = read_class(folder / class_folder(94)).components[1].pictures
    labels.mark(Mark(person="anna", index=94, sha256=whole.sha256, boxes=()))
    box = Box(left=0.0, top=0.0, right=0.4, bottom=0.3)
    labels.mark(Mark(person="anna", index=94, sha256=boxed.sha256, boxes=(box,)))
    return folder


def test_an_export_is_what_build_takes(labelled, tmp_path):
    export(labelled, tmp_path / "out", device=CPU)
    (pair,) = ClassRegistry.read(tmp_path / "out" / "classes.toml").select("hummingbird")
    assert (pair.index, pair.wnid, pair.component) == (94, "n01833805", 2)
    assert (pair.spurious_feature, pair.noun, pair.folder) == ("noise", "dot", PAIR)
    images = open_images(str(tmp_path / "out"), "real")
    assert len(images.records) == 2 and not images.damaged
    assert {record.spurious_feature for record in images.records} == {"noise"}


def test_candidates_are_images_without_the_object_and_parts_beside_it(labelled, tmp_path):
    written = export(labelled, tmp_path / "out", device=CPU)
    pictures = read_class(labelled / class_folder(94)).components[1].pictures
    of = {candidate.kind: candidate for candidate in written.pairs[0].candidates}
    assert of["whole"].origin == pictures[0].path and of["cut"].origin == pictures[1].path
    folder = tmp_path / "out" / PAIR
    assert Image.open(folder / of["whole"].file).size == (48, 32)
    width, height = Image.open(folder / of["cut"].file).size
    assert width == height < 32
    alphas = [candidate.alpha for candidate in written.pairs[0].candidates]
    assert alphas == sorted(alphas, reverse=True)


def test_of_the_parts_beside_the_object_the_likeliest_is_taken(labelled, tmp_path):
    discovery = Discovery.read(labelled)
    components = Components.load(labelled / class_folder(94) / "components.safetensors")
    classifier = load_classifier(discovery.classifier.spec, device="cpu")
    read = transform(discovery.preprocessing)
    _, boxed, _ = read_class(labelled / class_folder(94)).components[1].pictures
    image = Image.open(Path(discovery.images) / boxed.path)

    def likeliest(boxes):
        areas = list(free_squares(boxes))
        parts = [cut(image, area, discovery.preprocessing) for area in areas]
        pixels = torch.stack([read(part) for part in parts]) / 255
        with torch.inference_mode():
            alphas = components.alphas(classifier.features(pixels).numpy())[:, 1]
        best = int(alphas.argmax())
        return areas[best], alphas[best], np.asarray(parts[best])

    # The object is in the middle of the part that would be the likeliest of all.
    (left, top, right, bottom), unbound, _ = likeliest([])
    x, y = (left + right) / 2, (top + bottom) / 2
    box = Box(left=x - 0.01, top=y - 0.01, right=x + 0.01, bottom=y + 0.01)
    labels = Labels(labelled / FILE)
    labels.mark(Mark(person="anna", index=94, sha256=boxed.sha256, boxes=(box,)))
    (pair,) = export(labelled, tmp_path / "out", device=CPU).pairs
    (taken,) = [candidate for candidate in pair.candidates if candidate.kind == "cut"]
    _, alpha, expected = likeliest([box])
    assert taken.alpha == pytest.approx(alpha, rel=1e-4) and alpha < unbound
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / PAIR / taken.file)), expected)


def test_candidates_are_the_top_images_of_the_component_that_is_exported(labelled, tmp_path):
    labels = Labels(labelled / FILE)
    for image in listed_images(labelled / class_folder(94)):
        labels.mark(Mark(person="anna", index=94, sha256=image.sha256, boxes=()))
    (pair,) = export(labelled, tmp_path / "out", device=CPU).pairs
    first, second = read_class(labelled / class_folder(94)).components
    paths = [{picture.path for picture in of.pictures} for of in (first, second)]
    assert paths[0] != paths[1]
    assert {candidate.origin for candidate in pair.candidates} == paths[1]


def test_what_is_said_of_an_image_is_said_of_the_class(labelled, tmp_path):
    # The third image lacks a koala, which says nothing of hummingbirds.
    third = read_class(labelled / class_folder(94)).components[1].pictures[2]
    Labels(labelled / FILE).mark(Mark(person="anna", index=105, sha256=third.sha256, boxes=()))
    (pair,) = export(labelled, tmp_path / "out", device=CPU).pairs
    assert third.path not in {candidate.origin for candidate in pair.candidates}


def test_parts_avoid_the_boxes_of_everyone(labelled, tmp_path):
    labels = Labels(labelled / FILE)
    whole, boxed, _ = read_class(labelled / class_folder(94)).components[1].pictures
    # bo sees an object where anna sees none, and another one beside hers.
    low = Box(left=0.0, top=0.5, right=1.0, bottom=1.0)
    for picture, boxes in ((whole, (low,)), (boxed, ())):
        labels.mark(Mark(person="bo", index=94, sha256=picture.sha256, boxes=boxes))
    (pair,) = export(labelled, tmp_path / "out", device=CPU).pairs
    assert {candidate.kind for candidate in pair.candidates} == {"cut"}
    labels.mark(Mark(person="bo", index=94, sha256=boxed.sha256, boxes=(low,)))
    (pair,) = export(labelled, tmp_path / "out", device=CPU).pairs
    of = {candidate.origin: candidate.file for candidate in pair.candidates}
    seen = np.asarray(Image.open(Path(Discovery.read(labelled).images) / boxed.path))[:, 8:40]
    part = np.asarray(Image.open(tmp_path / "out" / PAIR / of[boxed.path]))
    windows = np.lib.stride_tricks.sliding_window_view(seen, part.shape)[:, :, 0]
    ((row, column),) = np.argwhere((windows == part).all(axis=(-3, -2, -1)))
    height = len(part)
    assert row + height <= 16 and (column >= 0.4 * 32 - 1 or row >= 0.3 * 32 - 1), (row, column)


def test_of_several_spurious_components_the_first_is_exported(labelled, tmp_path):
    labels = Labels(labelled / FILE)
    (said,) = labels.verdicts()
    labels.say(said.model_copy(update={"component": 1, "feature": "first"}))
    for image in listed_images(labelled / class_folder(94)):
        labels.mark(Mark(person="anna", index=94, sha256=image.sha256, boxes=()))
    (pair,) = export(labelled, tmp_path / "out", device=CPU).pairs
    assert (pair.component, pair.feature) == (1, "first")


def test_another_classifier_than_was_looked_into_exports_nothing(labelled, tmp_path):
    file = labelled / "discovery.json"
    old = Discovery.read(labelled).classifier.weights_sha256
    file.write_text(file.read_text().replace(old, "0" * 64))
    with pytest.raises(SpurbenchError, match="not the classifier any more"):
        export(labelled, tmp_path / "out", device=CPU)
    assert not (tmp_path / "out").exists()


def test_a_pool_is_searched_for_the_highest_alphas_but_not_the_classs_own(labelled, tmp_path):
    pool = Path(Discovery.read(labelled).images)
    written = export(labelled, tmp_path / "out", pool=pool, count=4, device=CPU)
    candidates = written.pairs[0].candidates
    assert len(candidates) == 4
    from_pool = [c for c in candidates if c.kind == "pool"]
    assert from_pool and all(c.origin.startswith("n01882714/") for c in from_pool)
    # The same images, flat and of no class, may all be taken.
    flat = tmp_path / "flat"
    shutil.copytree(pool / "n01833805", flat)
    written = export(labelled, tmp_path / "flat-out", pool=flat, device=CPU)
    alphas = load_alphas(labelled / class_folder(94) / "components.safetensors")[:, 1]
    listed = [image.path for image in listed_images(labelled / class_folder(94))]
    expected = {path.rpartition("/")[2]: a for path, a in zip(listed, alphas, strict=True)}
    got = {c.origin: c.alpha for c in written.pairs[0].candidates if c.kind == "pool"}
    assert got == pytest.approx(expected, abs=1e-5)


def test_an_export_that_extends_a_recipe_is_one_that_build_takes(labelled, tmp_path):
    output = tmp_path / "out"
    command = ["discover", "export", str(labelled), str(output), "--extends"]
    said = CliRunner().invoke(main, [*command, "mini"])
    assert said.exit_code == 0, said.output
    recipe = read_recipe(str(output))
    assert recipe.name == "mini-discovered"
    request = BuildRequest.of(str(output), classes="all", output=tmp_path / "dataset", device="cpu")
    assert [(c.name, c.component, c.noun) for c in request.classes] == [("hummingbird", 2, "dot")]
    # All else is mini's: its base, its panel, its numbers.
    mini = read_recipe("mini")
    assert recipe.locate(recipe.base.model) == mini.locate(mini.base.model)
    assert recipe.panel == mini.panel and recipe.finetune == mini.finetune
    # The references are looked for among the candidates.
    images = open_images(request.images, "real").records
    assert {image.path for image in images} == {f"{PAIR}/1.png", f"{PAIR}/2.png"}
    refused = CliRunner().invoke(main, [*command, "nimi"])
    assert refused.exit_code == 1 and "--extends 'nimi' is none of mini, sd15" in refused.output


def test_what_the_classifier_calls_the_class_comes_first_whatever_its_alpha(tmp_path):
    # A classifier that calls half of the pool's images hummingbird.
    toy = save_toy_classifier(tmp_path / "toy", favourite=None, seed=1)
    pool = save_noise_images(tmp_path / "pool", 12, 7)
    pixels = torch.stack(
        [torch.from_numpy(np.array(Image.open(f))).permute(2, 0, 1) for f in pool.iterdir()]
    )
    with torch.inference_mode():
        logits = load_classifier(str(toy), device="cpu")(pixels / 255)
    weights = load_file(toy / "model.safetensors")
    weights["fc.bias"][94] += (logits.amax(dim=1) - logits[:, 94]).median() + 1e-4
    save_file(weights, toy / "model.safetensors")
    images = tmp_path / "images"
    save_noise_images(images / "n01833805", 6, 1)
    settings = Settings(components=2, top=3, features=False)
    request = DiscoveryRequest.of(
        str(toy), images, classes="all", output=tmp_path / "found", settings=settings
    )
    assert not discover(request, device="cpu", workers=1).failed
    labels = Labels(tmp_path / "found" / FILE)
    labels.say(
        Verdict(person="bo", index=94, component=2, verdict="yes", feature="noise", noun="dot")
    )
    with torch.inference_mode():
        called = load_classifier(str(toy), device="cpu")(pixels / 255).argmax(dim=1) == 94
    of = {file.name: bool(c) for file, c in zip(pool.iterdir(), called, strict=True)}
    assert 3 <= sum(of.values()) <= 9
    (pair,) = export(tmp_path / "found", tmp_path / "all", pool=pool, device=CPU).pairs
    assert [c.is_class for c in pair.candidates] == sorted(of.values(), reverse=True)
    assert all(c.is_class == of[c.origin] for c in pair.candidates)
    alphas = [c.alpha for c in pair.candidates]
    assert alphas != sorted(alphas, reverse=True)
    for kind in (True, False):
        own = [c.alpha for c in pair.candidates if c.is_class is kind]
        assert own == sorted(own, reverse=True)
    # Where few are wanted, the others are not among them.
    few = export(tmp_path / "found", tmp_path / "few", pool=pool, count=3, device=CPU).pairs[0]
    assert few.candidates == pair.candidates[:3]


def test_other_classifiers_are_asked_whether_candidates_are_the_class(labelled, tmp_path):
    yes = save_toy_classifier(tmp_path / "yes", favourite=94, seed=3)
    no = save_toy_classifier(tmp_path / "no", favourite=105, seed=4)
    # Hummingbird is its second choice, which is none.
    weights = load_file(no / "model.safetensors")
    weights["fc.bias"][94] += 10
    save_file(weights, no / "model.safetensors")
    output = tmp_path / "out"
    command = ["discover", "export", str(labelled), str(output)]
    said = CliRunner().invoke(main, [*command, "--confirm", str(yes), "--confirm", str(no)])
    assert said.exit_code == 0, said.output
    assert "yes calls 100% the class; no calls 0% the class; all do 0" in said.output
    written = Export.model_validate_json((output / "export.json").read_text())
    assert written.pairs[0].called == {"yes": 1.0, "no": 0.0} and written.pairs[0].by_all == 0
    assert all(c.called == {"yes": True, "no": False} for c in written.pairs[0].candidates)
    # An earlier export is replaced, something else is not.
    assert CliRunner().invoke(main, command).exit_code == 0
    (output / "export.json").unlink()
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1 and "holds something else" in refused.output


def test_what_lacks_for_an_export_is_said(labelled, tmp_path):
    labels = Labels(labelled / FILE)
    (said,) = labels.verdicts()
    labels.say(said.model_copy(update={"noun": ""}))
    with pytest.raises(SpurbenchError, match=r"hummingbird is called spurious.*its kind"):
        export(labelled, tmp_path / "out", device=CPU)
    labels.say(said)
    for mark in labels.marks():
        labels.mark(mark.model_copy(update={"boxes": None}))
    with pytest.raises(SpurbenchError, match="no candidate of hummingbird"):
        export(labelled, tmp_path / "out", device=CPU)
    labels.say(said.model_copy(update={"person": "bo", "verdict": "no"}))
    with pytest.raises(SpurbenchError, match=r"no component in .* is called spurious by all"):
        export(labelled, tmp_path / "out", device=CPU)
    assert not (tmp_path / "out").exists()

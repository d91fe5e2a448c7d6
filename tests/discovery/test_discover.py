"""The command: what it writes, and that it goes on."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from sklearn.decomposition import PCA

from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.load import load_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError, described
from spurbench.discovery import discover as discovering
from spurbench.discovery import explore
from spurbench.discovery.attack import maximise, radius_for
from spurbench.discovery.discover import DiscoveryRequest, discover
from spurbench.discovery.documents import (
    COMPONENTS,
    Discovery,
    Settings,
    listed_images,
    read_class,
)
from spurbench.discovery.heat import attributions, heat_map, overlay
from spurbench.discovery.lens import Lens
from spurbench.discovery.neural_pca import Components, load_alphas
from spurbench.discovery.work import DiscoveryWork
from spurbench.engines.ledger import Ledger
from spurbench.evaluation.members import Member

BIRD, KOALA = "094_hummingbird", "105_koala"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A classifier, and training images of two classes, one of them damaged."""
    folder = tmp_path_factory.mktemp("world")
    save_toy_classifier(folder / "toy", favourite=None, seed=1)
    save_noise_images(folder / "images" / "n01833805", 7, 1, width=48)
    save_noise_images(folder / "images" / "105", 4, 2)
    (folder / "images" / "n01833805" / "0-broken.png").write_bytes(b"junk")  # before all others
    found = CliRunner().invoke(main, arguments(folder, folder / "found"), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return folder


def arguments(world, output, *more):
    return [
        "discover",
        *("--model", str(world / "toy"), "--images", str(world / "images")),
        *("--components", "2", "--top", "2", "--workers", "1", "--output", str(output)),
        *more,
    ]


def test_what_is_written_is_what_the_documents_say(world):
    folder = world / "found" / BIRD
    found = read_class(folder)
    assert (found.index, found.images, len(found.components)) == (94, 7, 2)
    assert [damaged.path for damaged in found.damaged] == ["n01833805/0-broken.png"]
    for component in found.components:
        assert (folder / f"{component.name}.png").is_file()
        files = [f for p in component.pictures for f in (p.file, p.heat)]
        files += [feature.file for feature in component.features]
        assert len(files) == 6
        for file in files:
            assert Image.open(folder / file).size == (32, 32)
        assert 0 < component.variance < 1
    assert [f.start for f in found.components[0].features] == ["grey", "top"]
    assert found.components[0].features[1].alpha > found.components[0].pictures[0].alpha
    discovery = Discovery.read(world / "found")
    assert discovery.settings.components == 2 and discovery.images == str(world / "images")


def test_the_pictures_are_the_images_of_the_highest_alphas(world):
    folder = world / "found" / BIRD
    alphas = load_alphas(folder / "components.safetensors")
    listed = [image.path for image in listed_images(folder)]
    assert alphas.shape == (7, 2) and len(set(listed)) == 7
    for component in read_class(folder).components:
        own = alphas[:, component.number - 1]
        best = np.argsort(-own)[:2]
        assert [p.path for p in component.pictures] == [listed[i] for i in best]
        assert [p.alpha for p in component.pictures] == pytest.approx(own[best].tolist(), rel=1e-5)
    assert Components.load(folder / "components.safetensors").directions.shape == (2, 16)


@pytest.fixture(scope="module")
def known(world):
    """The classifier, and the pixels of its images that can be read, in the listing's order."""
    folder = world / "found" / BIRD
    images = [Image.open(world / "images" / image.path) for image in listed_images(folder)]
    seen = np.stack([np.asarray(image.crop((8, 0, 40, 32))) for image in images])  # of 48 x 32
    pixels = torch.from_numpy(seen).permute(0, 3, 1, 2) / 255
    return load_classifier(str(world / "toy"), device="cpu"), pixels


def test_components_are_of_the_classs_own_row_and_images(world, known):
    classifier, pixels = known
    with torch.inference_mode():
        features = classifier.features(pixels).double().numpy()
        probabilities = classifier(pixels).double().softmax(1)[:, 94]
    psi = features * classifier.head_weight[94].detach().double().numpy()
    folder = world / "found" / BIRD
    found = Components.load(folder / COMPONENTS)
    assert np.allclose(found.mean, psi.mean(axis=0), atol=1e-7)
    pca = PCA(2, svd_solver="full").fit(psi)
    assert np.allclose(found.variances, pca.explained_variance_, rtol=1e-3)
    assert np.allclose(np.abs(found.directions), np.abs(pca.components_), atol=1e-3)
    expected = (psi - psi.mean(axis=0)) @ found.directions.T * found.directions.sum(axis=1)
    assert np.allclose(load_alphas(folder / COMPONENTS), expected, rtol=1e-3, atol=1e-6)
    listed = [image.path for image in listed_images(folder)]
    for component in read_class(folder).components:
        for picture in component.pictures:
            rank = listed.index(picture.path)
            assert picture.probability == pytest.approx(float(probabilities[rank]), rel=1e-4)


def test_pictures_of_a_component_are_of_it_and_of_no_other(world, known):
    classifier, pixels = known
    folder = world / "found" / BIRD
    lens = Lens(classifier, Components.load(folder / COMPONENTS))
    listed = [image.path for image in listed_images(folder)]
    second = read_class(folder).components[1]
    top = pixels[[listed.index(picture.path) for picture in second.pictures]]
    saved = [np.asarray(Image.open(folder / p.heat), float) for p in second.pictures]

    def apart(component):
        made = zip(top, attributions(lens, top, component).numpy(), strict=True)
        shown = [
            overlay(Image.fromarray((i * 255).byte().permute(1, 2, 0).numpy()), heat_map(a))
            for i, a in made
        ]
        return np.mean(
            [np.abs(np.asarray(a, float) - b) for a, b in zip(shown, saved, strict=True)]
        )

    assert apart(1) < apart(0) / 4
    best = maximise(lens, top[:1], torch.tensor([1]), radius=radius_for((32, 32)))
    with torch.inference_mode():
        alpha = float(lens(best)[0, 1])
    assert second.features[1].alpha == pytest.approx(alpha, rel=1e-3)


def test_the_ball_is_as_large_as_asked_for(world, tmp_path, monkeypatch):
    asked = []

    def kept(lens, start, component, *, radius):
        asked.append(radius)
        return start

    monkeypatch.setattr(explore, "maximise", kept)
    for radius in (0.5, None):
        settings = {"components": 1, "top": 1, "radius": radius}
        discover(
            request(world, tmp_path / str(radius), classes="koala", **settings),
            device="cpu",
            workers=1,
        )
    assert asked == [0.5, radius_for((32, 32))]


def test_a_worker_that_loads_another_classifier_refuses(world, tmp_path):
    work = DiscoveryWork(
        member=Member.parse(str(world / "toy")),
        weights="0" * 64,
        images=world / "images",
        output=tmp_path,
        classes={94: 7},
        settings=Settings(),
        here=world,
        device="cpu",
    )
    with pytest.raises(SpurbenchError, match="not the classifier any more"):
        work.open()


def test_what_is_there_is_kept_and_what_is_missing_is_made(world, tmp_path):
    output = tmp_path / "again"
    shutil.copytree(world / "found", output)
    before = (output / BIRD / "class.json").stat().st_mtime_ns
    lost = (output / KOALA / "class.json").read_bytes()
    shutil.rmtree(output / KOALA)
    assert CliRunner().invoke(main, arguments(world, output)).exit_code == 0
    assert (output / BIRD / "class.json").stat().st_mtime_ns == before
    assert (output / KOALA / "class.json").read_bytes() == lost


class Engine:
    """One whose worker is this process, and got its work through a pipe."""

    def run(self, work):
        ledger, do = Ledger(work), pickle.loads(pickle.dumps(work)).open()
        while not ledger.finished:
            unit = ledger.ready()[0]
            ledger.begin(unit)
            try:
                do(unit)
            except Exception as error:
                ledger.fail(unit, described(error))
            else:
                ledger.succeed(unit)
        return ledger.failed


def request(world, output, classes="all", **settings):
    return DiscoveryRequest.of(
        str(world / "toy"),
        world / "images",
        classes=classes,
        output=output,
        settings=Settings(**{"components": 2, "top": 2, **settings}),
    )


def test_an_engines_workers_find_the_same(world, tmp_path, monkeypatch):
    monkeypatch.setattr(discovering, "open_engine", lambda *_, **__: Engine())
    found = discover(request(world, tmp_path / "out", classes="koala"), device="cpu")
    assert found.done == (KOALA,) and not found.failed
    for file in ("class.json", "components.safetensors", "component_01.png"):
        ours, theirs = (f / KOALA / file for f in (tmp_path / "out", world / "found"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_class_that_fails_stops_no_other(world, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(world / "images", images)
    for file in list((images / "105").iterdir())[1:]:
        file.unlink()
    asked = replace(
        request(world, tmp_path / "out", features=False),
        images=images,
        classes={94: [], 105: []},
    )
    found = discover(asked, device="cpu", workers=1)
    assert found.done == (BIRD,) and "two images" in found.failed[KOALA]
    assert not (tmp_path / "out" / KOALA).exists()
    assert not read_class(tmp_path / "out" / BIRD).components[0].features


def test_another_discovery_is_not_mixed_in(world, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(world / "found", output)
    with pytest.raises(SpurbenchError, match="another settings"):
        discover(request(world, output, components=3), device="cpu")
    listing = output / BIRD / "images.json"
    listing.write_text(json.dumps({"images": json.loads(listing.read_text())["images"][1:]}))
    with pytest.raises(SpurbenchError, match="other images"):
        request(world, output)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--classes", "humingbird"), "nearest: hummingbird"),
        (("--images", "toy"), "holds no class folders"),
        (("--model", "nonsense/folder"), "nonsense/folder"),
        (("--output", "images"), "discovery.json"),
    ],
)
def test_what_is_asked_wrongly_ends_in_one_line(world, tmp_path, change, said):
    key, value = change
    value = str(world / value) if (world / value).exists() else value
    ended = CliRunner().invoke(main, arguments(world, tmp_path / "out", key, value))
    assert ended.exit_code == 1 and said in ended.output
    assert len(ended.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_lists_the_commands_and_run_need_not_be_named():
    said = CliRunner().invoke(main, ["discover", "--help"]).output
    assert all(f"\n  {name} " in said for name in ("run", "supervise", "export"))
    assert "--model" in CliRunner().invoke(main, ["discover", "--images", "."]).output

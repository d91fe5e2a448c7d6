"""The stand-in that labels a discovery from the planted truth."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from makers.toy import save_toy_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.discover import DiscoveryRequest, discover
from spurbench.discovery.documents import Settings, class_folder, read_class
from spurbench.discovery.export import export
from spurbench.discovery.supervise.labels import FILE, Labels
from spurbench.mini import supervise as supervising
from spurbench.mini.components import Separated
from spurbench.mini.distributions import CLASSES, EMPTY, biased
from spurbench.mini.preview import write_training
from spurbench.mini.scenes import CONTROLS, SIZE, Scene, render
from spurbench.mini.supervise import PERSON, object_boxes, supervise

CPU = torch.device("cpu")
CONTROL = CONTROLS[0]
HUMMINGBIRD = 94


def pixels(box):
    edges = (box.left, box.top, box.right, box.bottom)
    scaled = [SIZE * edge for edge in edges]
    assert scaled == pytest.approx([round(edge) for edge in scaled])
    return [round(edge) for edge in scaled]


def test_a_box_holds_the_object_to_the_pixel():
    areas = []
    for name in CLASSES:
        for i in range(4):
            scene = biased(name, 0, "train", i)
            boxes = object_boxes(scene)
            if name == EMPTY:
                assert not boxes
                continue
            left, top, right, bottom = pixels(boxes[0])
            without = render(replace(scene, object=None))
            differs = (render(scene) != without).any(axis=2)
            # Outside nothing of the object is seen; inside it reaches every side.
            inside = differs[top:bottom, left:right]
            assert inside.sum() == differs.sum()
            assert inside[0].any() and inside[-1].any()
            assert inside[:, 0].any() and inside[:, -1].any()
            areas.append(inside.size / SIZE**2)
    # Were anything else of the scene drawn anew without the object, boxes would be whole images.
    assert np.mean(areas) < 0.25 and max(areas) < 0.7


def test_a_box_is_the_objects_wherever_else_the_feature_is():
    seed = 7
    alone = object_boxes(Scene("koala", None, seed))
    # The feature is drawn beneath it, and much larger: the object's place is the same.
    beneath = Scene("koala", "red flower", seed, feature_scale=(1.6, 1.6))
    assert object_boxes(beneath) == alone
    assert not object_boxes(Scene(None, "red flower", seed))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A discovery in scenes of a planted class, a control class and the empty one."""
    folder = tmp_path_factory.mktemp("world")
    save_toy_classifier(folder / "toy", favourite=None, seed=1)
    write_training(folder / "training", 5, classes=("hummingbird", CONTROL, EMPTY))
    request = DiscoveryRequest.of(
        str(folder / "toy"),
        folder / "training",
        classes="all",
        output=folder / "found",
        settings=Settings(components=3, top=3, features=False),
    )
    assert not discover(request, device="cpu", workers=1).failed
    return folder / "found"


@pytest.fixture
def discovery(found, tmp_path):
    shutil.copytree(found, tmp_path / "found")
    return tmp_path / "found"


def separated(monkeypatch, *aurocs):
    def measured(folder, names, **_):
        assert CONTROL not in names and EMPTY not in names
        return {"hummingbird": Separated(aurocs, aurocs)}

    monkeypatch.setattr(supervising, "separated", measured)


def test_a_component_is_spurious_from_an_auroc_of_0_9_on(discovery, monkeypatch):
    separated(monkeypatch, 0.899, 0.9, 0.1)
    said = {of.name: of for of in supervise(discovery, scenes=2, device=CPU)}
    assert said["hummingbird"].spurious == (2,) and said["hummingbird"].boxed == 3
    assert not said[CONTROL].spurious and not said[EMPTY].spurious
    labels = Labels(discovery / FILE)
    verdicts = labels.verdicts()
    assert len(verdicts) == 9 and {verdict.person for verdict in verdicts} == {PERSON}
    (yes,) = [verdict for verdict in verdicts if verdict.verdict == "yes"]
    assert (yes.index, yes.component) == (HUMMINGBIRD, 2)
    assert (yes.feature, yes.noun) == ("red flower", "flower")
    assert all(verdict.verdict == "no" for verdict in verdicts if verdict is not yes)
    # Its top images, and no others, are boxed where the object is.
    shown = read_class(discovery / class_folder(HUMMINGBIRD)).components[1].pictures
    marks = {mark.sha256: mark.boxes for mark in labels.marks()}
    assert marks.keys() == {picture.sha256 for picture in shown}
    for picture in shown:
        i = int(picture.path.removesuffix(".png").rpartition("/")[2])
        assert marks[picture.sha256] == object_boxes(biased("hummingbird", 0, "train", i))


def test_parts_beside_the_boxes_become_candidates_without_the_object(
    discovery, monkeypatch, tmp_path
):
    separated(monkeypatch, 0.95, 0.5, 0.5)
    supervise(discovery, scenes=2, device=CPU)
    (pair,) = export(discovery, tmp_path / "out", device=CPU).pairs
    assert pair.candidates and {candidate.kind for candidate in pair.candidates} == {"cut"}
    for candidate in pair.candidates:
        i = int(candidate.origin.removesuffix(".png").rpartition("/")[2])
        without = render(replace(biased("hummingbird", 0, "train", i), object=None))
        part = np.asarray(Image.open(tmp_path / "out" / pair.folder / candidate.file))
        squares = np.lib.stride_tricks.sliding_window_view(without, part.shape)
        assert (squares == part).all(axis=(-3, -2, -1)).any(), candidate.origin


def test_scenes_of_another_seed_are_refused(discovery, monkeypatch):
    separated(monkeypatch, 0.95, 0.5, 0.5)
    with pytest.raises(SpurbenchError, match=r"is no scene of .*training --seed 1`; discover in"):
        supervise(discovery, scenes=2, device=CPU, training_seed=1)


def test_the_command_measures_and_says_what_it_labelled(discovery):
    command = ["mini", "supervise", str(discovery), "--scenes", "3"]
    said = CliRunner().invoke(main, command, catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "hummingbird: spurious: " in said.output
    assert f"{CONTROL}: spurious: none; object boxed in 0 images" in said.output
    assert len(Labels(discovery / FILE).verdicts()) == 9

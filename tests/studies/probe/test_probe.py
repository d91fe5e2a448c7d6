from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from makers import rows as made
from makers.probed import RULES, RuleMember, by_colour, image_set
from makers.toy import save_toy_classifier
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.images.sources import open_images
from spurbench.studies.probe import ask, pictures
from spurbench.studies.probe.edits import EDITS
from spurbench.studies.probe.probe import ProbeRequest, probe
from spurbench.studies.probe.results import Change, Probe
from spurbench.studies.probe.tables import render_markdown, tables
from spurbench.studies.report.pictures import AGREES

CPU = torch.device("cpu")
FEATURE = "generated, the feature edited"


def request(folder, images=None, classifiers=RULES, **more) -> ProbeRequest:
    return ProbeRequest(
        images=images or image_set(),
        classifiers=classifiers,
        output=folder,
        device=CPU,
        **{"split": None, "limit": None, "generators": None, "seed": 0, **more},
    )


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    return folder, *probe(request(folder))


def test_classifiers_by_colour_by_outline_and_by_texture_are_told_apart(probed):
    _, found, _ = probed
    aspects = ("colour", "shape", "texture")
    for of, own in zip(found.classifiers, aspects, strict=True):
        for split in ("real", "generated"):
            sensitive = of.splits[split].aspects.image
            shares = {aspect: getattr(sensitive, aspect).share for aspect in aspects}
            assert shares[own] > 0.65, (of.label, shares)
            others = [share for aspect, share in shares.items() if aspect != own]
            assert max(others) < 0.1, (of.label, shares)


def test_edits_of_the_feature_alone_tell_them_apart_too(probed):
    _, found, _ = probed
    changed = {
        (of.label, line.change): line.changed.share
        for of in found.classifiers
        for line in of.splits["generated"].classes[0].changes
        if line.changed
    }
    assert changed["by_colour", "feature-hue"] == 1 and changed["by_texture", "feature-hue"] == 0
    assert changed["by_texture", "feature-flat"] == 1 and changed["by_colour", "feature-flat"] == 0
    assert changed["by_outline", "feature-flat"] == 0 and changed["by_outline", "feature-hue"] == 0


def test_only_generated_images_with_a_twin_go_through_edits_of_the_feature(probed):
    folder, found, _ = probed
    answers = pd.read_parquet(folder / "probe.parquet")
    inside = {edit.name for edit in EDITS if edit.inside}
    of_feature = answers[answers["change"].isin(inside)]
    assert set(of_feature["source"]) == {"generated"}
    assert of_feature["image_sha256"].nunique() == 2 == found.masks["hummingbird"].images
    whole = answers[~answers["change"].isin(inside)]
    assert len(whole) == 3 * 5 * (1 + len(EDITS) - len(inside))
    assert 0.15 < found.masks["hummingbird"].mean < 0.5  # the disc is 28 % of the pixels
    said = " ".join(found.notes)
    assert "Real photographs" in said and "1 of 3 generated" in said and "none sampled" in said


def test_the_files_say_the_same_and_come_out_the_same_again(probed, tmp_path):
    folder, found, files = probed
    assert {file.name for file in files} == {
        "probe.json", "probe.parquet", "probe.csv", "probe.tex", "probe-classes.csv",
        "probe-classes.tex", "probe-images.svg", "probe-images.png",
    }  # fmt: skip
    assert Probe.read(folder / "probe.json") == found
    assert json.loads((folder / "probe.json").read_text())["schema"] == "spurbench.probe/1"
    lines = list(csv.DictReader(io.StringIO((folder / "probe.csv").read_text())))
    (line,) = [
        one
        for one in lines
        if (one["classifier"], one["split"], one["change"]) == ("by_colour", "real", "grey")
    ]
    assert (line["called"], line["before"], line["after"], line["changed"]) == (
        "2", "1.0", "0.0", "1.0",
    )  # fmt: skip
    assert "| hue turned by 90° | colour | 100 [100, 100] |" in render_markdown(found)
    Image.open(folder / "probe-images.png").verify()
    ET.parse(folder / "probe-images.svg")
    probe(request(tmp_path))
    assert all((tmp_path / file.name).read_bytes() == file.read_bytes() for file in files)


def test_only_images_that_count_of_the_split_that_is_asked_for_are_probed(tmp_path):
    images = image_set(real=0, generated=2, twins=())
    seen = replace(images.records[0], object_absent=False)
    images = replace(images, records=(seen, images.records[1]))
    found, _ = probe(request(tmp_path, images, RULES[:1]))
    part = found.classifiers[0].splits["generated"]
    assert part.classes[0].changes[0].before.n == 1
    assert not any(change.inside for change in found.changes)
    with pytest.raises(SpurbenchError, match="none of 0 real images of discs counts"):
        probe(request(tmp_path, images, split="real"))


def test_two_classifiers_of_one_name_are_refused(tmp_path):
    with pytest.raises(SpurbenchError, match="two classifiers are called by_colour"):
        probe(request(tmp_path, classifiers=[RuleMember(by_colour)] * 2))


def test_a_file_that_is_no_probe_is_named(tmp_path):
    with pytest.raises(SpurbenchError, match="no probe at"):
        Probe.read(tmp_path / "gone.json")
    (tmp_path / "x.json").write_text('{"schema": "other"}')
    with pytest.raises(SpurbenchError, match=r"x\.json"):
        Probe.read(tmp_path / "x.json")


def test_tables_name_every_class_and_change(probed):
    _, found, _ = probed
    by_change, by_class = tables(found)
    assert by_change.shown[0].cells == [change.title for change in found.changes]
    labels = ("by_colour", "by_outline", "by_texture")
    rows = [f"{label}, {of}" for label in labels for of in ("hummingbird", "mean")]
    assert by_class.shown[0].cells == rows
    assert by_class.groups() == [
        ("", 1),
        ("generated, the feature edited", 3),
        ("generated, the whole image edited", 3),
        ("real, the whole image edited", 3),
    ]
    (colour,) = [c for c in by_class.shown if (c.group, c.heading) == (FEATURE, "colour")]
    assert [cell.partition(" ")[0] for cell in colour.cells] == ["100"] * 2 + ["0"] * 4
    assert "Read the feature's colour" in by_class.notes[1]
    lines = list(csv.DictReader(io.StringIO(by_class.csv())))
    assert {(line["split"], line["edited"]) for line in lines} == {
        ("generated", "feature"),
        ("generated", "image"),
        ("real", "image"),
    }
    assert [group for group, _ in by_change.groups()] == [
        "",
        "by_colour",
        "by_outline",
        "by_texture",
    ]


def test_the_picture_has_the_first_images_by_hash_and_colours_what_is_called_the_class():
    images = image_set()
    first = pictures.first(images.records, 2)
    generated = [r for r in images.records if r.source == "generated"]
    assert first == sorted(generated, key=lambda record: record.sha256)[:2]
    asked = ask.questions(first[:1], {}, [e for e in EDITS if e.name == "grey"], 0)
    answers = pd.concat(
        ask.answers(member.load("cpu"), asked, label=member.rule.__name__, store=None)
        for member in RULES[:2]
    )
    change = Change(name="grey", title="greyscale", kind="edit", aspect="colour", inside=False)
    drawn = pictures.figure(first[:1], asked, answers, [change])
    said = [[t.get_text() for t in axis.texts if t.get_color() == AGREES] for axis in drawn.axes]
    assert said == [
        ["by_colour: hummingbird", "by_outline: hummingbird"],
        ["by_outline: hummingbird"],
    ]


def test_the_command_probes_what_eval_would_measure(tmp_path):
    made.write(tmp_path / "data")
    classifier = save_toy_classifier(tmp_path / "toy", favourite=94, seed=1)
    arguments = ["probe", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    without = CliRunner().invoke(main, arguments)
    assert without.exit_code == 1 and "give --model SPEC" in without.output
    arguments += ["--model", str(classifier), "--split", "real", "--limit", "1", "--device", "cpu"]
    told = CliRunner().invoke(main, arguments)
    assert told.exit_code == 0, told.output
    assert "| 4 × 4 patches shuffled | shape | 0 [0, 0] |" in told.output
    assert "Only edits of the whole image were possible" in told.output
    found = Probe.read(tmp_path / "out/probe.json")
    assert found.limit == 1 and [*found.classifiers[0].splits] == ["real"]
    assert found.dataset == open_images(str(tmp_path / "data")).info

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from makers import rows as made
from makers.answers import answered, answers_frame
from makers.probed import RULES
from makers.toy import save_toy_detector
from spurbench.cli.main import main
from spurbench.core.errors import SpurbenchError
from spurbench.images.sources import open_images
from spurbench.studies.ablation.results import Estimate
from spurbench.studies.probe.probe import ProbeRequest, probe
from spurbench.studies.report import pictures, tables
from spurbench.studies.report.paper import paper
from spurbench.studies.report.report import report
from spurbench.studies.report.table import Column, Shown, Table


def answers_to(folder: Path, name: str, called: set[str]):
    """The result of a classifier that calls the images of some hashes their class."""
    images = open_images(str(folder))
    line = answers_frame([94], images=1, splits=("real",)).iloc[0].to_dict()
    lines = [
        line
        | {
            "image_sha256": record.sha256,
            "source": record.source,
            "prediction": 94 if record.sha256 in called else 7,
            "rank": 1 if record.sha256 in called else 3,
            "probability": 0.9 if record.sha256 in called else 0.1,
            "is_reference": False,
            "counted": True,
        }
        for record in images.records
    ]
    frame = pd.DataFrame(lines).astype({"object_absent": "boolean"})
    update = {"dataset": images.info, "predictions": f"{name}.parquet"}
    return (
        (made_up := answered(name, frame))
        .model_copy(update=update)
        .with_answers(made_up._parquet())
    )


def told(name: str, classes=(94,), **more):
    return answered(name, answers_frame(list(classes), images=40), **more)


def test_a_table_of_csv_latex_and_html_says_the_same_and_breaks_nothing():
    table = Table(
        "t",
        "A & B",
        [Column("name", ["x,y", "z"]), Column("share", [0.1234567, None])],
        [Shown("", ["50 % <b>_a", "z"]), Shown("real", ["12.3", ""], "C"), Shown("n", ["1", ""])],
    )
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["name", "share"],
        ["x,y", "0.1234567"],
        ["z", ""],
    ]
    lines = table.latex().splitlines()
    assert r"\caption{A \& B}" in lines
    assert r"50 \% <b>\_a & 12.3 & 1 \\" in lines
    body = [line for line in lines if "&" in line and "caption" not in line]
    assert {line.replace(r"\&", "").count("&") for line in body} == {2}  # three columns each
    tree = ET.fromstring(table.html())
    assert [cell.text for cell in tree.iter("td")] == ["12.3", "1", None, None]
    assert [c.get("colspan") for c in tree.iter("th") if c.get("colspan")] == ["1", "1", "1"]
    assert "<b>" not in table.html()


def test_the_first_table_has_each_class_and_classifier_with_and_without_references():
    one, two = told("one", (94, 105)), told("two", (94, 105), source="torchvision")
    table = tables.spurious_accuracy([one, two])
    numbers = list(csv.DictReader(io.StringIO(table.csv())))
    assert len(numbers) == 2 * 2 * 2  # classes, classifiers, splits
    frame = one.answers
    mine = frame[(frame["source"] == "real") & (frame["class_index"] == 105)]
    (line,) = [
        n
        for n in numbers
        if (n["class_index"], n["classifier"], n["split"]) == ("105", "one", "real")
    ]
    counted = mine[mine["counted"]]
    assert float(line["spurious_accuracy"]) == pytest.approx((counted["rank"] == 1).mean())
    assert int(line["n"]) == len(counted)
    seen = mine[mine["object_absent"].astype(bool)]
    assert float(line["with_references"]) == pytest.approx((seen["rank"] == 1).mean())
    assert int(line["n_with_references"]) == len(seen) == len(counted) + 2
    assert line["paper"] == ""
    assert [shown.group for shown in table.shown] == ["", *["one"] * 3, *["two"] * 3]
    summary = one.splits["real"].summary
    ends = summary.spurious_accuracy_interval
    mean, low, high = (100 * x for x in (summary.spurious_accuracy, ends.low, ends.high))
    assert table.shown[1].cells[-1] == f"{mean:.1f} [{low:.0f}, {high:.0f}]"
    for column in (c for c in table.shown if c.group == "two" and c.heading != "all real"):
        part = two.splits[column.heading]
        shares = [of.spurious_accuracy for of in (*part.classes, part.summary)]
        assert [cell.split()[0] for cell in column.cells] == [f"{100 * x:.1f}" for x in shares]
    counts = {of.n for result in (one, two) for of in result.splits["real"].classes}
    assert f"{min(counts)} to {max(counts)} real ones" in table.notes[0] or len(counts) == 1
    assert any("None of these classifiers" in note for note in table.notes)


def test_the_papers_number_stands_beside_the_same_class_and_classifier_only():
    same = told("resnet50.IMAGENET1K_V1", (94, 7))
    columns = {c.heading: list(c.cells) for c in tables.spurious_accuracy([same]).shown}
    assert columns["paper, real"] == ["", "60.0", ""]
    assert columns["paper, generated"] == ["", "90.7", ""]
    numbers = csv.DictReader(io.StringIO(tables.spurious_accuracy([same]).csv()))
    printed = {(n["class_index"], n["split"]): n["paper"] for n in numbers}
    assert printed == {
        ("94", "real"): "0.6",
        ("94", "generated"): "0.9067",
        ("7", "real"): "",
        ("7", "generated"): "",
    }


def test_the_papers_numbers_are_the_papers(shared):
    published = json.loads((shared / "paper.json").read_text())
    classes = {
        94: "hummingbird", 565: "freight car", 554: "fireboat",
        576: "gondola", 557: "flagpole", 105: "koala",
    }  # fmt: skip
    names = {
        "resnet50.IMAGENET1K_V1": "resnet50 IMAGENET1K_V1",
        "resnet50.IMAGENET1K_V2": "resnet50 IMAGENET1K_V2",
        "vit_base_patch16_224.augreg_in21k_ft_in1k": "vit_base_patch16_224 augreg",
    }
    first = published["table1_spurious_accuracy_percent"]
    assert {column.classifier for column in paper().table1} == set(names)
    for column in paper().table1:
        printed = first[names[column.classifier]]
        assert {classes[k]: list(v) for k, v in column.classes.items()} == printed
    second = published["table2_ablation_average_spurious_accuracy_percent"]
    assert sorted(paper().table2.values()) == sorted(second.values())
    third = {k: v for k, v in published["table3_topiq_nr"].items() if k != "columns"}
    assert {classes[k]: list(v) for k, v in paper().table3.items()} == third


def test_quality_sets_the_references_against_all_generated_images():
    rows = {
        "real": [made.row("real", i, is_reference=i < 2) for i in range(4)],
        "generated": [made.row("generated", i) for i in range(3)],
    }
    score = {row.image_sha256: float(i) for i, row in enumerate(rows["real"] + rows["generated"])}
    table = tables.quality(rows, {"topiq_nr": lambda row: score[row.image_sha256]})
    numbers = list(csv.DictReader(io.StringIO(table.csv())))
    assert [(n["images"], n["n"], float(n["mean"])) for n in numbers] == [
        ("references", "2", 0.5),
        ("generated", "3", 5.0),
    ]
    assert [c.cells[0] for c in table.shown if c.heading in ("references", "generated")] == [
        "0.50 (n = 2)", "5.00 (n = 3)",
    ]  # fmt: skip
    assert [shown.heading for shown in table.shown] == [
        "class", "references", "paper, references", "generated", "paper, generated",
    ]  # fmt: skip


def test_disputed_images_are_those_nearest_to_half_of_the_classifiers():
    rows = [made.row("generated", i) for i in range(4)]
    answers = [(94, 94, 94, 94), (94, 94, 94, 7), (94, 94, 7, 7), (7, 7, 7, 7)]
    images = [
        pictures.Asked(row, {str(i): (a, 0.5 + 0.1 * i) for i, a in enumerate(of)})
        for row, of in zip(rows, answers, strict=True)
    ]
    assert pictures.disputed(images, 5) == [images[2], images[1]]  # the unanimous ones never
    assert pictures.disputed(images, 1) == [images[2]]


def test_of_images_as_disputed_those_come_first_whose_probabilities_differ_most():
    rows = [made.row("generated", i) for i in range(3)]
    spread = [0.1, 0.4, 0.2]
    images = [
        pictures.Asked(row, {"a": (94, 0.5 + by), "b": (7, 0.5 - by)})
        for row, by in zip(rows, spread, strict=True)
    ]
    assert pictures.disputed(images, 3) == [images[1], images[2], images[0]]


def test_images_come_by_their_hash_with_each_classifiers_own_answer():
    results = []
    for name, answer in (
        ("calls", {"prediction": 94, "rank": 1, "probability": 0.9}),
        ("calls_not", {"prediction": 7, "rank": 3, "probability": 0.2}),
    ):
        frame = answers_frame([94], images=4, splits=("generated",)).assign(**answer)
        results.append(answered(name, frame))
    hashes = frame.loc[frame["source"] == "generated", "image_sha256"]
    rows = [made.row("generated", i, image_sha256=sha) for i, sha in enumerate(hashes)]
    asked = pictures.asked(rows, results, "generated")
    assert [image.row.image_sha256 for image in asked] == sorted(r.image_sha256 for r in rows)
    assert pictures.first(asked, 2) == asked[:2]
    figure = pictures.answers_figure(asked[:1], 1)
    said = [(text.get_text(), text.get_color()) for text in figure.axes[0].texts[1:]]
    assert said == [
        ("calls: hummingbird 0.90", pictures.AGREES),
        ("calls_not: cock", pictures.DIFFERS),
    ]


def test_the_ablations_rows_stand_beside_their_difference_to_the_baseline():
    def row(name, mean):
        estimate = {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}
        difference = {"mean": mean - 0.5, "low": None, "high": None}
        return SimpleNamespace(
            name=name,
            description=f"made {name}",
            summary={"spurious_accuracy": Estimate(**estimate)},
            against_baseline={"spurious_accuracy": Estimate(**difference)},
        )

    found = SimpleNamespace(
        recipe="toy", seeds=(0, 1), baseline="plain", rows=[row("plain", 0.5), row("more", 0.75)]
    )
    table = tables.ablation(found)
    assert [list(column.cells) for column in table.shown] == [
        ["made plain", "made more"],
        ["50.0 [40.0, 60.0]", "75.0 [65.0, 85.0]"],
        ["0.0", "25.0"],
    ]
    assert "2 seeds" in table.notes[0] and "baseline: plain" in table.notes[0]


def test_a_dataset_and_its_results_become_a_page_and_files(tmp_path):
    generated = [made.row("generated", i) for i in range(4)]
    placed = [made.in_context(image, "on the beach") for image in generated]
    rows = {"real": [made.row("real", i) for i in range(3)], "generated": generated}
    made.write(tmp_path / "data", rows=rows | {"contexts-generated": placed})
    detector = str(save_toy_detector(tmp_path / "detector", ["context:on the beach"]))
    records = open_images(str(tmp_path / "data")).records
    called = {records[0].sha256, records[-1].sha256}
    (tmp_path / "results").mkdir()
    for name, hashes in (("some", called), ("none", set())):
        result = answers_to(tmp_path / "data", name, hashes)
        result.write(tmp_path / "results" / f"{name}.json")
    told("elsewhere").write(tmp_path / "results/elsewhere.json")
    (tmp_path / "results/notes.json").write_text("[]")
    cpu = torch.device("cpu")
    asked = tmp_path / "data", [tmp_path / "results"], tmp_path / "out"
    written = report(*asked, detector=detector, device=cpu)
    assert {file.name for file in written} == {
        "spurious-accuracy.csv", "spurious-accuracy.tex", "classifiers.csv", "classifiers.tex",
        "quality.csv", "quality.tex",
        "answers-real.png", "answers-real.svg", "answers-generated.png", "answers-generated.svg",
        "disagreement.png", "disagreement.svg", "report.html", "contexts.csv", "contexts.tex",
        "contexts.png", "contexts.svg", "contexts-visible.csv", "contexts-visible.tex",
    }  # fmt: skip
    page = (tmp_path / "out/report.html").read_text()
    assert page.count("<table>") == 5 and page.count("data:image/webp;base64,") == 4
    assert "or more by detector@" in page
    assert "http" not in page.replace("http-equiv", "")
    for file in written:
        if file.suffix == ".png":
            Image.open(file).verify()
        if file.suffix == ".svg":
            ET.parse(file)
    before = {file: file.read_bytes() for file in written}
    report(*asked, detector=detector, device=cpu)
    assert before == {file: file.read_bytes() for file in written}


def test_a_probe_of_the_dataset_is_part_of_its_report(tmp_path):
    made.write(tmp_path / "data")
    images = open_images(str(tmp_path / "data"))
    answers_to(tmp_path / "data", "some", set()).write(tmp_path / "some.json")
    request = ProbeRequest(
        images=images,
        split=None,
        limit=2,
        classifiers=RULES[:1],
        output=tmp_path / "probe",
        generators=None,
        seed=0,
        device=torch.device("cpu"),
    )
    found, _ = probe(request)
    options = {"device": torch.device("cpu")}
    file = tmp_path / "probe/probe.json"
    written = report(
        tmp_path / "data", [tmp_path / "some.json"], tmp_path / "out", probe=file, **options
    )
    names = {path.name for path in written}
    assert {"probe.csv", "probe-classes.tex", "probe-images.svg", "probe-images.png"} <= names
    page = (tmp_path / "out/report.html").read_text()
    assert 'id="probe"' in page and found.caption in page
    assert (tmp_path / "out/probe.csv").read_bytes() == (tmp_path / "probe/probe.csv").read_bytes()
    (tmp_path / "probe/probe-images.png").unlink()
    with pytest.raises(SpurbenchError, match=r"probe-images\.png is missing"):
        report(tmp_path / "data", [tmp_path / "some.json"], tmp_path, probe=file, **options)
    other = found.dataset.model_copy(update={"fingerprint": "0" * 64})
    found.model_copy(update={"dataset": other}).write(file)
    with pytest.raises(SpurbenchError, match="a probe of other images"):
        report(tmp_path / "data", [tmp_path / "some.json"], tmp_path, probe=file, **options)


def test_without_a_result_on_the_dataset_there_is_no_report(tmp_path):
    made.write(tmp_path / "data")
    told("elsewhere").write(tmp_path / "elsewhere.json")
    arguments = ["report", str(tmp_path / "data"), "--results", str(tmp_path / "elsewhere.json")]
    told_so = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "out")])
    assert told_so.exit_code == 1 and "(1 on other data)" in told_so.output
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpurbenchError, match=r"no file or folder of results at .*gone"):
        report(tmp_path / "data", [tmp_path / "gone"], tmp_path / "out", device=torch.device("cpu"))

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from makers.answers_frame import frame, images
from makers.measured import save_dataset, save_result
from spurbench.classifiers.info import ClassifierInfo, Preprocessing
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.display import results_sheets
from spurbench.evaluation.results import BOOTSTRAP, Result
from spurbench.evaluation.summary import summarise
from spurbench.images.records import DatasetInfo


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("result")
    shares = {"real": {94: 0.25, 565: 0.5, 105: 0.8}, "generated": 0.75}
    return save_result(folder, save_dataset(folder / "set"), "a", shares)


def cells(sheet) -> list[dict[str, str]]:
    """Rows by heading; of several columns of one heading, by the heading and its number."""
    headings = [column.heading for column in sheet.columns]
    names = [
        f"{heading} {headings[: i + 1].count(heading)}" if heading in headings[:i] else heading
        for i, heading in enumerate(headings)
    ]
    return [dict(zip(names, row, strict=True)) for row in sheet.rows]


def percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")


def test_a_table_shows_the_numbers_of_the_result(file):
    result = Result.read(file)
    for split, part in result.splits.items():
        for shown, numbers in zip(
            cells(result.sheet(split)), [*part.classes, part.summary], strict=True
        ):
            interval = numbers.spurious_accuracy_interval
            assert shown == {
                "class": getattr(numbers, "name", "macro mean"),
                "n": str(numbers.n),
                "spurious accuracy": percent(numbers.spurious_accuracy),
                "95 % interval": f"{interval.low:.1%} to {interval.high:.1%}".replace("%", ""),
                "top-5": percent(numbers.top5),
                "mean probability": str(round(numbers.mean_probability, 4)).ljust(6, "0"),
            }
    shares = [row["spurious accuracy"] for row in cells(result.sheet("real"))]
    assert shares == ["25.0 %", "80.0 %", "50.0 %", "51.7 %"]
    assert "Recognition not measured; give --positives." in " ".join(result.sheet("real").notes)


@pytest.fixture(scope="module")
def full():
    """A result with all that one can have."""
    groups = []
    for index in (94, 105):
        called = [1, 1, 1, 0] * 5
        groups += [
            images("real", index, called),
            images("real", index, [1], counted=False, is_reference=True, prefix="reference"),
            images("generated", index, called),
            images("generated", index, [1, 0], counted=False, object_absent=False, prefix="seen"),
            images("positive", index, [1] * 9 + [0], probability=[0.95] * 9 + [0.2]),
            images("control", index, [0, 1, 0, 0] * 5),
        ]
    answers = frame(*groups)
    answers.loc[answers["class_index"] == 94, "class_name"] = "a class of a rather long name"
    return of_answers(answers, role="phi", name="vit_base_patch16_224.augreg_in21k_ft_in1k")


def of_answers(answers, *, name, role=None) -> Result:
    splits = {
        split: summarise(answers[answers["source"].isin(sources)])
        for split, sources in (
            ("real", ["real", "positive"]),
            ("generated", ["generated", "positive", "control"]),
        )
    }
    return Result(
        summary=splits["real"].summary,
        splits=splits,
        classifier=ClassifierInfo(
            spec=name,
            name=name,
            source="timm",
            architecture="vit",
            parameters=1,
            head="imagenet-1k",
            weights_sha256="0",
        ),
        dataset=DatasetInfo(name="toy", version="1.0.0", kind="dataset", fingerprint="0"),
        role=role,
        preprocessing=Preprocessing(
            mode="whole",
            resize=(32,),
            crop=(32, 32),
            interpolation="bicubic",
            mean=(0, 0, 0),
            std=(1, 1, 1),
        ),
        damaged=[],
        settings=BOOTSTRAP,
        predictions="x.parquet",
        predictions_sha256="0",
        environment={"device": "cpu"},
        created="2026-01-01T00:00:00+00:00",
    )


def test_recognition_and_effect_stand_beside_spurious_accuracy(full):
    summary = full.splits["generated"].summary
    shown = cells(full.sheet("generated"))[-1]
    recognition, effect = summary.recognition, summary.effect
    assert shown["recognition"] == percent(recognition.accuracy) == "90.0 %"
    assert shown["AUROC"] == f"{recognition.auroc:.3f}"
    area = recognition.auroc_interval
    assert shown["95 % interval 3"] == f"{area.low:.3f} to {area.high:.3f}"
    assert shown["feature effect"] == "+50.0" == f"{100 * effect.effect:+.1f}"
    low, high = recognition.interval.low, recognition.interval.high
    assert shown["95 % interval 2"] == f"{100 * low:.1f} to {100 * high:.1f}"
    low, high = effect.interval.low, effect.interval.high
    assert shown["95 % interval 4"] == f"{100 * low:+.1f} to {100 * high:+.1f}"
    assert "feature effect" not in cells(full.sheet("real"))[-1]
    notes = " ".join(full.sheet("generated").notes)
    assert "50.0 % where the object is seen (4 images)" in notes
    assert "hold for this set of images only" in notes
    assert "76.2 % with the references (42 images)" in " ".join(full.sheet("real").notes)
    assert "only" not in " ".join(full.sheet("real").notes)


@pytest.mark.parametrize("width", [80, 100, 300])
def test_tables_fit_the_terminal_and_cut_no_name(full, width):
    for printed in (full, results_sheets([full, full])[1]):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(printed)
        said = captured.get()
        assert max(map(len, said.splitlines())) <= width
        assert "…" not in said and "+50.0" in said and "90.0 %" in said
        # Intervals are in the table or below it; or it is said where.
        low = full.splits["generated"].summary.effect.interval.low
        assert f"{100 * low:+.1f} to" in said or "Intervals need a wider terminal" in said
        name = full.classifier.name
        assert name in said or name[:10] in said
    assert "a class of a rather long name" in str(full)
    assert max(map(len, str(full).splitlines())) <= 80
    assert "optimised for its features" in str(full) and "optimised" in full._repr_html_()


def test_a_frame_is_flat(full):
    flat = full.to_frame()
    first = flat[flat["split"] == "generated"].iloc[0]
    c = full.splits["generated"].classes[0]
    assert (first["positives"], first["recognition"]) == (10, c.recognition.accuracy)
    assert (first["recognition_low"], first["recognition_high"]) == (
        c.recognition.interval.low,
        c.recognition.interval.high,
    )
    assert (first["auroc"], first["auroc_low"]) == (
        c.recognition.auroc,
        c.recognition.auroc_interval.low,
    )
    assert (first["pairs"], first["effect"]) == (20, c.effect.effect)
    assert (first["paired_accuracy"], first["control_accuracy"]) == (0.75, 0.25)
    assert (first["effect_low"], first["effect_p_value"]) == (
        c.effect.interval.low,
        c.effect.p_value,
    )
    assert (first["object_seen"], first["object_seen_n"]) == (0.5, 2)
    real = flat[flat["split"] == "real"].iloc[0]
    assert (real["with_references"], real["with_references_n"]) == (16 / 21, 21)
    assert np.isnan(real["effect"]) and np.isnan(real["object_seen"])
    documented = Path(__file__).parents[2] / "docs" / "results.md"
    text = documented.read_text()
    assert [name for name in flat.columns if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("summary", "n"), 0),
        (("summary", "classes"), 0),
        (("summary", "spurious_accuracy"), 1.01),
        (("summary", "top5"), -0.01),
        (("summary", "mean_probability"), 1.01),
        (("summary", "worst_class_spurious_accuracy"), 1.01),
        (("summary", "generators"), -1),
        (("summary", "worst_class_n"), 0),
        (("summary", "chance"), 1.01),
        (("summary", "spurious_accuracy_interval", "low"), -0.01),
        (("summary", "spurious_accuracy_interval", "high"), 1.01),
        (("splits", "real", "classes", 0, "n"), 0),
        (("splits", "real", "classes", 0, "spurious_accuracy"), -0.01),
        (("splits", "real", "classes", 0, "top5"), 1.01),
        (("splits", "real", "classes", 0, "mean_probability"), -0.01),
        (("splits", "test"), {}),
        (("schema",), "spurbench.result/1"),
        (("protocol",), "mine"),
        (("config",), "mine"),
        (("role",), "mine"),
        (("new",), 1),
    ],
)
def test_numbers_that_cannot_be_are_refused(file, tmp_path, where, value):
    document = json.loads(file.read_text())
    Result.read(file)
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match=str(where[-1])):
        Result.read(changed)

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from makers.answers import answered, answers_frame
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.metrics import auroc
from spurbench.leaderboard import entries
from spurbench.leaderboard.entries import Entry

CLASSES = (94, 105, 565)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return answers_frame(CLASSES, images=21, generators=3)


@pytest.fixture(scope="module")
def entry(frame) -> Entry:
    return Entry.of(answered("resnet50", frame), frame)


def test_an_entry_of_every_source_is_read_as_it_was_written(entry, tmp_path):
    entry.write(tmp_path / "entry.json")
    assert entries.read(tmp_path / "entry.json") == entry
    assert list(entry.answers) == ["real", "generated", "positive", "control"]


def test_images_are_in_the_order_of_generator_and_hash_and_twins_in_that_of_theirs(entry, frame):
    for position, index in enumerate(CLASSES):
        rows = frame[(frame["source"] == "generated") & (frame["class_index"] == index)]
        rows = rows.sort_values(["replicate", "image_sha256"])
        twins = frame[frame["source"] == "control"].set_index("twin_of")
        own, control = (entry.answers[s][position] for s in ("generated", "control"))
        assert own.generators == [7, 7, 7]
        assert own.counted_generators == 3
        assert own.predictions.tolist() == rows["prediction"].tolist()
        assert own.counted.tolist() == rows["counted"].tolist()
        assert (
            control.predictions.tolist() == twins.loc[rows["image_sha256"], "prediction"].tolist()
        )
        assert control.counted.tolist() == twins.loc[rows["image_sha256"], "counted"].tolist()
        assert control.left_out and set(own.left_out) < set(control.left_out)


def test_an_image_without_a_twin_is_left_out_among_the_controls(frame):
    lost = frame[frame["source"] == "control"].index[:2]
    some = frame.drop(lost)
    made = Entry.of(answered("resnet50", some), some)
    control = made.answers["control"][0]
    assert len(control.predictions) == 21
    assert {*np.flatnonzero(control.predictions == -1)} <= {*control.left_out}
    assert (control.predictions == -1).sum() == 2


def test_answers_that_are_no_class_of_imagenet_are_written_and_read(frame, tmp_path):
    odd = frame.assign(prediction=frame["prediction"].where(frame["rank"] == 1, -1))
    made = Entry.of(answered("resnet50", odd), odd)
    made.write(tmp_path / "entry.json")
    assert " ?" in (tmp_path / "entry.json").read_text()
    again = entries.read(tmp_path / "entry.json")
    assert again == made and -1 in again.answers["real"][0].predictions


def places(value: Any, where: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Of every number below ``where`` that follows from the answers."""
    followed = {
        "n": 1,
        "classes": 1,
        "generators": 1,
        "spurious_accuracy": 1e-5,
        "mean_probability": 1e-4,
        "accuracy": 1e-5,
        "auroc": 1e-2,
        "pairs": 1,
        "control_accuracy": 1e-5,
        "effect": 1e-5,
        "chance": 1e-5,
        "worst_class_n": 1,
        "worst_class_spurious_accuracy": 1e-5,
    }
    found = []
    for key, item in value.items():
        if isinstance(item, dict):
            found += places(item, (*where, key))
        elif key in followed:
            found.append((*where, key, followed[key]))
    return found


def test_every_number_that_follows_from_the_answers_is_held_to_them(entry, tmp_path):
    file = tmp_path / "entry.json"
    entry.write(file)
    document = json.loads(file.read_text())
    checked = 0
    for split, part in document["splits"].items():
        for where in [
            *places(part["summary"], ("splits", split, "summary")),
            *(
                p
                for k in (0, 2)
                for p in places(part["classes"][k], ("splits", split, "classes", k))
            ),
        ]:
            *path, key, change = where
            if {"with_references", "object_seen"} & {*path}:
                continue  # of images that don't count, which answers don't tell apart
            for sign in (1, -1):
                forged = json.loads(json.dumps(document))
                place = forged
                for step in path:
                    place = place[step]
                place[key] += sign * change
                file.write_text(json.dumps(forged))
                with pytest.raises(SpurbenchError, match=r"entry\.json is not") as caught:
                    entries.read(file)
                assert "\n" not in str(caught.value)
                checked += 1
    assert checked > 100


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (("summary", "top5"), "top5 is not that of its classes"),
        (("summary", "recognition", "average_precision"), "is not that of its classes"),
        (("summary", "with_references", "share"), "is not that of its classes"),
        (("summary", "with_references", "n"), "is not that of its classes"),
        (("summary", "object_seen", "share"), "is not that of its classes"),
    ],
)
def test_what_the_answers_do_not_tell_is_held_to_its_classes(entry, tmp_path, where, said):
    file, forged = forge(entry, tmp_path)
    found = 0
    for split in forged["splits"].values():
        *path, key = where
        place = split
        for step in path:
            place = (place or {}).get(step)
        if place is None or key not in place:
            continue
        kept, found = place[key], found + 1
        place[key] = kept + 1 if key == "n" else abs(kept - 0.25)
        file.write_text(json.dumps(forged))
        with pytest.raises(SpurbenchError, match=said):
            entries.read(file)
        place[key] = kept
    assert found


@pytest.mark.parametrize(
    ("name", "number", "value"),
    [
        ("with_references", "n", 1000),
        ("with_references", "share", 0.99),
        ("with_references", "share", 0.01),
        ("object_seen", "n", 1000),
        ("object_seen", "share", 0.99),
    ],
)
def test_of_images_left_out_as_many_are_called_the_class_as_answers_allow(
    tmp_path, name, number, value
):
    frame = answers_frame((94,), images=21, splits=("real",))
    file, forged = forge(Entry.of(answered("resnet50", frame), frame), tmp_path)
    split = forged["splits"]["real"]
    for part in (split["summary"], split["classes"][0]):
        part[name][number] = value
    file.write_text(json.dumps(forged))
    with pytest.raises(SpurbenchError, match=f"{name} is not what answers left out allow"):
        entries.read(file)


def forge(entry: Entry, folder: Any) -> tuple[Any, Any]:
    entry.write(folder / "entry.json")
    return folder / "entry.json", json.loads((folder / "entry.json").read_text())


@pytest.mark.parametrize("source", ["real", "generated", "positive", "control"])
def test_a_changed_answer_of_any_source_is_found(entry, tmp_path, source):
    file = tmp_path / "entry.json"
    entry.write(file)
    document = json.loads(file.read_text())
    own = document["answers"][source][1]
    words = own["predictions"].split()
    counted = [i for i in range(len(words)) if i not in own["left_out"] and words[i] == "="]
    words[counted[0]] = "3"
    own["predictions"] = " ".join(words)
    file.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match="differs from the answers"):
        entries.read(file)


@pytest.mark.parametrize("source", ["positive", "control"])
def test_a_source_without_its_numbers_or_numbers_without_their_source_are_found(
    entry, tmp_path, source
):
    file = tmp_path / "entry.json"
    entry.write(file)
    document = json.loads(file.read_text())
    del document["answers"][source]
    file.write_text(json.dumps(document))
    with pytest.raises(SpurbenchError, match="differs from the answers"):
        entries.read(file)


def test_auroc_may_lie_where_rounded_probabilities_are_alike_and_nowhere_else(tmp_path):
    frame = answers_frame(CLASSES, splits=["generated"])
    # All so unsure that rounding makes them alike: any AUROC may be true of them.
    tiny = frame.assign(probability=frame["probability"] * 1e-6)
    made = Entry.of(answered("resnet50", tiny), tiny)
    recognition = made.splits["generated"].classes[0].recognition
    assert recognition is not None
    own = tiny[(tiny["class_index"] == 94) & tiny["counted"]]
    positives, spurious = (
        own.loc[own["source"] == source, "probability"].to_numpy()
        for source in ("positive", "generated")
    )
    assert recognition.auroc == pytest.approx(auroc(positives, spurious), abs=1e-5) != 0.5
    made.write(tmp_path / "entry.json")
    assert entries.read(tmp_path / "entry.json") == made

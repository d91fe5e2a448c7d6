from __future__ import annotations

import json

import numpy as np
import pytest

from spurbench.core.errors import SpurbenchError
from spurbench.studies.validity.answers import Collected, Said, Shown, read, write
from spurbench.studies.validity.truth import read_truth

IMAGES = [
    Shown(94, "a", "image", object_absent=True, feature_present=True, novel=False),
    Shown(94, "b", "image", generator=1, object_absent=True, feature_present=False),
    Shown(94, "tb", "twin-base", twin_of="b", object_absent=True, feature_present=False),
    Shown(94, "ta", "twin-base", twin_of="a", object_absent=False),
    Shown(105, "c", "image"),
]
COLLECTED = Collected(
    {"p": "panel", "f": "zoo", "g": "zoo"},
    IMAGES,
    [
        Said(np.array(predicted), -np.arange(5.0) - i, np.arange(5.0) * i)
        for i, predicted in enumerate(
            ([94, 94, 94, 94, 105], [94, 1, 94, 3, 94], [-1, 94, 3, 94, 105])
        )
    ],
    {"seconds": {94: 1.5}},
)


def test_what_is_written_is_read_and_not_taken_for_that_of_other_inputs(tmp_path):
    path = tmp_path / "a.parquet"
    assert read(path, "x") is None
    write(path, COLLECTED, "x")
    assert read(path, "y") is None
    found = read(path, "x")
    assert found.images == IMAGES
    assert (found.classifiers, found.notes) == (COLLECTED.classifiers, COLLECTED.notes)
    for one, other in zip(found.said, COLLECTED.said, strict=True):
        for name in ("predicted", "log_probability", "log_odds"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SpurbenchError, match="is damaged"):
        read(path, "x")


def test_answers_are_those_of_a_class_and_a_role_and_twins_know_their_images():
    images, twins = (COLLECTED.of(94, role, ["g", "f"]) for role in ("image", "twin-base"))
    np.testing.assert_array_equal(images.hit, [[False, True], [True, False]])
    np.testing.assert_array_equal(twins.hit, [[False, True], [True, False]])
    np.testing.assert_array_equal(twins.log_odds, [[4, 6], [2, 3]])
    np.testing.assert_array_equal(twins.image, [1, 0])
    np.testing.assert_array_equal(images.image, [-1, -1])
    np.testing.assert_array_equal(images.feature_alone, [True, False])
    # What no detector looked for is seen by none.
    np.testing.assert_array_equal(twins.neither, [True, False])
    np.testing.assert_array_equal(images.generator, [0, 1])
    assert COLLECTED.of(94, "prior", ["f"]) is None


def test_the_truth_is_that_of_the_weights_it_names(tmp_path):
    def effect(value):
        return {"value": value, "low": -1, "high": 1}

    answered = {
        "reliance": effect(0.5),
        "against_other": effect(0.3),
        "probability_effect": effect(0.4),
        "scenes": 500,
    }
    classifiers = [
        {
            "classifier": {"name": name, "weights_sha256": name * 2, "spec": "x"},
            "classes": {"koala": {"feature": "tree", "answered": answered}},
        }
        for name in "fg"
    ]
    path = tmp_path / "reliance.json"
    path.write_text(json.dumps({"schema": "spurbench.reliance/1", "classifiers": classifiers}))
    truth = read_truth(path)
    np.testing.assert_array_equal(truth.values(["f"], ["koala"]), [[0.5]])
    np.testing.assert_array_equal(truth.values(["f"], ["koala"], "against_kin"), [[0.3]])
    truth.require({"f": "ff"}, ["koala"])
    for weights, classes, said in (
        ({"f": "gg"}, ["koala"], "of other weights"),
        ({"h": "hh"}, ["koala"], "silent of classifier h"),
        ({"f": "ff"}, ["gondola"], "silent of f on class gondola"),
    ):
        with pytest.raises(SpurbenchError, match=said):
            truth.require(weights, classes)

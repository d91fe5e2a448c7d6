from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from spurbench.evaluation.metrics import wilson_interval
from spurbench.evaluation.paired import holm, mcnemar
from spurbench.studies.probe.measure import UNCHANGED, splits
from spurbench.studies.probe.results import Change


def change(name: str, aspect="colour", inside=False) -> Change:
    return Change(name=name, title=name, kind="edit", aspect=aspect, inside=inside)


def answers(index: int, source: str, **called: str) -> pd.DataFrame:
    """Rows of a class: for each change a word of ``1`` called, ``0`` not, ``-`` not asked."""
    return pd.DataFrame(
        {
            "class_index": index,
            "class_name": f"class {index}",
            "spurious_feature": None,
            "source": source,
            "image_sha256": f"{index}-{source}-{i}",
            "change": name,
            "rank": 1 if yes == "1" else 3,
        }
        for name, word in called.items()
        for i, yes in enumerate(word)
        if yes != "-"
    )


CHANGES = [change("a"), change("b"), change("c", "shape"), change("d", "texture", inside=True)]


def test_changed_is_the_share_of_the_called_images_that_are_no_longer_called():
    frame = answers(3, "real", **{UNCHANGED: "111100", "a": "100011", "b": "111100"})
    found = splits(frame, CHANGES)
    assert [*found] == ["real"]
    (own,) = found["real"].classes
    a, b = own.changes
    assert (a.change, a.before.n, a.before.share, a.after.share) == ("a", 6, 4 / 6, 0.5)
    assert a.changed is not None and (a.changed.n, a.changed.share) == (4, 0.75)
    low, high = wilson_interval(3, 4)
    assert (a.changed.interval.low, a.changed.interval.high) == (low, high)
    assert b.changed is not None and b.changed.share == 0
    before, after = (np.array([c == "1" for c in word]) for word in ("111100", "100011"))
    assert [a.p_value, b.p_value] == holm([mcnemar(before, after), 1.0])


def test_p_values_are_adjusted_for_the_changes_of_a_class():
    words = {"a": "0" * 8 + "1" * 2, "b": "0" * 7 + "1" * 3, "c": "1" * 10}
    frame = answers(3, "real", **{UNCHANGED: "1" * 10, **words})
    told = [line.p_value for line in splits(frame, CHANGES)["real"].classes[0].changes]
    assert told == holm([2 / 2**8, 2 / 2**7, 1.0]) and told[0] == 3 * 2 / 2**8


def test_images_that_did_not_go_through_a_change_are_in_none_of_its_numbers():
    frame = answers(3, "generated", **{UNCHANGED: "1110", "d": "0-1-"})
    (line,) = splits(frame, CHANGES)["generated"].classes[0].changes
    assert (line.before.n, line.before.share, line.after.share) == (2, 1, 0.5)
    assert line.changed is not None and line.changed.n == 2


def test_means_are_over_classes_in_which_an_image_is_called():
    frame = pd.concat(
        [
            answers(3, "real", **{UNCHANGED: "1111", "a": "0000"}),
            answers(5, "real", **{UNCHANGED: "10", "a": "10"}),
            answers(7, "real", **{UNCHANGED: "00", "a": "11"}),
        ]
    )
    part = splits(frame, CHANGES)["real"]
    (mean,) = part.means
    assert (mean.change, mean.classes, mean.changed.share) == ("a", 2, 0.5)
    # Images are resampled within their class, in each of which they are alike.
    assert (mean.changed.interval.low, mean.changed.interval.high) == (0.5, 0.5)
    uncalled = part.classes[2]
    assert uncalled.changes[0].changed is None and uncalled.aspects.image.colour is None
    assert uncalled.changes[0].after.share == 1


def test_an_aspect_is_the_mean_of_its_edits_of_the_feature_and_of_the_whole_image_apart():
    changes = [*CHANGES, change("e", "colour", inside=True)]
    words = {"a": "00-0", "b": "0100", "c": "1111", "d": "10-0", "e": "11-1"}
    frame = answers(3, "generated", **{UNCHANGED: "1110", **words})
    aspects = splits(frame, changes)["generated"].classes[0].aspects
    assert aspects.image.colour is not None and aspects.image.colour.share == pytest.approx(0.75)
    assert aspects.image.colour.interval.low == 0.5 and aspects.image.colour.interval.high == 1
    assert aspects.image.shape is not None and aspects.image.shape.share == 0
    assert aspects.image.texture is None  # its only edit is of the feature alone
    assert aspects.feature is not None and aspects.feature.shape is None
    # Of the two images that have a mask, and are called the class as they are.
    assert aspects.feature.texture is not None and aspects.feature.texture.share == 0.5
    assert aspects.feature.colour is not None and aspects.feature.colour.share == 0


def test_without_a_mask_nothing_is_said_of_the_feature():
    frame = pd.concat(
        [
            answers(3, "real", **{UNCHANGED: "11", "a": "00"}),
            answers(3, "generated", **{UNCHANGED: "11", "d": "00"}),
        ]
    )
    found = splits(frame, CHANGES)
    assert found["real"].aspects.feature is None
    assert found["generated"].aspects.feature is not None
    assert found["generated"].aspects.image.texture is None

"""A split's numbers, worked out by hand from answers."""

from __future__ import annotations

import numpy as np
import pytest

from makers.answers_frame import frame, images
from spurbench.evaluation.metrics import chance, wilson_interval
from spurbench.evaluation.paired import mcnemar
from spurbench.evaluation.summary import summarise


def test_only_images_that_count_are_in_the_headline():
    part = summarise(
        frame(
            images("real", 94, [1, 0, 0, 0], probability=[0.8, 0.2, 0.2, 0.4]),
            images("real", 94, [1, 1], counted=False, is_reference=True, prefix="reference"),
            images("real", 94, [1, 1, 0], counted=False, object_absent=False, prefix="seen"),
            images("real", 105, [1, 1]),
            images("positive", 94, [1, 0]),
            images("control", 94, [1], counted=False),
        )
    )
    hummingbird, koala = part.classes
    assert (hummingbird.n, hummingbird.spurious_accuracy) == (4, 0.25)
    assert hummingbird.mean_probability == pytest.approx(0.4)
    assert (hummingbird.with_references.n, hummingbird.with_references.share) == (6, 0.5)
    assert (hummingbird.object_seen.n, hummingbird.object_seen.share) == (3, 2 / 3)
    # A class without references is the same with them; one without seen objects has no number.
    assert (koala.with_references.n, koala.with_references.share) == (2, 1)
    assert koala.object_seen is None
    assert (part.summary.n, part.summary.spurious_accuracy) == (6, 0.625)
    assert (part.summary.with_references.n, part.summary.with_references.share) == (8, 0.75)
    assert (part.summary.object_seen.n, part.summary.object_seen.share) == (3, 2 / 3)
    assert (part.summary.worst_class, part.summary.worst_class_n) == ("class 105", 2)


def test_images_that_are_both_reference_and_seen_are_in_neither_figure():
    part = summarise(
        frame(
            images("real", 94, [0, 0]),
            images("real", 94, [1], counted=False, is_reference=True, prefix="reference"),
            images(
                "real", 94, [1], counted=False, is_reference=True, object_absent=False, prefix="x"
            ),
        )
    )
    assert (part.summary.with_references.n, part.summary.object_seen) == (3, None)


def test_unknown_objects_are_taken_for_absent():
    part = summarise(images("real", 94, [1, 0], object_absent=None))
    assert (part.summary.n, part.summary.object_seen) == (2, None)


def test_a_class_whose_images_count_for_nothing_is_left_out():
    part = summarise(
        frame(images("real", 94, [1]), images("real", 105, [1], counted=False, object_absent=False))
    )
    assert [c.index for c in part.classes] == [94] and part.summary.classes == 1


def test_recognition_is_the_accuracy_and_the_area_against_what_counts():
    part = summarise(
        frame(
            images("real", 94, [0, 1], probability=[0.6, 0.1]),
            images(
                "real",
                94,
                [1],
                probability=[0.99],
                counted=False,
                is_reference=True,
                prefix="reference",
            ),
            images("positive", 94, [1, 1, 0, 1], probability=[0.9, 0.4, 0.7, 0.6]),
            images("real", 105, [0]),
        )
    )
    hummingbird, koala = part.classes
    shown = hummingbird.recognition
    assert (shown.n, shown.accuracy) == (4, 0.75)
    assert (shown.interval.low, shown.interval.high) == wilson_interval(3, 4)
    # Wins over 0.6 and 0.1: 2, 1, 2 and 1 1/2 of two each.
    assert shown.auroc == pytest.approx(6.5 / 8)
    assert shown.auroc_interval.low < shown.auroc < shown.auroc_interval.high <= 1
    assert koala.recognition is None
    assert part.summary.recognition.accuracy == 0.75  # of the class that has positives
    assert part.summary.chance == 1 / 1000  # which is one class


def test_the_effect_is_over_the_pairs_that_count():
    images_called, twins_called = [1, 1, 1, 0, 1], [0, 1, 0, 0, 1]
    twins = images("control", 94, twins_called)
    twins.loc[4, "counted"] = False
    part = summarise(frame(images("generated", 94, images_called), twins.iloc[::-1]))
    effect = part.classes[0].effect
    assert (effect.pairs, effect.accuracy, effect.control_accuracy) == (4, 0.75, 0.25)
    assert effect.effect == 0.5
    pairs = np.array(images_called[:4], bool), np.array(twins_called[:4], bool)
    assert effect.p_value == mcnemar(*pairs) == 0.5
    assert part.classes[0].spurious_accuracy == 0.8
    assert effect.interval.low <= 0.5 <= effect.interval.high


def test_the_effect_of_a_split_is_the_mean_over_classes_and_its_test_over_pairs():
    part = summarise(
        frame(
            images("generated", 94, [1] * 8),
            images("control", 94, [0] * 8),
            images("generated", 105, [1, 0]),
            images("control", 105, [1, 1]),
            images("generated", 7, [1]),
        )
    )
    effect = part.summary.effect
    assert (effect.pairs, effect.accuracy, effect.control_accuracy) == (10, 0.75, 0.5)
    assert effect.effect == pytest.approx((1 - 0.5) / 2)
    fooled, twins = [1] * 9 + [0], [0] * 8 + [1, 1]
    assert effect.p_value == mcnemar(np.array(fooled, bool), np.array(twins, bool))
    assert part.classes[0].effect is None  # class 7


def test_a_classifier_that_always_answers_the_class_has_no_effect():
    part = summarise(frame(images("generated", 94, [1] * 20), images("control", 94, [1] * 20)))
    assert part.summary.spurious_accuracy == 1
    effect = part.summary.effect
    assert (effect.effect, effect.interval.low, effect.interval.high, effect.p_value) == (
        0,
        0,
        0,
        1,
    )


def test_without_positives_and_controls_nothing_is_said_of_them():
    summary = summarise(images("generated", 94, [1, 0])).summary
    assert (summary.recognition, summary.chance, summary.recognises, summary.effect) == (None,) * 4


def test_generators_widen_the_intervals():
    called = [1] * 20 + [0] * 5 + [1] * 5 + [0] * 20
    generator = [0] * 25 + [1] * 25
    pairs = images("control", 94, [0] * 50)
    one = summarise(frame(images("generated", 94, called), pairs))
    two = summarise(frame(images("generated", 94, called, replicate=generator), pairs))
    assert (one.summary.generators, two.summary.generators) == (1, 2)
    assert summarise(images("real", 94, called)).summary.generators == 0
    for name in ("spurious_accuracy_interval", "effect"):
        narrow, wide = (getattr(part.classes[0], name) for part in (one, two))
        if name == "effect":
            narrow, wide = narrow.interval, wide.interval
        assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    narrow = one.classes[0].spurious_accuracy_interval
    assert (narrow.low, narrow.high) == wilson_interval(25, 50)


def test_the_fewest_generators_of_a_class_are_said():
    both = frame(
        images("generated", 94, [1, 0], replicate=[0, 1]), images("generated", 105, [1, 0])
    )
    assert summarise(both).summary.generators == 1


def test_chance_is_what_the_same_answers_dealt_at_random_would_get():
    rng = np.random.default_rng(0)
    classes = [94, 105, 7]
    answers = [rng.choice([94, 94, 105, 500, -1], 40) for _ in classes]
    dealt = rng.permuted(np.tile(np.concatenate(answers), (4000, 1)), axis=1).reshape(4000, 3, 40)
    expected = (dealt == np.array(classes)[None, :, None]).mean()
    assert chance(answers, classes, 1000) == pytest.approx(expected, abs=0.002)
    assert chance([np.array([94, 94])], [94], 10) == 0.1


def positives(answers: dict[int, list[int]]):
    """A frame in which the positives of each class get these answers."""
    parts = []
    for index, predictions in answers.items():
        called = [int(p == index) for p in predictions]
        parts.append(images("positive", index, called, prediction=predictions))
        parts.append(images("real", index, [0, 1, 0, 1]))
    return summarise(frame(*parts)).summary


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_a_constant_answer_is_chance_and_recognises_nothing(classes):
    summary = positives({index: [0] * 30 for index in range(classes)})
    assert summary.recognition.accuracy == pytest.approx(1 / classes)
    assert summary.chance == pytest.approx(1 / classes)
    assert summary.recognises is False


def test_answers_that_follow_the_class_recognise_it():
    summary = positives({index: [index] * 8 + [9] * 22 for index in range(5)})
    assert summary.recognition.accuracy == pytest.approx(8 / 30)
    assert summary.chance == pytest.approx(8 / 30 / 5)
    assert summary.recognises is True


def test_answers_at_random_are_hardly_ever_taken_for_recognition():
    rng = np.random.default_rng(0)
    found = [
        positives({k: rng.integers(0, 20, 30).tolist() for k in range(4)}).recognises
        for _ in range(40)
    ]
    assert sum(found) <= 4

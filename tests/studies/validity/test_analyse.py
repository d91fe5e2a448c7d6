from __future__ import annotations

import numpy as np
import pytest

from spurbench.studies.validity.analyse import Analysis
from spurbench.studies.validity.answers import Collected, Key, Said, Shown
from spurbench.studies.validity.bootstrap import Draws
from spurbench.studies.validity.plan import Making
from spurbench.studies.validity.table import Place, Table

ZOO = tuple(f"f{i}" for i in range(8))
CLASSES = (94, 105, 554)
IMAGES = 40


def _collected(rate, empty, rng, role="image", twins=True, novel=True):
    """Answers of the zoo to images that are called class k so often; to controls so often."""
    images, hits = [], []
    for k, index in enumerate(CLASSES):
        for i in range(IMAGES):
            sha = f"{index}-{i}"
            shown = {"object_absent": i % 4 > 0, "feature_present": True, "novel": novel}
            images.append(Shown(index, sha, role, **shown))
            hits.append(rng.uniform(size=len(ZOO)) < rate[:, k])
        for i in range(IMAGES if twins else 0):
            images.append(Shown(index, f"{index}-twin-{i}", "twin-base", twin_of=f"{index}-{i}"))
            hits.append(rng.uniform(size=len(ZOO)) < empty[:, k])
    asked = np.array([one.class_index for one in images])
    hit = np.array(hits).T
    said = [
        Said(np.where(own, asked, 1), np.where(own, -0.1, -3.0), np.where(own, 2.0, -3.0))
        for own in hit
    ]
    notes = {"diversity": dict.fromkeys(CLASSES, 0.5), "seconds": {}}
    panel = Said(asked, np.zeros(len(asked)), np.zeros(len(asked)))
    return Collected({"p": "panel", **dict.fromkeys(ZOO, "zoo")}, images, [panel, *said], notes)


@pytest.fixture(scope="module")
def rows():
    """`good` tells reliance but for empty answers; `real` does not tell it at all."""
    rng = np.random.default_rng(0)
    collected, places = {}, []
    for world in ("w0", "w1", "w2"):
        truth = rng.uniform(0, 0.5, (len(ZOO), len(CLASSES)))
        empty = rng.uniform(0, 0.5, truth.shape)
        places.append(Place(world, CLASSES, ["p"], ZOO, truth))
        for seed in (0, 1):
            collected[Key(world, "good", seed)] = _collected(truth + empty, empty, rng)
            noise = rng.uniform(0, 1, truth.shape)
            collected[Key(world, "real", seed)] = _collected(
                noise, noise, rng, twins=False, novel=None
            )
            collected[Key(world, "prior", seed)] = _collected(
                empty, empty, rng, role="prior", twins=False
            )
    table = Table(places, (0, 1), collected)
    analysis = Analysis(
        table=table,
        draws=Draws(2, [3, 3, 3], draws=300, seed=0),
        other_truths={"against_kin": [-place.truth for place in places]},
    )
    makings = [
        Making(name="good", description=""),
        Making(name="real", description="", kind="real"),
    ]
    with pytest.MonkeyPatch.context() as few:
        few.setattr("spurbench.studies.validity.analyse.CHOICES", 3)
        return {row.name: row for row in analysis.rows(makings, ["real"])}


def test_controls_tell_reliance_from_a_class_that_empty_scenes_are_called(rows):
    good = rows["good"]
    effect, plain = good.of("twin-base", "effect"), good.of("none", "accuracy")
    tau = effect.figures["tau_pairs"]
    assert tau.value > 0.6
    assert tau.low < tau.value < tau.high
    assert tau.value > plain.figures["tau_pairs"].value + 0.1
    assert effect.figures["calibration_error"].value < plain.figures["calibration_error"].value


def test_a_difference_to_a_baseline_is_paired_and_by_prior_images_where_it_has_no_twins(rows):
    good, real = rows["good"], rows["real"]
    effect = good.of("twin-base", "effect")
    own, other = effect.figures["tau_pairs"], real.of("prior", "effect").figures["tau_pairs"]
    difference = effect.against["real"]["tau_pairs"]
    assert difference.value == pytest.approx(own.value - other.value)
    assert difference.low > 0
    plain = effect.against["real, accuracy"]["tau_pairs"]
    accuracy = real.of("none", "accuracy").figures["tau_pairs"]
    assert plain.value == pytest.approx(own.value - accuracy.value)
    assert real.of("prior", "effect").against == {}
    assert real.of("twin-base", "effect") is None


def test_another_truth_is_told_beside_the_first(rows):
    effect = rows["good"].of("twin-base", "effect")
    tau = effect.figures["tau_pairs"].value
    assert effect.other_truths["against_kin"]["tau_pairs"] == pytest.approx(-tau)


def test_two_seeds_agree_where_they_measure_something_and_halves_are_of_real_images(rows):
    good = rows["good"].of("twin-base", "effect").split_half
    real = rows["real"].of("none", "accuracy").split_half
    assert good.tau > 0.5 and good.difference < 0.15
    assert real.tau > 0.6  # the same rates in both halves, whatever they are
    assert list(rows["good"].of("twin-base", "effect").images) == [5, 10, 25]


def test_measures_are_shares_of_the_images_alone(rows):
    measures = rows["good"].measures
    assert measures["object_free"].value == pytest.approx(0.75)
    assert measures["spurious_accuracy"].value == measures["consistently_spurious"].value == 1
    assert 0.3 < measures["spurious_accuracy_zoo"].value < 0.7
    assert measures["novelty"].value == 1
    assert rows["real"].measures["novelty"].value is None
    assert measures["seed_range"].value == 0
    assert measures["seconds"].value is None

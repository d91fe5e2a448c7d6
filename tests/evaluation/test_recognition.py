"""What positives, twins and roles of a dataset do to results, with small networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import spurbench
from makers.measured import CLASSES, save_dataset
from makers.toy import save_noise_images, save_toy_classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation.evaluate import EvaluationRequest, evaluate, measure
from spurbench.evaluation.known import Identity
from spurbench.evaluation.results import Result
from spurbench.evaluation.summary import summarise
from spurbench.images.sources import open_images, open_positives

COLOURS = {94: (200, 60, 60), 565: (60, 200, 60), 105: (60, 60, 200)}


def picture(part: str, index: int, i: int) -> Image.Image:
    """Noise around a colour: a class's own, or for its twins grey."""
    rng = np.random.default_rng([len(part), index, i])
    colour = np.array((110, 110, 110) if part == "controls" else COLOURS[index])
    noise = rng.normal(0, 20 if part == "positives" else 45, (16, 16, 3))
    return Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8))


def known(part: str, index: int, i: int) -> dict:
    """The detector sees some objects and, in one of the twins, the feature."""
    return {
        "object_absent": not (i == 0 and part in ("real", "generated")),
        "feature_present": part != "controls" or i == 1,
        "is_reference": part == "real" and i == 2,
    }


class Colour(nn.Module):
    """Logits from an image's mean colour."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1000)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.head(pixels.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = Colour()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.1)
    pixels = torch.stack(
        [
            torch.from_numpy(np.array(picture("train", k, i))).permute(2, 0, 1) / 255
            for k in CLASSES
            for i in range(16)
        ]
    )
    labels = torch.tensor([k for k in CLASSES for _ in range(16)])
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network((pixels - 0.45) / 0.225), labels).backward()
        optimiser.step()
    return spurbench.load_classifier(network, name="trained", device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory, trained):
    folder = tmp_path_factory.mktemp("data") / "set"
    weights = trained.info.weights_sha256
    save_dataset(
        folder, images=6, picture=picture, positives=12, controls=True, known=known, panel=[weights]
    )
    return folder


@pytest.fixture(scope="module")
def result(trained, data):
    return measure(trained, EvaluationRequest(open_images(str(data))))


def test_a_trained_network_recognises_the_classes_and_an_untrained_or_constant_one_does_not(
    result, data, tmp_path
):
    for part in result.splits.values():
        assert part.summary.recognises
        assert part.summary.recognition.accuracy > 0.9 > 0.5 > part.summary.chance
    images = open_images(str(data))
    for name, favourite in (("untrained", None), ("constant", 94)):
        spec = str(save_toy_classifier(tmp_path / name, favourite=favourite, seed=0))
        other = measure(spurbench.load_classifier(spec, device="cpu"), EvaluationRequest(images))
        assert other.summary.recognises is False
        assert "no more than chance" in str(other)


def test_what_answers_the_class_to_every_image_has_no_effect(data, tmp_path):
    spec = str(save_toy_classifier(tmp_path / "constant", favourite=94, seed=0))
    split = spurbench.evaluate(spec, data).splits["generated"]
    hummingbird = split.classes[0]
    assert (hummingbird.spurious_accuracy, hummingbird.effect.effect) == (1, 0)
    assert hummingbird.effect.p_value == 1


def test_a_network_that_sees_the_feature_has_one(result):
    effect = result.splits["generated"].summary.effect
    # Of six images a class the object is seen in one, and the feature in another's twin.
    assert effect.pairs == 3 * 4
    assert effect.effect > 0.3 and effect.control_accuracy < 0.6
    assert result.splits["real"].summary.effect is None and result.summary.effect is None


def test_the_answers_say_what_counts_and_hold_every_number(result, data):
    answers = result.answers
    sizes = answers.groupby("source")["counted"].agg(["size", "sum"])
    assert sizes.loc[["real", "generated", "positive", "control"]].values.tolist() == [
        [18, 12],  # one seen and one reference a class
        [18, 15],
        [36, 36],
        [18, 12],
    ]
    for split, part in result.splits.items():
        own = answers[answers["source"].isin([split, "positive", "control"])]
        if split == "real":
            own = own[own["source"] != "control"]
        assert summarise(own) == part
    generated = answers[answers["source"] == "generated"]
    twins = answers[answers["source"] == "control"]
    assert twins["twin_of"].tolist() == generated["image_sha256"].tolist()
    assert generated["twin_of"].isna().all()
    assert str(answers["object_absent"].dtype) == "boolean"
    assert (answers["replicate"].dtype, answers["is_reference"].dtype) == (np.int64, bool)
    assert result.splits["real"].summary.with_references.n == 15
    assert result.splits["real"].summary.object_seen.n == 3


def test_who_chose_the_images_is_marked(result, data, tmp_path):
    assert result.role == "panel" and "had a part in making" in str(result)
    spec = str(save_toy_classifier(tmp_path / "other", favourite=None, seed=1))
    other = spurbench.load_classifier(spec)
    assert measure(other, EvaluationRequest(open_images(str(data)))).role is None
    both = save_dataset(
        tmp_path / "d", images=1, panel=[other.info.weights_sha256], phi=other.info.weights_sha256
    )
    assert measure(other, EvaluationRequest(both)).role == "phi"


def test_given_positives_take_the_place_of_the_dataset_s_own(trained, result, data, tmp_path):
    for index in CLASSES:
        save_noise_images(tmp_path / "p" / imagenet_wnids()[index], 3, index)
    given = open_positives(tmp_path / "p")
    images = open_images(str(data))
    other = measure(trained, EvaluationRequest(images, positives=given))
    assert other.positives == given.info != result.positives == images.positives.info
    assert other.summary.recognition.n == 9 and result.summary.recognition.n == 36
    assert other.predictions != result.predictions


def test_a_dataset_may_lack_positives_of_a_class(trained, data, tmp_path):
    few = save_dataset(tmp_path / "d", images=2, picture=picture, positives=2)
    kept = tuple(r for r in few.positives.records if r.class_index != 105)
    some = replace(few, positives=replace(few.positives, records=kept))
    part = measure(trained, EvaluationRequest(some)).splits["real"]
    assert [c.recognition is None for c in part.classes] == [False, True, False]
    assert part.summary.recognition.n == 4
    assert part.summary.chance == pytest.approx(1 / 2)


def test_a_split_in_which_nothing_counts_is_one_line(trained, tmp_path):
    seen = save_dataset(
        tmp_path / "d", images=2, known=lambda part, *_: {"object_absent": part != "generated"}
    )
    with pytest.raises(SpurbenchError, match=r"every generated image .* --split"):
        measure(trained, EvaluationRequest(seen))


def test_a_class_in_which_nothing_counts_is_named(trained, tmp_path, caplog):
    seen = save_dataset(
        tmp_path / "d", images=2, known=lambda part, k, _: {"object_absent": k != 105}
    )
    part = measure(trained, EvaluationRequest(seen)).splits["real"]
    assert [c.index for c in part.classes] == [94, 565]
    assert "no real image of koala counts" in caplog.text


def test_what_counts_and_the_protocol_are_part_of_a_result_s_name(trained, data, tmp_path):
    images = open_images(str(data))

    def changed(**fields):
        first, *rest = images.records
        return replace(images, records=(replace(first, **fields), *rest))

    requests = [
        EvaluationRequest(images),
        EvaluationRequest(images, protocol="neuhaus"),
        EvaluationRequest(changed(object_absent=None)),
        EvaluationRequest(changed(is_reference=True)),
        EvaluationRequest(changed(replicate=1)),
        EvaluationRequest(replace(images, config="curated")),
        EvaluationRequest(replace(images, controls=None)),
        EvaluationRequest(replace(images, positives=None)),
        EvaluationRequest(replace(images, roles={})),
    ]
    identity = Identity.of(trained)
    assert len({request.file_stem(identity) for request in requests}) == len(requests)


def test_results_of_datasets_with_everything_are_stored_and_found(trained, data, tmp_path):
    request = EvaluationRequest(open_images(str(data)))
    first, again = (evaluate(trained, request, tmp_path) for _ in range(2))
    assert (first.stored, again.stored) == (False, True)
    read = Result.read(first.path)
    assert read == first.result
    pd.testing.assert_frame_equal(read.answers, first.result.answers)


def test_effects_are_compared_pair_by_pair(result, data, tmp_path):
    spec = str(save_toy_classifier(tmp_path / "constant", favourite=94, seed=0))
    other = spurbench.evaluate(spec, data)
    found = spurbench.compare(result, other)
    effect = found.splits["generated"].effect
    own = result.splits["generated"].summary.effect
    assert (effect.a, effect.b) == (pytest.approx(own.effect), 0)
    assert effect.difference == pytest.approx(-effect.a)
    assert effect.interval.low <= effect.difference <= effect.interval.high < 0
    assert effect.p_value < 0.05
    assert found.splits["real"].effect is None
    assert all(c.effect.pairs == 4 for c in found.splits["generated"].classes)
    counted = result.answers.query("counted and source in ['real', 'generated']")
    every = spurbench.compare(result, other, images=100)
    assert {i.image_sha256 for i in every.images} == set(counted["image_sha256"])
    neuhaus = spurbench.evaluate(spec, data, protocol="neuhaus")
    with pytest.raises(SpurbenchError, match="by protocol spurbench and neuhaus"):
        spurbench.compare(other, neuhaus)

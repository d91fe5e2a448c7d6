"""Every published share, worked out again from raw logits by other people's code."""

from __future__ import annotations

import io

import numpy as np
import pytest
import scipy.special
import torch
from PIL import Image
from sklearn import metrics as reference
from statsmodels.stats.proportion import proportion_confint
from torchvision.transforms import v2

from makers.toy import save_noise_images, save_toy_classifier
from spurbench.classifiers.load import load_classifier
from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation import metrics
from spurbench.evaluation.evaluate import EvaluationRequest, measure
from spurbench.images.sources import open_images, open_positives

COLUMNS = np.arange(1000)
CLASSES = {
    94: "spurious_class_094_hummingbird_component_2",
    105: "spurious_class_105_koala_component_3",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A result with positives, and the raw logits of its images by class and kind."""
    root = tmp_path_factory.mktemp("parity")
    for i, (index, folder) in enumerate(CLASSES.items()):
        save_noise_images(root / "spurious" / folder, 60 + 20 * i, i, side=32)
        save_noise_images(root / "true" / imagenet_wnids()[index], 30 - 10 * i, 7 + i, side=32)
    path = save_toy_classifier(root / "toy", favourite=None, seed=0)
    classifier = load_classifier(str(path))
    spread(classifier, root)
    images = open_images(str(root / "spurious"))
    positives = open_positives(root / "true")
    result = measure(classifier, EvaluationRequest(images, positives=positives))
    logits = {
        (kind, index): logits_of(classifier, [r for r in found.records if r.class_index == index])
        for kind, found in (("spurious", images), ("positive", positives))
        for index in CLASSES
    }
    return result, logits


def spread(classifier, root) -> None:
    """Turn the head so that the measured classes rank anywhere from 1 to beyond 50."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        classifier.head_weight.normal_(0, 1, generator=generator)
        records = open_images(str(root / "spurious")).records
        features = torch.cat([classifier.features(pixels_of(record)) for record in records])
        logits = (features - features.mean(0)) @ classifier.head_weight.T
        classifier.head.bias.copy_(-features.mean(0) @ classifier.head_weight.T)
        for index in CLASSES:
            tenth = logits.topk(10).values[:, -1]
            classifier.head.bias[index] += (tenth - logits[:, index]).median()


def pixels_of(record) -> torch.Tensor:
    image = Image.open(io.BytesIO(record.read())).convert("RGB")
    return v2.functional.to_dtype(v2.functional.pil_to_tensor(image), scale=True)[None]


@torch.inference_mode()
def logits_of(classifier, records) -> np.ndarray:
    return np.concatenate([classifier(pixels_of(r)).double().numpy() for r in records])


def test_the_shares_of_each_class_follow_from_the_logits(measured):
    result, logits = measured
    several = 0
    for c in result.splits["real"].classes:
        own = logits["spurious", c.index]
        true = np.full(len(own), c.index)
        assert c.n == len(own)
        top1, top5, top50 = (
            reference.top_k_accuracy_score(true, own, k=k, labels=COLUMNS) for k in (1, 5, 50)
        )
        assert c.spurious_accuracy == pytest.approx(top1, abs=1e-12)
        assert c.top5 == pytest.approx(top5, abs=1e-12)
        several += 0 < top1 < top5 < top50
        probability = scipy.special.softmax(own, axis=1)[:, c.index]
        assert c.mean_probability == pytest.approx(probability.mean(), abs=1e-6)
        low, high = proportion_confint(round(top1 * c.n), c.n, alpha=0.05, method="wilson")
        interval = c.spurious_accuracy_interval
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    assert several  # so that top-1, top-5 and top-50 can't be taken for one another


def test_the_scores_of_each_class_follow_from_the_logits(measured):
    result, logits = measured
    for c in result.splits["real"].classes:
        spurious, positive = (
            scipy.special.softmax(logits[kind, c.index], axis=1)[:, c.index]
            for kind in ("spurious", "positive")
        )
        truth = [0] * len(spurious) + [1] * len(positive)
        scores = np.concatenate([spurious, positive])
        assert c.recognition.n == len(positive)
        assert c.recognition.auroc == pytest.approx(
            reference.roc_auc_score(truth, scores), abs=1e-9
        )
        expected = reference.average_precision_score(truth, scores)
        assert c.recognition.average_precision == pytest.approx(expected, abs=1e-9)
        swapped = reference.average_precision_score(1 - np.array(truth), scores)
        assert abs(swapped - expected) > 0.01


def test_the_summary_is_the_plain_mean_over_classes(measured):
    result, _ = measured
    frame = result.to_frame()
    assert frame["n"].nunique() > 1  # or a mean over images would be the same
    for name in ("spurious_accuracy", "top5", "mean_probability"):
        assert getattr(result.summary, name) == pytest.approx(frame[name].mean(), abs=1e-12)
    for name in ("accuracy", "auroc", "average_precision"):
        parts = [getattr(c.recognition, name) for c in result.splits["real"].classes]
        found = getattr(result.summary.recognition, name)
        assert found == pytest.approx(np.mean(parts), abs=1e-12)
    worst = frame.loc[frame["spurious_accuracy"].idxmax()]
    assert result.summary.worst_class == worst["name"]
    assert result.summary.worst_class_spurious_accuracy == worst["spurious_accuracy"]


def test_the_answers_are_the_logits_argmax_and_rank(measured):
    result, logits = measured
    frame = result.answers
    for kind, source in (("spurious", "real"), ("positive", "positive")):
        for index in CLASSES:
            own = logits[kind, index]
            rows = frame[(frame["source"] == source) & (frame["class_index"] == index)]
            assert rows["prediction"].tolist() == own.argmax(axis=1).tolist()
            mine = own[:, [index]]
            for rank, surely, possibly in zip(
                rows["rank"],
                (own > mine + 1e-6).sum(axis=1),
                (own > mine - 1e-6).sum(axis=1) - 1,
                strict=True,
            ):
                # Logits closer than the batch moves them may trade places.
                assert surely + 1 <= rank <= possibly + 1


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 75), (75, 75), (3, 75), (41, 90)])
def test_wilson_s_interval_is_that_of_statsmodels(successes, n):
    expected = proportion_confint(successes, n, alpha=0.05, method="wilson")
    assert metrics.wilson_interval(successes, n) == pytest.approx(expected, abs=1e-12)

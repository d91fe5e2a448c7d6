"""How much classifiers truly rely on the planted features: ``spurbench mini reliance``.

In this world it can be seen: a scene is rendered with its feature, without it, and with another
sub-family of its kind, and is the same in every other pixel.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from spurbench.classifiers.classifier import Classifier
from spurbench.classifiers.info import ClassifierInfo
from spurbench.core import markdown
from spurbench.core.documents import Document, Share
from spurbench.core.environment import environment
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.core.scratch import scratch
from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.members import Member
from spurbench.evaluation.metrics import macro_mean, newcombe_interval, t_interval
from spurbench.evaluation.predict import predict
from spurbench.images.pixels import PixelStore
from spurbench.images.records import ImageRecord, images_fingerprint
from spurbench.mini.distributions import render_all, spurious
from spurbench.mini.kinds import KINDS
from spurbench.mini.scenes import PLANTED_FEATURE, Scene

SCHEMA: Literal["spurbench.reliance/1"] = "spurbench.reliance/1"

DATA_SET = "reliance"
"""Name of the scenes, which are thus none of the ``real`` split's."""

DISTANCES = ("far", "middle", "near")
"""Terciles of the feature's scale, from small to large."""

RESAMPLES = 2000

View = Literal["feature", "without", "other"]
VIEWS: tuple[View, ...] = ("feature", "without", "other")


class Effect(Document):
    """A mean over scenes of what the feature changes, and its 95 % interval, in [-1, 1]."""

    value: float = Field(ge=-1, le=1)
    low: float
    high: float


class Answered(Document):
    """What a classifier says of scenes of a class, by view."""

    scenes: int = Field(ge=1)
    rate: dict[View, Share] = Field(description="share that is called the class")
    probability: dict[View, Share] = Field(description="mean softmax probability of the class")
    reliance: Effect = Field(
        description="rate with the feature minus without it: the truth; Newcombe's paired interval"
    )
    against_other: Effect = Field(
        description="rate with the feature minus with another sub-family of its kind"
    )
    probability_effect: Effect = Field(
        description="mean probability with the feature minus without it; t-interval"
    )
    probability_against_other: Effect = Field(
        description="mean probability with the feature minus with another sub-family"
    )


class AtDistance(Document):
    """A tercile of the scenes by the feature's scale."""

    scales: tuple[float, float] = Field(description="smallest and largest scale of the feature")
    answered: Answered


class ClassReliance(Document):
    """A classifier's reliance on the feature of one class."""

    feature: str
    answered: Answered
    by_distance: dict[str, AtDistance] = Field(description="far, middle, near")


class ClassifierReliance(Document):
    """A classifier's reliance on all features."""

    classifier: ClassifierInfo
    reliance: Effect = Field(
        description="mean over the classes, whose scenes are resampled (percentile bootstrap)"
    )
    classes: dict[str, ClassReliance]


class Report(Document):
    """What ``spurbench mini reliance`` writes."""

    schema_version: Literal["spurbench.reliance/1"] = Field(default=SCHEMA, alias="schema")
    seed: int = Field(description="of the scenes")
    scenes: int = Field(description="per class")
    fingerprint: str = Field(description="of the rendered scenes in all views")
    environment: dict[str, str]
    classifiers: tuple[ClassifierReliance, ...]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)


@dataclass(frozen=True)
class Counterfactuals:
    """Object-free scenes of a class, each in all views.

    Attributes:
        name: of the class.
        pixels: by view, (N, 64, 64, 3) uint8; scene i is the same in each but for the feature.
        scales: of the features, (N,).
    """

    name: str
    pixels: dict[View, NDArray[np.uint8]]
    scales: NDArray[np.float64]

    @classmethod
    def render(cls, name: str, count: int, seed: int) -> Counterfactuals:
        """``count`` fresh scenes, framed as all data are."""
        scenes = [spurious(name, seed, i, DATA_SET) for i in range(count)]
        views: dict[View, list[Scene]] = {
            "feature": scenes,
            "without": [replace(scene, subfamily=None) for scene in scenes],
            "other": [replace(scene, subfamily=_other_subfamily(scene)) for scene in scenes],
        }
        return cls(
            name,
            {view: render_all(those, f"{name}: {view}") for view, those in views.items()},
            np.array([scene.drawn_feature_scale for scene in scenes]),
        )

    @cached_property
    def images(self) -> list[ImageRecord]:
        """All scenes of the first view, then of the second and the third."""
        index = imagenet_names().index(self.name)
        return [
            scene_record(scene, f"{self.name}/{view}/{i}", index, self.name)
            for view in VIEWS
            for i, scene in enumerate(self.pixels[view])
        ]


def measure_reliance(
    members: Sequence[Member], *, scenes: int, seed: int, device: torch.device
) -> Report:
    """The truth about classifiers, over scenes that are rendered once for all of them.

    Args:
        members: the classifiers.
        scenes: per class.
        seed: of the scenes.
        device: where the classifiers run.

    Raises:
        SpurbenchError: if a classifier can't be loaded or lacks a class, or there are fewer than
            three scenes, one for each distance.
    """
    if scenes < len(DISTANCES):
        raise SpurbenchError(f"scenes is {scenes}; give at least {len(DISTANCES)}")
    rendered = [Counterfactuals.render(name, scenes, seed) for name in PLANTED_FEATURE]
    with scratch() as folder:
        store = PixelStore(folder)
        measured = [_classifier(member.load(device), rendered, store) for member in members]
    return Report(
        seed=seed,
        scenes=scenes,
        fingerprint=images_fingerprint(image for each in rendered for image in each.images),
        environment=environment(device),
        classifiers=tuple(measured),
    )


def reliance(
    classifier: Classifier, rendered: Counterfactuals, store: PixelStore | None = None
) -> ClassReliance:
    """How much a classifier relies on the feature of one class.

    Args:
        classifier: which one.
        rendered: scenes of the class, at least one for each distance.
        store: where their pixels are kept for the next classifier.

    Raises:
        SpurbenchError: if its head lacks the class.
    """
    return _class(rendered, _Answers.of(classifier, rendered, store))


def scene_record(pixels: NDArray[np.uint8], path: str, index: int, name: str) -> ImageRecord:
    """A rendered scene as an image of a class.

    Args:
        pixels: (H, W, 3).
        path: what it is called in messages.
        index: of the class, in ImageNet-1k.
        name: of the class.
    """
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue()
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return ImageRecord(path, index, "real", digest, lambda: data, name)


def render_markdown(report: Report) -> str:
    """A table of the rates' effects with their intervals, per cent."""
    names = list(PLANTED_FEATURE)
    return markdown.table(
        ["classifier", "reliance", *names],
        markdown.first_left(2 + len(names)),
        [
            [
                markdown.escape(each.classifier.name),
                _percent(each.reliance),
                *(_percent(each.classes[name].answered.reliance) for name in names),
            ]
            for each in report.classifiers
        ],
    )


@dataclass(frozen=True)
class _Answers:
    """To scenes in all views, in the order of VIEWS; each (3, N)."""

    called: NDArray[np.bool_]
    probability: NDArray[np.float64]

    @classmethod
    def of(
        cls, classifier: Classifier, rendered: Counterfactuals, store: PixelStore | None
    ) -> _Answers:
        predicted = predict(classifier, rendered.images, store=store)
        shape = len(VIEWS), len(rendered.scales)
        return cls((predicted.rank == 1).reshape(shape), predicted.probability.reshape(shape))

    def some(self, which: NDArray[np.intp]) -> _Answers:
        return _Answers(self.called[:, which], self.probability[:, which])


def _classifier(
    classifier: Classifier, rendered: Sequence[Counterfactuals], store: PixelStore
) -> ClassifierReliance:
    answers = [_Answers.of(classifier, each, store) for each in rendered]
    changes = [each.called[0].astype(float) - each.called[1] for each in answers]
    low, high = bootstrap_interval(changes, resamples=RESAMPLES, seed=0)
    return ClassifierReliance(
        classifier=classifier.info,
        reliance=Effect(value=macro_mean(changes), low=low, high=high),
        classes={each.name: _class(each, own) for each, own in zip(rendered, answers, strict=True)},
    )


def _class(rendered: Counterfactuals, answers: _Answers) -> ClassReliance:
    terciles = np.array_split(np.argsort(rendered.scales, kind="stable"), len(DISTANCES))
    return ClassReliance(
        feature=PLANTED_FEATURE[rendered.name],
        answered=_answered(answers),
        by_distance={
            distance: AtDistance(
                scales=(rendered.scales[which].min(), rendered.scales[which].max()),
                answered=_answered(answers.some(which)),
            )
            for distance, which in zip(DISTANCES, terciles, strict=True)
        },
    )


def _answered(answers: _Answers) -> Answered:
    called, probability = answers.called, answers.probability
    return Answered(
        scenes=called.shape[1],
        rate=dict(zip(VIEWS, called.mean(axis=1).tolist(), strict=True)),
        probability=dict(zip(VIEWS, probability.mean(axis=1).tolist(), strict=True)),
        reliance=_rate_effect(called[0], called[1]),
        against_other=_rate_effect(called[0], called[2]),
        probability_effect=_mean_effect(probability[0] - probability[1]),
        probability_against_other=_mean_effect(probability[0] - probability[2]),
    )


def _rate_effect(shown: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> Effect:
    low, high = newcombe_interval(shown, hidden)
    return Effect(value=shown.mean() - hidden.mean(), low=low, high=high)


def _mean_effect(changes: NDArray[np.float64]) -> Effect:
    value = float(changes.mean())
    low, high = t_interval(changes.tolist()) or (value, value)
    return Effect(value=value, low=low, high=high)


def _other_subfamily(scene: Scene) -> str:
    assert scene.kind is not None, "a scene of a feature has a kind"
    others = [name for name in KINDS[scene.kind] if name != scene.subfamily]
    return str(scene.draws("other sub-family").choice(others))


def _percent(effect: Effect) -> str:
    return f"{100 * effect.value:.1f} [{100 * effect.low:.1f}, {100 * effect.high:.1f}]"

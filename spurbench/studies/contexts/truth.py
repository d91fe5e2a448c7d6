"""Contexts against the planted truth: ``spurbench mini contexts``.

The world can render a scene of a feature elsewhere, with the same feature in the same place. How
often that changes answers is the effect of the place alone; and whether a detector sees the place
can be held against where the scene truly is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from spurbench.classifiers.detectors import ObjectDetector
from spurbench.classifiers.info import display_name
from spurbench.core import markdown
from spurbench.core.documents import Document, Share
from spurbench.core.environment import environment
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation import paired
from spurbench.evaluation.members import Member
from spurbench.evaluation.predict import predict
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.mini.backgrounds import CONTEXTS
from spurbench.mini.distributions import spurious
from spurbench.mini.scenes import PLANTED_FEATURE, render
from spurbench.studies.contexts.tables import NONE
from spurbench.studies.probe.truth import scene_record

SCHEMA: Literal["spurbench.contexts-truth/1"] = "spurbench.contexts-truth/1"

DATA_SET = "contexts"
"""Name of the scenes, which are thus none of the ``real`` split's."""

THRESHOLD = 0.5
"""Score from which a place is visible."""


class Visible(Document):
    """What a detector says of a place."""

    context: str
    there: Share = Field(description="of the scenes rendered there, in how many it is seen")
    elsewhere: Share = Field(description="of those rendered elsewhere or nowhere in particular")


class Effect(Document):
    """What a place does to a classifier's answers, the feature being the same."""

    classifier: str
    context: str = Field(description=f"or {NONE!r}: nowhere in particular")
    spurious_accuracy: Share = Field(description="mean over classes")
    by_class: dict[str, Share]
    p_value: Share | None = Field(
        description=f"McNemar's exact test against {NONE!r} on the same features, Holm-adjusted "
        "for the classifier's contexts"
    )


class ContextsTruth(Document):
    """What ``spurbench mini contexts`` writes."""

    schema_version: Literal["spurbench.contexts-truth/1"] = Field(default=SCHEMA, alias="schema")
    seed: int = Field(description="of the scenes")
    scenes: int = Field(description="per class and context")
    detector: str
    visible: tuple[Visible, ...]
    effects: tuple[Effect, ...]
    environment: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)


def measure_truth(
    members: Sequence[Member],
    detector: ObjectDetector,
    *,
    scenes: int,
    seed: int,
    device: torch.device,
) -> ContextsTruth:
    """Render each object-free scene nowhere in particular and in each place, and ask.

    Args:
        members: the classifiers.
        detector: that looks for places.
        scenes: per class.
        seed: of the scenes.
        device: where the classifiers run.

    Raises:
        SpurbenchError: if a classifier can't be loaded, lacks a class or has the name of another,
            or the detector does not know a place.
    """
    records = {
        place or NONE: [
            scene_record(render(replace(spurious(name, seed, i, DATA_SET), context=place)), name, i)
            for name in PLANTED_FEATURE
            for i in range(scenes)
        ]
        for place in (None, *CONTEXTS)
    }
    effects: list[Effect] = []
    for member in members:
        classifier = member.load(device)
        label = display_name(classifier.info.name, classifier.info.checkpoint)
        if label in {effect.classifier for effect in effects}:
            raise SpurbenchError(f"two classifiers are called {label}; ask them apart")
        called = {place: predict(classifier, of).rank == 1 for place, of in records.items()}
        effects += _effects(label, called)
    return ContextsTruth(
        seed=seed,
        scenes=scenes,
        detector=detector.name,
        visible=_visible(detector, records),
        effects=tuple(effects),
        environment=environment(device),
    )


def render_markdown(truth: ContextsTruth) -> str:
    """Whether places are seen, then what they do to answers."""
    seen = markdown.table(
        ["context", "seen there", "seen elsewhere"],
        markdown.first_left(3),
        [[v.context, f"{100 * v.there:.1f}", f"{100 * v.elsewhere:.1f}"] for v in truth.visible],
    )
    places = (NONE, *CONTEXTS)
    labels = dict.fromkeys(effect.classifier for effect in truth.effects)
    shares = {(e.classifier, e.context): e for e in truth.effects}
    answers = markdown.table(
        ["classifier", *places],
        markdown.first_left(1 + len(places)),
        [
            [markdown.escape(label), *(_shown(shares[label, place]) for place in places)]
            for label in labels
        ],
    )
    return (
        f"Per cent of {truth.scenes} scenes a class in which {truth.detector} sees a place.\n\n"
        f"{seen}\nSpurious accuracy of the same features in each place, per cent, means over "
        f"classes; p of McNemar's test against {NONE}, adjusted (Holm).\n\n{answers}"
    )


def _effects(label: str, called: dict[str, NDArray[np.bool_]]) -> list[Effect]:
    p_values = [paired.mcnemar(called[NONE], called[place]) for place in CONTEXTS]
    adjusted = dict(zip(CONTEXTS, paired.holm(p_values), strict=True))
    made = []
    for place, of in called.items():
        shares = of.reshape(len(PLANTED_FEATURE), -1).mean(axis=1).tolist()
        made.append(
            Effect(
                classifier=label,
                context=place,
                spurious_accuracy=float(np.mean(shares)),
                by_class=dict(zip(PLANTED_FEATURE, shares, strict=True)),
                p_value=adjusted.get(place),
            )
        )
    return made


def _visible(
    detector: ObjectDetector, records: dict[str, list[ImageRecord]]
) -> tuple[Visible, ...]:
    images = {place: [decode_rgb(r.read()) for r in of] for place, of in records.items()}
    made = []
    for context in CONTEXTS:
        seen = {}
        for place, of in images.items():
            scores = detector.context_scores(of, context)
            if None in scores:
                raise SpurbenchError(f"detector {detector.name} does not know {context!r}")
            seen[place] = float(np.mean(np.array(scores, float) >= THRESHOLD))
        elsewhere = [share for place, share in seen.items() if place != context]
        made.append(
            Visible(context=context, there=seen[context], elsewhere=float(np.mean(elsewhere)))
        )
    return tuple(made)


def _shown(effect: Effect) -> str:
    share = f"{100 * effect.spurious_accuracy:.1f}"
    return share if effect.p_value is None else f"{share} (p = {effect.p_value:.2g})"

"""What a validity study finds: the content of ``validity.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from spurbench.core.documents import Document, Share
from spurbench.studies.validity.answers import Role
from spurbench.studies.validity.estimators import Estimator
from spurbench.studies.validity.plan import Making, Search
from spurbench.studies.validity.truth import Kind as TruthKind

SCHEMA: Literal["spurbench.validity/1"] = "spurbench.validity/1"

Control = Literal["none", "twin-base", "twin-finetuned", "prior"]

CONTROLS: Mapping[Control, str] = {
    "none": "none",
    "twin-base": "twins by the base",
    "twin-finetuned": "twins by the fine-tuned model",
    "prior": "prior images",
}

ROLES: Mapping[Control, Role] = {
    "twin-base": "twin-base",
    "twin-finetuned": "twin-finetuned",
    "prior": "prior",
}

#: figure of agreement -> (heading, what it is).
FIGURES = {
    "tau_classifiers": ("tau, classifiers", "Kendall's tau-b with the truth, means over classes"),
    "tau_pairs": ("tau, pairs", "Kendall's tau-b over pairs of classifier and class"),
    "r_classifiers": ("r, classifiers", "Pearson's r with the truth, means over classes"),
    "r_pairs": ("r, pairs", "Pearson's r over pairs of classifier and class"),
    "calibration_error": (
        "calibration error",
        "points: root mean square distance of the truth from one line fitted to the pairs of the "
        "other classifiers",
    ),
    "calibration_error_classifiers": (
        "calibration error, classifiers",
        "points: the same of means over classes",
    ),
}

#: measure of images -> (heading, what it is); shares but for the last two.
MEASURES = {
    "spurious_accuracy": ("spurious accuracy", "images called the class, mean over the panel"),
    "spurious_accuracy_zoo": (
        "of the biased zoo",
        "the same over those of the zoo whose reliance is 10 points or more, mean over classes",
    ),
    "consistently_spurious": ("consistently spurious", "images that the whole panel calls so"),
    "object_free": ("object-free", "images that show no object to the detector"),
    "feature_present": ("feature present", "images that show the feature to it"),
    "novelty": ("novelty", "images that are no copies of a reference to the copy detector"),
    "seed_range": (
        "between seeds",
        "largest difference in spurious accuracy between two seeds of one class",
    ),
    "diversity": ("diversity", "mean pairwise cosine distance in phi's features"),
    "seconds": ("seconds", "prior, fine-tuning and sampling of a class"),
}


class Figure(Document):
    """A mean over worlds and seeds with its 95 % percentile interval.

    The interval is None where too many resampled values can't be told, the value where none can.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


class SplitHalf(Document):
    """Two makings from different seeds, or two halves of images that nobody made."""

    tau: float | None = Field(description="Kendall's tau-b between them, over pairs")
    difference: float | None = Field(description="mean absolute difference of their estimates")


class Agreement(Document):
    """How one estimator with one control agrees with the truth."""

    control: Control
    estimator: Estimator
    figures: dict[str, Figure] = Field(description="by name, see FIGURES")
    against: dict[str, dict[str, Figure]] = Field(
        description="differences to baselines: NAME is the same estimator, with prior images for "
        "control where this has twins; `NAME, accuracy` is the accuracy alone"
    )
    other_truths: dict[TruthKind, dict[str, float | None]] = Field(
        description="the figures where another change is taken for the truth"
    )
    measured: Share = Field(description="classes, worlds and seeds that it could be told of")
    split_half: SplitHalf | None
    images: dict[int, float | None] = Field(description="tau over pairs by images of a class")
    generators: dict[int, float | None] = Field(description="the same by generators of a class")


class MakingResult(Making):
    """What was found of a way of making a test set."""

    images: int = Field(description="of a class, the fewest")
    measures: dict[str, Figure] = Field(description="by name, see MEASURES")
    measures_against: dict[str, dict[str, Figure]] = Field(
        description="differences, by baseline and measure"
    )
    agreement: tuple[Agreement, ...]

    def of(self, control: Control, estimator: Estimator) -> Agreement | None:
        """The agreement of one estimator with one control, if there is any."""
        for each in self.agreement:
            if (each.control, each.estimator) == (control, estimator):
                return each
        return None


class WorldResult(Document):
    """A world, and who was asked in it."""

    name: str
    classes: tuple[str, ...]
    panel: tuple[str, ...]
    zoo: tuple[str, ...]
    left_out: tuple[str, ...] = Field(description="of the zoo, for their part in images")
    truth: dict[str, dict[str, float | None]] = Field(description="by classifier and class")
    estimates: dict[str, dict[str, dict[str, float | None]]] = Field(
        description="what the headline compares with it, mean over seeds: by making, classifier "
        "and class"
    )


class Found(Document):
    """What the search for a loss chose, by its rule."""

    rule: Search
    qualified: tuple[str, ...] = Field(description="rows that are object-free and novel enough")
    winner: str | None = Field(description="None: no row qualifies")


class Validity(Document):
    """The content of ``validity.json``."""

    schema_version: Literal["spurbench.validity/1"] = Field(default=SCHEMA, alias="schema")
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    draws: int = Field(description="of the bootstrap")
    baselines: tuple[str, ...]
    worlds: tuple[WorldResult, ...]
    rows: tuple[MakingResult, ...]
    search: Found | None
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)

"""What classifiers truly rely on, as ``spurbench mini reliance`` tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError

Kind = Literal["effect", "probability_effect", "against_kin"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""The first is the truth of the study; the others are beside it."""


@dataclass(frozen=True)
class Truth:
    """How much a classifier relies on the feature of a class.

    Attributes:
        classifier: its name.
        class_name: of the class.
        effect: how much more often it answers the class when the feature is there, in [-1, 1].
        low: of the 95 % interval of that.
        high: likewise.
        probability_effect: the same of the class's mean probability.
        against_kin: how much more often than with another sub-family of the feature's kind.
    """

    classifier: str
    class_name: str
    effect: float
    low: float
    high: float
    probability_effect: float
    against_kin: float


@dataclass(frozen=True)
class Truths:
    """The truth of a world.

    Attributes:
        where: the file.
        weights: of each classifier by name, their ``weights_sha256``.
        known: by classifier and class.
    """

    where: Path
    weights: Mapping[str, str]
    known: Mapping[tuple[str, str], Truth]

    def require(self, classifiers: Mapping[str, str], classes: Sequence[str]) -> None:
        """Refuse to go on where the truth is not that of these classifiers and classes.

        Args:
            classifiers: name to ``weights_sha256``.
            classes: names.

        Raises:
            SpurbenchError: if it is not known of one of them, or a classifier has other weights.
        """
        for name, weights in classifiers.items():
            if self.weights.get(name) != weights:
                why = "of other weights of" if name in self.weights else "silent of"
                raise SpurbenchError(
                    f"{self.where} is {why} classifier {name}; make it again with `spurbench mini "
                    "reliance`"
                )
            for class_name in classes:
                if (name, class_name) not in self.known:
                    raise SpurbenchError(f"{self.where} is silent of {name} on class {class_name}")

    def values(
        self, classifiers: Sequence[str], classes: Sequence[str], kind: Kind = "effect"
    ) -> NDArray[np.float64]:
        """As an array, (C, K), of what was required."""
        return np.array(
            [[getattr(self.known[f, k], kind) for k in classes] for f in classifiers], np.float64
        )


class _Told(Document):
    """Of a report of ``spurbench mini reliance`` what is needed; there is more."""

    model_config = ConfigDict(extra="ignore")


class _Effect(_Told):
    value: float = Field(ge=-1, le=1)
    low: float
    high: float


class _Answered(_Told):
    reliance: _Effect
    against_other: _Effect
    probability_effect: _Effect


class _Class(_Told):
    answered: _Answered


class _Info(_Told):
    name: str
    weights_sha256: str


class _Classifier(_Told):
    classifier: _Info
    classes: dict[str, _Class]


class _Report(_Told):
    schema_version: Literal["spurbench.reliance/1"] = Field(alias="schema")
    classifiers: tuple[_Classifier, ...]


def read_truth(path: Path) -> Truths:
    """Read what ``spurbench mini reliance`` wrote.

    Raises:
        SpurbenchError: if it is not there, or is something else.
    """
    try:
        report = validated(_Report, read_json(path), str(path))
    except FileNotFoundError:
        raise SpurbenchError(
            f"no truth at {path}; make it with `spurbench mini reliance`, or name it with --truth"
        ) from None
    rows = [
        Truth(
            classifier=each.classifier.name,
            class_name=name,
            effect=of.answered.reliance.value,
            low=of.answered.reliance.low,
            high=of.answered.reliance.high,
            probability_effect=of.answered.probability_effect.value,
            against_kin=of.answered.against_other.value,
        )
        for each in report.classifiers
        for name, of in each.classes.items()
    ]
    return Truths(
        where=path,
        weights={
            each.classifier.name: each.classifier.weights_sha256 for each in report.classifiers
        },
        known={(row.classifier, row.class_name): row for row in rows},
    )

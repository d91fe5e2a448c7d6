"""From the answers to images to the numbers of a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation import metrics, paired
from spurbench.evaluation.bootstrap import Bootstrap, percentile_interval
from spurbench.evaluation.results import (
    BOOTSTRAP,
    ClassResult,
    Effect,
    Interval,
    Rate,
    Recognition,
    SignedInterval,
    SplitResult,
    Summary,
)
from spurbench.images.records import SPLITS

if TYPE_CHECKING:
    import pandas as pd


def summarise(frame: pd.DataFrame, *, outputs: int = 1000) -> SplitResult:
    """A split's result from its per-image predictions (the parquet's columns).

    Args:
        frame: rows of a split's images, and of positives and controls where there are any;
            docs/results.md says what the columns hold.
        outputs: of the classifier's head, which says what chance is where there is but one class.

    Raises:
        ValueError: if no image counts.
    """
    bootstrap = Bootstrap(resamples=BOOTSTRAP.bootstrap_resamples, seed=BOOTSTRAP.bootstrap_seed)
    classes = [_Measured(answers, bootstrap) for answers in by_class(frame)]
    results = [measured.result for measured in classes]
    worst = max(results, key=lambda c: c.spurious_accuracy)
    shown = [measured.answers for measured in classes if len(measured.answers.positives)]
    summary = Summary(
        n=sum(c.n for c in results),
        classes=len(results),
        generators=min(measured.answers.generators for measured in classes),
        spurious_accuracy=_mean(c.spurious_accuracy for c in results),
        spurious_accuracy_interval=_interval(classes, "spurious"),
        top5=_mean(c.top5 for c in results),
        mean_probability=_mean(c.mean_probability for c in results),
        worst_class=worst.name,
        worst_class_spurious_accuracy=worst.spurious_accuracy,
        worst_class_n=worst.n,
        with_references=_macro_rate(classes, "with_references"),
        object_seen=_macro_rate(classes, "object_seen"),
        recognition=_macro_recognition(classes),
        chance=_chance(shown, outputs) if shown else None,
        effect=_macro_effect(classes),
    )
    return SplitResult(summary=summary, classes=results)


@dataclass(frozen=True)
class Answers:
    """Answers to images, (N,) each; the columns of the parquet."""

    source: NDArray[np.object_]
    replicate: NDArray[np.int64]
    rank: NDArray[np.int64]
    probability: NDArray[np.float64]
    prediction: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rank)

    def __getitem__(self, rows: NDArray[Any]) -> Answers:
        return Answers(**{name: getattr(self, name)[rows] for name in _COLUMNS})

    @cached_property
    def called(self) -> NDArray[np.float64]:
        """Whether each image is called the class, 1 or 0."""
        return (self.rank == 1).astype(np.float64)

    @cached_property
    def clusters(self) -> list[list[NDArray[np.intp]]]:
        """Positions by source and replicate."""
        sources = [self.source == source for source in np.unique(self.source)]
        return [
            [np.flatnonzero(own & (self.replicate == r)) for r in np.unique(self.replicate[own])]
            for own in sources
        ]


_COLUMNS = ("source", "replicate", "rank", "probability", "prediction")


@dataclass(frozen=True)
class ClassAnswers:
    """The answers to one class's images, by what they are asked for.

    Attributes:
        counted: the spurious images that count.
        with_references: these and the references; empty where no class has references.
        object_seen: images in which the detector sees the object.
        positives: images that show the class.
        negatives: images that show another class, where a model was asked about this one.
        paired: of the counted ones, those with a twin that counts.
        twins: theirs, in the same order.
    """

    index: int
    name: str
    spurious_feature: str | None
    counted: Answers
    with_references: Answers
    object_seen: Answers
    positives: Answers
    negatives: Answers
    paired: Answers
    twins: Answers

    @property
    def generators(self) -> int:
        """How many made the images; 0 of photographs."""
        return len(np.unique(self.counted.replicate[self.counted.source == "generated"]))


def by_class(frame: pd.DataFrame) -> Iterator[ClassAnswers]:
    """The classes that have images that count, by index."""
    # Arrays, for selecting rows of a frame class by class takes longer than a small network.
    answers = Answers(**{column: frame[column].to_numpy() for column in _COLUMNS})
    index, sha256, twin_of, name, feature = (
        frame[column].to_numpy()
        for column in ("class_index", "image_sha256", "twin_of", "class_name", "spurious_feature")
    )
    counted, reference = (frame[column].to_numpy(bool) for column in ("counted", "is_reference"))
    seen = ~frame["object_absent"].astype("boolean").fillna(True).to_numpy(bool)
    control = answers.source == "control"
    spurious = np.isin(answers.source, SPLITS)
    references = spurious & reference & ~seen & ~counted
    for number in np.unique(index[spurious & counted]).tolist():
        mine = index == number
        own = np.flatnonzero(mine & spurious & counted)
        twin = dict(
            zip(twin_of[rows := np.flatnonzero(mine & control & counted)], rows, strict=True)
        )
        pairs = [row for row in own if sha256[row] in twin]
        # pandas may hold NaN where a text is missing.
        text = feature[own[0]]
        yield ClassAnswers(
            index=number,
            name=name[own[0]],
            spurious_feature=text if isinstance(text, str) else None,
            counted=answers[own],
            with_references=answers[mine & (spurious & counted | references)]
            if references.any()
            else answers[own[:0]],
            object_seen=answers[mine & spurious & seen & ~reference & ~counted],
            positives=answers[mine & (answers.source == "positive")],
            negatives=answers[mine & (answers.source == "negative")],
            paired=answers[np.array(pairs, np.intp)],
            twins=answers[np.array([twin[sha256[row]] for row in pairs], np.intp)],
        )


class _Measured:
    """A class's numbers, and what they are in each bootstrap sample: (resamples,) by name."""

    def __init__(self, answers: ClassAnswers, bootstrap: Bootstrap) -> None:
        self.answers = answers
        self.draws: dict[str, NDArray[np.float64]] = {}
        self._bootstrap = bootstrap
        counted = answers.counted
        self.result = ClassResult(
            index=answers.index,
            name=answers.name,
            wnid=imagenet_wnids()[answers.index],
            spurious_feature=answers.spurious_feature,
            n=len(counted),
            spurious_accuracy=float(counted.called.mean()),
            spurious_accuracy_interval=self._share("spurious", counted),
            top5=float((counted.rank <= 5).mean()),
            mean_probability=float(counted.probability.mean()),
            with_references=self._rate("with_references", answers.with_references),
            object_seen=self._rate("object_seen", answers.object_seen),
            recognition=self._recognition() if len(answers.positives) else None,
            effect=self._effect() if len(answers.paired) else None,
        )

    def _rate(self, name: str, images: Answers) -> Rate | None:
        if not len(images):
            return None
        interval = self._share(name, images)
        return Rate(n=len(images), share=float(images.called.mean()), interval=interval)

    def _share(self, name: str, images: Answers) -> Interval:
        """The interval of how many images are called the class."""
        low, high = self._drawn(name, images.called, images)
        if all(len(generators) == 1 for generators in images.clusters):
            low, high = metrics.wilson_interval(int(images.called.sum()), len(images))
        return Interval(low=low, high=high)

    def _drawn(
        self, name: str, values: NDArray[np.float64], images: Answers
    ) -> tuple[float, float]:
        self.draws[name] = self._bootstrap.means(values, images.clusters)
        return percentile_interval(self.draws[name])

    def _recognition(self) -> Recognition:
        shown, counted = self.answers.positives, self.answers.counted
        scores = shown.probability, counted.probability
        self.draws["auroc"] = self._bootstrap.auroc(*scores, counted.clusters)
        low, high = percentile_interval(self.draws["auroc"])
        return Recognition(
            n=len(shown),
            accuracy=float(shown.called.mean()),
            interval=self._share("recognition", shown),
            auroc=metrics.auroc(*scores),
            auroc_interval=Interval(low=low, high=high),
            average_precision=metrics.average_precision(*scores),
        )

    def _effect(self) -> Effect:
        images, twins = self.answers.paired, self.answers.twins
        low, high = self._drawn("effect", images.called - twins.called, images)
        accuracy, control = float(images.called.mean()), float(twins.called.mean())
        return Effect(
            pairs=len(images),
            accuracy=accuracy,
            control_accuracy=control,
            effect=accuracy - control,
            interval=SignedInterval(low=low, high=high),
            p_value=paired.mcnemar(images.rank == 1, twins.rank == 1),
        )


def _chance(shown: Sequence[ClassAnswers], outputs: int) -> float:
    """What accuracy on positives says nothing: see :attr:`Summary.chance`."""
    if all(len(answers.negatives) for answers in shown):
        return _mean(answers.negatives.called.mean() for answers in shown)
    return metrics.chance(
        [answers.positives.prediction for answers in shown],
        [answers.index for answers in shown],
        outputs,
    )


def _macro_rate(classes: Sequence[_Measured], name: str) -> Rate | None:
    rates = [rate for c in classes if (rate := getattr(c.result, name)) is not None]
    if not rates:
        return None
    return Rate(
        n=sum(rate.n for rate in rates),
        share=_mean(rate.share for rate in rates),
        interval=_interval(classes, name),
    )


def _macro_recognition(classes: Sequence[_Measured]) -> Recognition | None:
    parts = [c.result.recognition for c in classes if c.result.recognition is not None]
    if not parts:
        return None
    return Recognition(
        n=sum(part.n for part in parts),
        accuracy=_mean(part.accuracy for part in parts),
        interval=_interval(classes, "recognition"),
        auroc=_mean(part.auroc for part in parts),
        auroc_interval=_interval(classes, "auroc"),
        average_precision=_mean(part.average_precision for part in parts),
    )


def _macro_effect(classes: Sequence[_Measured]) -> Effect | None:
    parts = [c.result.effect for c in classes if c.result.effect is not None]
    if not parts:
        return None
    images, twins = (
        np.concatenate([getattr(c.answers, side).rank == 1 for c in classes])
        for side in ("paired", "twins")
    )
    low, high = _macro(classes, "effect")
    accuracy, control = (
        _mean(part.accuracy for part in parts),
        _mean(part.control_accuracy for part in parts),
    )
    return Effect(
        pairs=len(images),
        accuracy=accuracy,
        control_accuracy=control,
        effect=accuracy - control,
        interval=SignedInterval(low=low, high=high),
        p_value=paired.mcnemar(images, twins),
    )


def _interval(classes: Sequence[_Measured], name: str) -> Interval:
    low, high = _macro(classes, name)
    return Interval(low=low, high=high)


def _macro(classes: Sequence[_Measured], name: str) -> tuple[float, float]:
    """The interval of the mean over the classes that have a number."""
    draws = [c.draws[name] for c in classes if name in c.draws]
    return percentile_interval(np.mean(draws, axis=0))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))

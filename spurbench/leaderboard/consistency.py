"""Whether an entry's numbers follow from its answers: a figure edited by hand is found.

All classes at once, for a board has hundreds of entries of thousands of answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spurbench.evaluation.results import ClassResult, SplitResult, Summary
from spurbench.images.records import Split
from spurbench.leaderboard.answers import UNITS, Answers, ClassAnswers

EXACT = 2e-6
"""Off by more, a share is wrong: published numbers have six digits."""
ROUNDED = 0.5 / UNITS + EXACT
"""Off by more, a mean of probabilities is wrong, for these are published rounded."""

COUNTS = ("n", "recognition.n", "effect.pairs")
MEANS = (
    "spurious_accuracy",
    "mean_probability",
    "recognition.accuracy",
    "effect.accuracy",
    "effect.control_accuracy",
    "effect.effect",
)

SUMMED = ("with_references.n", "object_seen.n")
AVERAGED = (
    "top5",
    "recognition.average_precision",
    "with_references.share",
    "object_seen.share",
)
"""Of a summary: what its classes say, though answers alone don't."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class _Answered:
    """The answers of one source, all classes in a row.

    Attributes:
        indices: (K,), of the classes.
        owner: (N,), position of each image's class among them.
        predictions: (N,).
        units: (N,), probability of the class, in units.
        counted: (N,), in the headline.
    """

    indices: NDArray[np.int64]
    owner: NDArray[np.intp]
    predictions: NDArray[np.int16]
    units: NDArray[np.int16]
    counted: NDArray[np.bool_]

    @classmethod
    def of(cls, answers: Sequence[ClassAnswers]) -> _Answered:
        sizes = [len(a.predictions) for a in answers]
        counted = np.ones(sum(sizes), np.bool_)
        for start, a in zip(np.cumsum([0, *sizes]), answers, strict=False):
            if a.left_out:
                counted[start + np.array(a.left_out)] = False
        return cls(
            np.array([a.index for a in answers]),
            np.repeat(np.arange(len(answers)), sizes),
            np.concatenate([a.predictions for a in answers]),
            np.concatenate([a.ten_thousandths for a in answers]),
            counted,
        )

    @property
    def called(self) -> NDArray[np.bool_]:
        """(N,), whether each image is called its class."""
        return self.predictions == self.indices[self.owner]

    def per_class(self, values: NDArray[np.generic]) -> Numbers:
        """(K,), sums of (N,)."""
        return np.bincount(
            self.owner, values.astype(np.float64), minlength=len(self.indices)
        ).astype(np.float64)


def contradiction(splits: Mapping[Split, SplitResult], answers: Answers) -> str | None:
    """The first number of an entry that does not follow from its answers, in one line.

    AUROC is held between what ties of rounded probabilities allow. Intervals and p-values take more
    than a moment: :mod:`spurbench.leaderboard.check` looks at them. A class's top-5 and average
    precision do not follow from rounded answers; the summary's are held to the classes'. Of images
    left out it is held what the answers allow, which don't say which were references.

    Args:
        splits: of an entry.
        answers: of the same; not empty.
    """
    if answers.keys() - {"positive", "negative", "control"} != splits.keys():
        return "answers and splits are not of the same splits"
    for source, given in answers.items():
        indices = [a.index for a in given]
        if not indices or indices != sorted(set(indices)):
            return f"answers.{source} are not of one class after the other"
    for source in ("positive", "negative"):
        if any(a.left_out for a in answers.get(source, ())):
            return f"answers.{source} leave images out, and every {source} counts"
    positives, negatives = (
        _Answered.of(answers[source]) if source in answers else None
        for source in ("positive", "negative")
    )
    controls = answers.get("control", [])
    if controls and [(a.index, len(a.predictions)) for a in controls] != [
        (a.index, len(a.predictions)) for a in answers.get("generated", [])
    ]:
        return "answers to controls are not of the same images as those to generated images"
    for split, part in splits.items():
        twins = _Answered.of(controls) if controls and split == "generated" else None
        for fault in _faults(part, _Answered.of(answers[split]), positives, negatives, twins):
            return f"splits.{split}{fault}"
        generators = [a.counted_generators for a in answers[split] if a.counts]
        if part.summary.generators != (min(generators) if split == "generated" else 0):
            return f"splits.{split}.summary: generators differ from the answers"
    return None


def _faults(
    part: SplitResult,
    own: _Answered,
    positives: _Answered | None,
    negatives: _Answered | None,
    twins: _Answered | None,
) -> Iterator[str]:
    measured = own.per_class(own.counted) > 0
    indices = [c.index for c in part.classes]
    if not indices or indices != own.indices[measured].tolist():
        yield ": its classes are not those of its answers"
        return
    expected = {name: values[measured] for name, values in _expected(own, positives, twins).items()}
    for name, values in expected.items():
        said = _said(part.classes, name)
        wrong = np.flatnonzero(_differ(said, values, name))
        if len(wrong):
            yield f", {part.classes[wrong[0]].name}: {name} differs from the answers"
        known = values[~np.isnan(values)]
        whole = np.nan if not len(known) else known.sum() if name in COUNTS else known.mean()
        if _differ(_said([part.summary], name), np.array([whole]), name)[0]:
            yield f".summary: {name} is not that of its classes"
    for name in (*SUMMED, *AVERAGED):
        known = _said(part.classes, name)
        known = known[~np.isnan(known)]
        whole = np.nan if not len(known) else known.sum() if name in SUMMED else known.mean()
        if _differ(_said([part.summary], name), np.array([whole]), name)[0]:
            yield f".summary: {name} is not that of its classes"
    others = ~own.counted
    left, fooled = (own.per_class(of)[measured] for of in (others, others & own.called))
    for name, within, called in (
        ("with_references", expected["n"], expected["n"] * expected["spurious_accuracy"]),
        ("object_seen", np.zeros_like(left), np.zeros_like(left)),
    ):
        n = _said(part.classes, f"{name}.n")
        # So many of the images left out, and how many of these are called the class.
        more, among = n - within, _said(part.classes, f"{name}.share") * n - called
        beyond = (among > np.minimum(more, fooled) + 0.01) | (among < more - left + fooled - 0.01)
        for i in np.flatnonzero(beyond | (more < 0) | (more > left) | (among < -0.01)):
            yield f", {part.classes[i].name}: {name} is not what answers left out allow"
    if positives is not None and part.summary.recognition is not None:
        yield from _recognition_faults(part, own, positives, negatives)
    if part.summary.classes != len(indices):
        yield ".summary: classes are not as many as its classes"
    worst = max(c.spurious_accuracy for c in part.classes)
    told = part.summary
    if not any(
        (c.name, c.n, c.spurious_accuracy)
        == (told.worst_class, told.worst_class_n, told.worst_class_spurious_accuracy)
        and c.spurious_accuracy == worst
        for c in part.classes
    ):
        yield ".summary: worst_class is not the worst of its classes"


def _expected(
    own: _Answered, positives: _Answered | None, twins: _Answered | None
) -> dict[str, Numbers]:
    """(K,) each, by class; not a number where there is none."""
    found: dict[str, Numbers] = {
        name: np.full(len(own.indices), np.nan) for name in (*COUNTS, *MEANS)
    }
    with np.errstate(invalid="ignore"):
        found["n"] = own.per_class(own.counted)
        found["spurious_accuracy"] = own.per_class(own.counted & own.called) / found["n"]
        found["mean_probability"] = own.per_class(own.counted * own.units) / found["n"] / UNITS
        if positives is not None:
            at: NDArray[np.intp] = np.searchsorted(positives.indices, own.indices).clip(
                max=len(positives.indices) - 1
            )
            has = positives.indices[at] == own.indices
            n = positives.per_class(positives.counted)
            accuracy = positives.per_class(positives.called) / n
            found["recognition.n"] = np.where(has, n[at], np.nan)
            found["recognition.accuracy"] = np.where(has, accuracy[at], np.nan)
        if twins is not None:
            pairs = own.counted & twins.counted
            n = own.per_class(pairs)
            found["effect.pairs"] = np.where(n > 0, n, np.nan)
            found["effect.accuracy"] = own.per_class(pairs & own.called) / n
            found["effect.control_accuracy"] = own.per_class(pairs & twins.called) / n
            found["effect.effect"] = found["effect.accuracy"] - found["effect.control_accuracy"]
    return found


def _said(results: Sequence[ClassResult | Summary], name: str) -> Numbers:
    part, _, field = name.rpartition(".")
    held = [getattr(result, part) for result in results] if part else results
    # NumPy takes None for not a number.
    return np.array([None if one is None else getattr(one, field) for one in held], np.float64)


def _differ(said: Numbers, expected: Numbers, name: str) -> NDArray[np.bool_]:
    tolerance = ROUNDED if name == "mean_probability" else EXACT
    # NumPy's isclose takes five times as long, and there are fifty of these in an entry.
    alike = (np.abs(said - expected) <= tolerance) | (np.isnan(said) & np.isnan(expected))
    differ: NDArray[np.bool_] = ~alike
    return differ


def _recognition_faults(
    part: SplitResult, own: _Answered, positives: _Answered, negatives: _Answered | None
) -> Iterator[str]:
    shown = [c for c in part.classes if c.recognition is not None]
    indices = np.array([c.index for c in shown])
    auroc = _said(shown, "recognition.auroc")
    low, high = _auroc_bounds(indices, own, positives)
    outside = np.flatnonzero(~((auroc >= low - EXACT) & (auroc <= high + EXACT)))
    if len(outside):
        yield f", {shown[outside[0]].name}: recognition.auroc differs from the answers"
    if abs(_said([part.summary], "recognition.auroc")[0] - auroc.mean()) > EXACT:
        yield ".summary: recognition.auroc is not that of its classes"
    if negatives is not None:
        chance = _mean_share(negatives, negatives.called, indices)
    elif len(indices) > 1:
        among = np.isin(positives.predictions, indices)
        chance = _mean_share(positives, among, indices) / len(indices)
    else:  # a lone class is one of the head's outputs, which no answer tells
        return
    if not abs((part.summary.chance or 0.0) - chance) <= EXACT:
        yield ".summary: chance differs from the answers"


def _mean_share(answered: _Answered, which: NDArray[np.bool_], indices: NDArray[np.int64]) -> float:
    """The mean over some classes of the share of their answers that are of a kind."""
    shares = answered.per_class(which) / answered.per_class(np.ones_like(which))
    return float(shares[np.isin(answered.indices, indices)].mean())


def _auroc_bounds(
    indices: NDArray[np.int64], own: _Answered, positives: _Answered
) -> tuple[Numbers, Numbers]:
    """(K,) each: the least and most AUROC; rounded alike, either may be the surer."""
    # One order over all classes: the class first, then the probability.
    step = UNITS + 1
    spurious = np.sort(own.indices[own.owner[own.counted]] * step + own.units[own.counted])
    index = positives.indices[positives.owner]
    # Sorted they are found quicker; each class's, which are summed, stay together.
    keys = np.sort(index * step + positives.units)
    first_alike = np.searchsorted(spurious, keys)
    below = first_alike - np.searchsorted(spurious, index * step)
    alike = np.searchsorted(spurious, keys, side="right") - first_alike
    at = np.searchsorted(positives.indices, indices)
    first = indices * step
    n = np.searchsorted(spurious, first + step) - np.searchsorted(spurious, first)
    pairs = n * positives.per_class(np.ones_like(index))[at]
    low = positives.per_class(below)[at] / pairs
    return low, low + positives.per_class(alike)[at] / pairs

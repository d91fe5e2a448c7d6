"""From the answers to images to the numbers of a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spurbench.core.imagenet import imagenet_wnids
from spurbench.evaluation import metrics
from spurbench.evaluation.results import (
    BOOTSTRAP,
    ClassResult,
    Interval,
    SplitResult,
    Summary,
)

if TYPE_CHECKING:
    import pandas as pd


def summarise(frame: pd.DataFrame) -> SplitResult:
    """A split's result from its per-image predictions (the parquet's columns).

    Args:
        frame: rows with ``class_index``, ``class_name``, ``spurious_feature``, ``source``,
            ``probability`` and ``rank``; rows whose source is ``positive`` truly show their class.
    """
    # Arrays, for selecting rows of a frame class by class takes longer than a small network.
    class_index, ranks, probabilities, names, features = (
        frame[column].to_numpy()
        for column in ("class_index", "rank", "probability", "class_name", "spurious_feature")
    )
    positive = (frame["source"] == "positive").to_numpy()
    classes: list[ClassResult] = []
    called: list[NDArray[np.float64]] = []
    for index in np.unique(class_index[~positive]).tolist():
        rows = ~positive & (class_index == index)
        first = rows.argmax()
        fooled = ranks[rows] == 1
        called.append(fooled.astype(np.float64))
        true = probabilities[positive & (class_index == index)]
        probability = probabilities[rows]
        low, high = metrics.wilson_interval(int(fooled.sum()), len(fooled))
        classes.append(
            ClassResult(
                index=index,
                name=names[first],
                wnid=imagenet_wnids()[index],
                # pandas may hold NaN where a text is missing.
                spurious_feature=features[first] if isinstance(features[first], str) else None,
                n=len(fooled),
                spurious_accuracy=float(fooled.mean()),
                spurious_accuracy_interval=Interval(low=low, high=high),
                top5=float((ranks[rows] <= 5).mean()),
                mean_probability=float(probability.mean()),
                positives=len(true) if len(true) else None,
                auroc=metrics.auroc(true, probability) if len(true) else None,
                average_precision=metrics.average_precision(true, probability)
                if len(true)
                else None,
            )
        )
    low, high = metrics.bootstrap_interval(
        called, resamples=BOOTSTRAP.bootstrap_resamples, seed=BOOTSTRAP.bootstrap_seed
    )
    worst = max(classes, key=lambda c: c.spurious_accuracy)
    return SplitResult(
        summary=Summary(
            n=int((~positive).sum()),
            classes=len(classes),
            spurious_accuracy=metrics.macro_mean(called),
            spurious_accuracy_interval=Interval(low=low, high=high),
            top5=float(np.mean([c.top5 for c in classes])),
            mean_probability=float(np.mean([c.mean_probability for c in classes])),
            worst_class=worst.name,
            worst_class_spurious_accuracy=worst.spurious_accuracy,
            auroc=_mean([c.auroc for c in classes]),
            average_precision=_mean([c.average_precision for c in classes]),
        ),
        classes=classes,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None

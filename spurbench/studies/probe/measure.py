"""From raw answers to the numbers of a probe: pure functions of a table of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spurbench.evaluation import metrics, paired
from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.results import BOOTSTRAP, Interval, Rate
from spurbench.images.records import SPLITS, Split
from spurbench.studies.probe.edits import ASPECTS
from spurbench.studies.probe.results import (
    Aspects,
    Change,
    Changed,
    ClassProbe,
    MeanChanged,
    Sensitive,
    Sensitivity,
    SplitProbe,
)

UNCHANGED = "none"
"""The change of answers to images as they are."""


def splits(answers: pd.DataFrame, changes: Sequence[Change]) -> dict[Split, SplitProbe]:
    """The numbers of one classifier.

    Args:
        answers: a row an image and change, :data:`UNCHANGED` among them: class_index, class_name,
            spurious_feature, source, image_sha256 (of the image as it is), change, rank.
        changes: what was done to images; one that no image of a split or class went through is
            left out there.
    """
    return {
        split: _split(of_split, changes)
        for split in SPLITS
        if len(of_split := answers[answers["source"] == split])
    }


def called(answers: pd.DataFrame) -> pd.DataFrame:
    """Whether each image (a row) is called its class under each change (a column).

    1 or 0; NaN where the image did not go through the change.
    """
    return (
        answers.assign(called=(answers["rank"] == 1).astype(float))
        .pivot(index="image_sha256", columns="change", values="called")
        .sort_index()
    )


def rate(yes: NDArray[np.bool_]) -> Rate:
    """The share of images, with Wilson's interval.

    Raises:
        ValueError: if there are none.
    """
    low, high = metrics.wilson_interval(int(yes.sum()), len(yes))
    return Rate(n=len(yes), share=float(yes.mean()), interval=Interval(low=low, high=high))


def _split(answers: pd.DataFrame, changes: Sequence[Change]) -> SplitProbe:
    indices = sorted(answers["class_index"].unique().tolist())
    of_class = {index: answers[answers["class_index"] == index] for index in indices}
    tables = {index: called(own) for index, own in of_class.items()}
    # Of the images that are called the class as they are, the others say nothing of why they are.
    lost = {i: 1 - of[of[UNCHANGED] == 1].drop(columns=UNCHANGED) for i, of in tables.items()}
    means = []
    for change in changes:
        groups = [
            values.to_numpy(float)
            for of in lost.values()
            if change.name in of and len(values := of[change.name].dropna())
        ]
        if groups:
            means.append(
                MeanChanged(change=change.name, classes=len(groups), changed=_mean(groups))
            )
    return SplitProbe(
        aspects=_aspects(lost, changes),
        means=tuple(means),
        classes=tuple(
            ClassProbe(
                index=index,
                name=first["class_name"],
                spurious_feature=first["spurious_feature"],
                aspects=_aspects({index: lost[index]}, changes),
                changes=_changes(tables[index], changes),
            )
            for index, own in of_class.items()
            for first in [own.iloc[0]]
        ),
    )


def _changes(table: pd.DataFrame, changes: Sequence[Change]) -> tuple[Changed, ...]:
    found, p_values = [], []
    for change in changes:
        if change.name not in table:
            continue
        pairs = table[[UNCHANGED, change.name]].dropna().to_numpy() == 1
        before, after = pairs[:, 0], pairs[:, 1]
        found.append((change.name, before, after))
        p_values.append(paired.mcnemar(before, after))
    return tuple(
        Changed(
            change=name,
            before=rate(before),
            after=rate(after),
            changed=rate(~after[before]) if before.any() else None,
            p_value=p_value,
        )
        for (name, before, after), p_value in zip(found, paired.holm(p_values), strict=True)
    )


def _aspects(lost: Mapping[int, pd.DataFrame], changes: Sequence[Change]) -> Aspects:
    """By the edits of the feature alone, and by those of the whole image."""
    masked = any(c.inside and c.name in of for c in changes for of in lost.values())
    return Aspects(
        feature=_sensitive(lost, [c for c in changes if c.inside]) if masked else None,
        image=_sensitive(lost, [c for c in changes if not c.inside]),
    )


def _sensitive(lost: Mapping[int, pd.DataFrame], changes: Sequence[Change]) -> Sensitive:
    """By aspect, over the images that went through its edits."""
    shares: dict[str, Sensitivity | None] = {}
    for aspect in ASPECTS:
        names = [c.name for c in changes if c.aspect == aspect]
        groups = [
            shares_of_image
            for of in lost.values()
            if (own := [name for name in names if name in of])
            and len(shares_of_image := of[own].dropna().mean(axis=1).to_numpy(float))
        ]
        shares[aspect] = _mean(groups) if groups else None
    return Sensitive(**shares)


def _mean(groups: Sequence[NDArray[np.floating]]) -> Sensitivity:
    low, high = bootstrap_interval(
        groups, resamples=BOOTSTRAP.bootstrap_resamples, seed=BOOTSTRAP.bootstrap_seed
    )
    share = metrics.macro_mean(groups)
    # Sums of quotients may leave [0, 1] by a last bit.
    low, share, high = (min(1.0, max(0.0, value)) for value in (low, share, high))
    return Sensitivity(share=share, interval=Interval(low=low, high=high))

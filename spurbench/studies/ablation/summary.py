"""From the measures of single builds to means over classes and estimates over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from spurbench.evaluation import metrics
from spurbench.studies.ablation.plan import Variation
from spurbench.studies.ablation.results import (
    MEASURES,
    PARTS,
    BuildMeasures,
    Compared,
    Estimate,
    Measures,
    Part,
    VariationResult,
)


@dataclass(frozen=True)
class BuildResult:
    """What was measured of one build's generated images.

    Attributes:
        classes: the measures by class.
        fooled: each classifier's spurious accuracy, the mean over classes.
    """

    classes: dict[str, BuildMeasures]
    fooled: dict[str, float]


def summarise(
    variation: Variation,
    by_seed: Mapping[int, BuildResult],
    baseline: Sequence[BuildResult],
    parts: Mapping[str, Part],
) -> VariationResult:
    """What was found of a variation.

    Args:
        variation: its name and settings.
        by_seed: its builds.
        baseline: those of the baseline, of the same seeds.
        parts: each classifier's part in the images, by label.
    """
    own = list(by_seed.values())
    means, of_baseline = (
        [mean_measures(list(result.classes.values())) for result in results]
        for results in (own, baseline)
    )
    return VariationResult(
        **variation.model_dump(),
        summary={name: _estimate([getattr(m, name) for m in means]) for name in MEASURES},
        against_baseline={
            name: _estimate(
                [
                    _difference(getattr(a, name), getattr(b, name))
                    for a, b in zip(means, of_baseline, strict=True)
                ]
            )
            for name in MEASURES
        },
        classifiers={
            label: _compared(*([r.fooled[label] for r in results] for results in (own, baseline)))
            for label in parts
        },
        parts={
            part: _compared(
                *([by_part(r.fooled, parts)[part] for r in results] for results in (own, baseline))
            )
            for part in PARTS
            if part in parts.values()
        },
        classes={
            name: mean_measures([result.classes[name] for result in own]) for name in own[0].classes
        },
        seeds={seed: result.classes for seed, result in by_seed.items()},
    )


def by_part(fooled: Mapping[str, float], parts: Mapping[str, Part]) -> dict[Part, float]:
    """Mean spurious accuracy over the classifiers of each part that has any."""
    groups = {
        part: [share for label, share in fooled.items() if parts[label] == part] for part in PARTS
    }
    return {part: float(np.mean(group)) for part, group in groups.items() if group}


SomeMeasures = TypeVar("SomeMeasures", bound=Measures)


def mean_measures(groups: Sequence[SomeMeasures]) -> SomeMeasures:
    """Each measure's mean over groups; None where a group has none."""
    means: dict[str, Any] = {}
    for name in type(groups[0]).model_fields:
        values = [getattr(group, name) for group in groups]
        means[name] = None if None in values else float(np.mean(values))
    return type(groups[0])(**means)


def _compared(shares: Sequence[float], baseline: Sequence[float]) -> Compared:
    """Spurious accuracies by seed, and their differences to the baseline's."""
    differences = [a - b for a, b in zip(shares, baseline, strict=True)]
    return Compared(
        seeds=tuple(shares),
        spurious_accuracy=_estimate_of(shares),
        against_baseline=_estimate_of(differences),
    )


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _estimate(values: Sequence[float | None]) -> Estimate | None:
    """None where a value is not known."""
    known = [value for value in values if value is not None]
    return _estimate_of(known) if known and len(known) == len(values) else None


def _estimate_of(values: Sequence[float]) -> Estimate:
    low, high = metrics.t_interval(values) or (None, None)
    return Estimate(mean=float(np.mean(values)), low=low, high=high)

"""Images in a context beside those of the same noise without: what shows, and who is fooled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spurbench.core.progress import tracked
from spurbench.dataset.rows import PartName, Row, context_of
from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.metrics import macro_mean
from spurbench.evaluation.results import BOOTSTRAP
from spurbench.images.decode import decode_rgb

if TYPE_CHECKING:
    from spurbench.classifiers.detectors import ObjectDetector

Seen = Mapping[tuple[str, str], bool]
"""Whether a context is visible, by the image's sha256 and the context."""

BATCH = 64
"""Images that are decoded at once."""


@dataclass(frozen=True)
class Contexts:
    """The images that are compared: those of each context, and theirs without one.

    Attributes:
        plain: generated images of the noise that the images in contexts came of.
        placed: images by their context, in the recipe's order.
    """

    plain: Sequence[Row]
    placed: Mapping[str, Sequence[Row]]

    @classmethod
    def of(cls, rows: Mapping[PartName, Sequence[Row]], phrases: Sequence[str]) -> Contexts:
        """Those of a dataset, as far as they count: a detector sees no object of their class.

        Args:
            rows: of the dataset, by part.
            phrases: the recipe's contexts.
        """
        counted = [row for row in rows["contexts-generated"] if row.object_absent is not False]
        noise = {origin(row) for row in rows["contexts-generated"]}
        plain = [
            row
            for row in rows["generated"]
            if origin(row) in noise and row.object_absent is not False
        ]
        placed = {
            phrase: [row for row in counted if context_of(row, phrases) == phrase]
            for phrase in phrases
        }
        return cls(plain, {phrase: found for phrase, found in placed.items() if found})


def origin(row: Row) -> tuple[int, int, int | None]:
    """What images of one noise and one generator have in common."""
    return row.class_index, row.replicate, row.seed


def look(contexts: Contexts, detector: ObjectDetector, threshold: float) -> Seen:
    """Ask a detector for each context, of its images and of those without any.

    Args:
        contexts: the images.
        detector: that looks for contexts.
        threshold: score in [0, 1] from which one is visible.

    Returns:
        Nothing of the contexts that the detector does not know.
    """
    seen: dict[tuple[str, str], bool] = {}
    for phrase, placed in contexts.placed.items():
        rows = [*placed, *contexts.plain]
        starts = range(0, len(rows), BATCH)
        for start in tracked(starts, f"is it {phrase}?", len(starts), unit="batch"):
            chunk = rows[start : start + BATCH]
            scores = detector.context_scores([decode_rgb(row.read()) for row in chunk], phrase)
            for row, score in zip(chunk, scores, strict=True):
                if score is not None:
                    seen[row.image_sha256, phrase] = score >= threshold
    return seen


@dataclass(frozen=True)
class Share:
    """Of images whose answer is the class; a mean over classes where there are several.

    Attributes:
        n: images.
        value: in [0, 1].
        low: lower end of the 95 % bootstrap interval, over generators and images.
        high: its upper end.
    """

    n: int
    value: float
    low: float
    high: float


def called(rows: Sequence[Row], classifier: str | None) -> Share:
    """How often images are called their class.

    Args:
        rows: at least one.
        classifier: by one of the panel; None: by all of it.
    """
    groups: dict[int, list[bool]] = {}
    generators: dict[int, dict[int, list[int]]] = {}
    for row in rows:
        ranks = [a.rank for a in row.panel if classifier in (None, a.classifier)]
        group = groups.setdefault(row.class_index, [])
        of_class = generators.setdefault(row.class_index, {})
        of_class.setdefault(row.replicate, []).append(len(group))
        group.append(all(rank == 1 for rank in ranks))
    values = [np.array(groups[index], float) for index in sorted(groups)]
    clusters = [
        [[np.array(positions) for positions in generators[index].values()]]
        for index in sorted(groups)
    ]
    low, high = bootstrap_interval(
        values,
        clusters,
        resamples=BOOTSTRAP.bootstrap_resamples,
        seed=BOOTSTRAP.bootstrap_seed,
    )
    return Share(len(rows), macro_mean(values), low, high)


@dataclass(frozen=True)
class Association:
    """How being consistently spurious goes with the context's being visible.

    Attributes:
        visible: images where it is: consistently spurious, and all.
        hidden: images where it is not: the same.
        odds_ratio: Mantel and Haenszel's over strata, below 1 if images are less spurious where
            the context shows; None if no stratum has both kinds of both, or it is no number.
        low: lower end of its 95 % interval (Robins, Breslow and Greenland); None if it has none.
        high: its upper end.
        p_value: of the Cochran-Mantel-Haenszel test, two-sided, without correction.
    """

    visible: tuple[int, int]
    hidden: tuple[int, int]
    odds_ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


def association(entries: Iterable[tuple[bool, bool, Hashable]]) -> Association:
    """Compare within strata, so that no class, generator or context stands for another.

    Args:
        entries: of each image whether it is consistently spurious, whether its context is visible,
            and its stratum.
    """
    counts: Counter[tuple[Hashable, bool, bool]] = Counter(
        (stratum, visible, spurious) for spurious, visible, stratum in entries
    )
    strata = dict.fromkeys(stratum for stratum, _, _ in counts)
    tables = {
        stratum: np.array([[counts[stratum, v, s] for s in (True, False)] for v in (True, False)])
        for stratum in strata
    }
    shown, hidden = sum(tables.values(), np.zeros((2, 2), int)).tolist()
    pooled = _pooled([t for t in tables.values() if t.sum(0).all() and t.sum(1).all()])
    return Association((shown[0], sum(shown)), (hidden[0], sum(hidden)), *pooled)


def _pooled(
    tables: Sequence[np.ndarray],
) -> tuple[float | None, float | None, float | None, float | None]:
    """Odds ratio, its interval and the p-value of 2 x 2 tables with no empty margin."""
    if not tables:
        return None, None, None, None
    from statsmodels.stats.contingency_tables import StratifiedTable

    with np.errstate(all="ignore"):  # an empty cell in every stratum: no finite ratio
        table = StratifiedTable([t.astype(float) for t in tables])
        ratio = float(table.oddsratio_pooled)
        low, high = map(float, table.oddsratio_pooled_confint())
        p_value = float(table.test_null_odds(correction=False).pvalue)
    if not (math.isfinite(ratio) and math.isfinite(low) and math.isfinite(high)):
        return (ratio if math.isfinite(ratio) else None), None, None, p_value
    return ratio, low, high, p_value


def entries(contexts: Contexts, seen: Seen, phrase: str) -> list[tuple[bool, bool, Hashable]]:
    """What :func:`association` takes of a context's images; a stratum is a class's generator."""
    return [
        (
            row.consistently_spurious,
            seen[row.image_sha256, phrase],
            (phrase, row.class_index, row.replicate),
        )
        for row in contexts.placed[phrase]
        if (row.image_sha256, phrase) in seen
    ]

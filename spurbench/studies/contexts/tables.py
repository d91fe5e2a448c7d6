"""The tables of recontextualisation."""

from __future__ import annotations

from collections.abc import Sequence

from spurbench.dataset.rows import Row
from spurbench.studies.contexts.measure import (
    Association,
    Contexts,
    Seen,
    Share,
    association,
    called,
    entries,
)
from spurbench.studies.report.table import Column, Shown, Table, Value

NONE = "no context"
"""What the images of the same noise are called."""


def accuracy(contexts: Contexts) -> Table:
    """Spurious accuracy by context and classifier of the panel; by class too in the CSV."""
    groups = {NONE: contexts.plain, **contexts.placed}
    every = (row for rows in groups.values() for row in rows)
    classifiers = list(dict.fromkeys(answer.classifier for row in every for answer in row.panel))
    whose: list[str | None] = [*classifiers, None]
    lines: dict[str, list[Value]] = {}
    cells: dict[str | None, list[str]] = {classifier: [] for classifier in whose}
    for context, rows in groups.items():
        for classifier in whose:
            cells[classifier].append(_interval(called(rows, classifier)) if rows else "")
            for index, of_class in _by_class(rows).items():
                share = called(of_class, classifier)
                line: dict[str, Value] = {
                    "context": context,
                    "classifier": classifier or "all",
                    "class_index": index,
                    "n": share.n,
                    "spurious_accuracy": share.value,
                    "low": share.low,
                    "high": share.high,
                }
                for name, value in line.items():
                    lines.setdefault(name, []).append(value)
    return Table(
        "contexts",
        "Spurious accuracy of generated images in a context, by classifier",
        [Column(name, values) for name, values in lines.items()],
        [
            Shown("context", [*groups]),
            Shown("images", [str(len(rows)) for rows in groups.values()]),
            *(
                Shown("all at once" if classifier is None else classifier, cells[classifier])
                for classifier in whose
            ),
        ],
        [
            f"Per cent, means over classes, with 95 % bootstrap intervals; {NONE}: the generated "
            "images of the same noise. Images count in which the detector sees no object."
        ],
    )


def visibility(contexts: Contexts, seen: Seen, detector: str, threshold: float) -> Table:
    """Whether images are less consistently spurious where their context shows.

    Args:
        contexts: the images.
        seen: what the detector sees of them, of at least one.
        detector: its name.
        threshold: in [0, 1], from which it did.
    """
    found = {phrase: entries(contexts, seen, phrase) for phrase in contexts.placed}
    found = {phrase: these for phrase, these in found.items() if these}
    tests = {phrase: association(these) for phrase, these in found.items()}
    if len(tests) > 1:
        tests["all"] = association(entry for these in found.values() for entry in these)
    unasked = {
        phrase: _share([seen[row.image_sha256, phrase] for row in contexts.plain])
        for phrase in found
    }
    of = list(tests.values())
    return Table(
        "contexts-visible",
        "Consistently spurious images by whether their context is visible",
        [
            Column("context", [*tests]),
            Column("visible", [t.visible[1] for t in of]),
            Column("visible_spurious", [t.visible[0] for t in of]),
            Column("hidden", [t.hidden[1] for t in of]),
            Column("hidden_spurious", [t.hidden[0] for t in of]),
            Column("visible_without_asking", [unasked.get(phrase) for phrase in tests]),
            Column("odds_ratio", [t.odds_ratio for t in of]),
            Column("low", [t.low for t in of]),
            Column("high", [t.high for t in of]),
            Column("p_value", [t.p_value for t in of]),
        ],
        [
            Shown("context", [*tests]),
            Shown("visible", [_percent(t.visible[1], t.visible[1] + t.hidden[1]) for t in of]),
            Shown(
                "without asking",
                ["" if (u := unasked.get(p)) is None else f"{100 * u:.1f}" for p in tests],
            ),
            Shown("visible", [_percent(*t.visible) for t in of], "consistently spurious"),
            Shown("not visible", [_percent(*t.hidden) for t in of], "consistently spurious"),
            Shown("odds ratio", [_ratio(t) for t in of]),
            Shown("p", ["" if t.p_value is None else f"{t.p_value:.2g}" for t in of]),
        ],
        [
            f"Per cent; visible: a score of {threshold:g} or more by {detector}; without asking: "
            f"in the images of {NONE}. The odds ratio (Mantel and Haenszel) compares within each "
            "class's generator, and context; below 1, images are less spurious where the context "
            "shows, as the paper observes. 95 % interval of Robins, Breslow and Greenland; p of "
            "the two-sided Cochran-Mantel-Haenszel test."
        ],
    )


def _by_class(rows: Sequence[Row]) -> dict[int, list[Row]]:
    indices = sorted({row.class_index for row in rows})
    return {index: [row for row in rows if row.class_index == index] for index in indices}


def _interval(share: Share) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} ({part}/{whole})" if whole else ""


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _ratio(found: Association) -> str:
    if found.odds_ratio is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.odds_ratio:.2f}"
    return f"{found.odds_ratio:.2f} [{found.low:.2f}, {found.high:.2f}]"

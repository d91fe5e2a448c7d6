"""The tables of a probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Literal

from spurbench.core import markdown
from spurbench.images.records import SPLITS, Split
from spurbench.studies.probe.edits import ASPECTS, Aspect
from spurbench.studies.probe.results import (
    Aspects,
    ClassifierProbe,
    Probe,
    Sensitive,
    Sensitivity,
    SplitProbe,
)
from spurbench.studies.report.table import Column, Shown, Table, Value

Edited = Literal["feature", "image"]
EDITED: Mapping[Edited, str] = {
    "feature": "the feature edited",
    "image": "the whole image edited",
}
GROUPS: tuple[tuple[Split, Edited], ...] = (
    ("generated", "feature"),
    ("generated", "image"),
    ("real", "image"),
)
"""Headings, in their order; photographs have no mask of their feature."""


def tables(found: Probe) -> list[Table]:
    """What each change does, then which aspect the answers hang on, class by class."""
    return [_by_change(found), _by_class(found)]


def render_markdown(found: Probe) -> str:
    """Both tables and their notes."""
    text = []
    for table in tables(found):
        groups = [group for group, span in table.groups() for _ in range(span)]
        header = [
            " ".join(markdown.escape(part) for part in (group, column.heading) if part)
            for group, column in zip(groups, table.shown, strict=True)
        ]
        cells = zip(*(column.cells for column in table.shown), strict=True)
        rows = [[markdown.escape(first), *others] for first, *others in cells]
        text.append(markdown.table(header, markdown.first_left(len(header)), rows))
        text.append("".join(f"{note}\n" for note in table.notes))
    return "\n".join(text)


def _by_change(found: Probe) -> Table:
    lines: list[dict[str, Value]] = []
    for of, split, part in _parts(found):
        for own in part.classes:
            for line in own.changes:
                changed = line.changed
                lines.append(
                    {
                        "classifier": of.label,
                        "split": split,
                        "class_index": own.index,
                        "class_name": own.name,
                        "change": line.change,
                        "n": line.before.n,
                        "before": line.before.share,
                        "before_low": line.before.interval.low,
                        "before_high": line.before.interval.high,
                        "after": line.after.share,
                        "after_low": line.after.interval.low,
                        "after_high": line.after.interval.high,
                        "p_value": line.p_value,
                        "called": changed.n if changed else 0,
                        "changed": changed.share if changed else None,
                        "changed_low": changed.interval.low if changed else None,
                        "changed_high": changed.interval.high if changed else None,
                    }
                )
    shown = [
        Shown("", [change.title for change in found.changes]),
        Shown("takes away", [change.aspect or "" for change in found.changes]),
    ]
    for of, split, part in _parts(found):
        means = {mean.change: mean.changed for mean in part.means}
        cells = [_percent(means.get(change.name)) for change in found.changes]
        shown.append(Shown(split, cells, of.label))
    return Table(
        "probe",
        "Answers that change when images are edited, or sampled anew from another prompt",
        _columns(lines),
        shown,
        [
            "Per cent of the images called their class as they are that are no longer called so, "
            "means over classes with 95 % bootstrap intervals. The CSV has every class, with the "
            "spurious accuracy before and after.",
            *found.notes,
        ],
    )


def _by_class(found: Probe) -> Table:
    lines: list[dict[str, Value]] = []
    names: dict[int, str] = {}
    cells: dict[tuple[str, int | None, Split, Edited, Aspect], str] = {}
    for of, split, part in _parts(found):
        names |= {own.index: own.name for own in part.classes}
        every = [(None, part.aspects), *((own.index, own.aspects) for own in part.classes)]
        for index, edited, aspect, share in _shares(every):
            cells[of.label, index, split, edited, aspect] = _percent(share)
            if index is not None:
                lines.append(
                    {
                        "classifier": of.label,
                        "split": split,
                        "class_index": index,
                        "class_name": names[index],
                        "edited": edited,
                        "aspect": aspect,
                        "sensitivity": share.share if share else None,
                        "low": share.interval.low if share else None,
                        "high": share.interval.high if share else None,
                    }
                )
    rows = [(of.label, index) for of in found.classifiers for index in (*sorted(names), None)]
    words = [f"{label}, {'mean' if index is None else names[index]}" for label, index in rows]
    shown = [Shown("classifier, class", words)]
    known = {key[2:4] for key in cells}
    for split, edited in GROUPS:
        if (split, edited) in known:
            shown += [
                Shown(
                    aspect,
                    [cells.get((*row, split, edited, aspect), "") for row in rows],
                    f"{split}, {EDITED[edited]}",
                )
                for aspect in ASPECTS
            ]
    notes = [
        "Per cent of an aspect's edits that change the answer, mean over the images called their "
        "class as they are, with 95 % bootstrap intervals. How strong edits are is a choice: "
        "compare classifiers and classes under one heading, not aspects, and not headings. "
        "Where few images are called the class, or all of them agree, intervals are too narrow: "
        "probe.csv has how many are called, and Wilson's intervals.",
    ]
    if "feature" in {edited for _, edited in known}:
        notes.append(
            "Read the feature's colour, shape and texture where the feature alone is edited, which "
            "generated images with a twin allow. Edits of the whole image change all else too; "
            "they are here to compare real images with generated ones."
        )
    else:
        notes.append(
            "Only edits of the whole image were possible, which change all else too: they say what "
            "answers to the images hang on, not what of the feature. *Shape*, which shuffles the "
            "whole image, least of all."
        )
    return Table(
        "probe-classes",
        "What answers hang on: colour, shape or texture, by class and classifier",
        _columns(lines),
        shown,
        notes,
    )


def _shares(
    parts: Sequence[tuple[int | None, Aspects]],
) -> Iterator[tuple[int | None, Edited, Aspect, Sensitivity | None]]:
    """Each class's share (None: the mean over classes) by what is edited and by aspect."""
    for index, of in parts:
        for edited, aspect in product(EDITED, ASPECTS):
            sensitive: Sensitive | None = getattr(of, edited)
            if sensitive is not None:
                yield index, edited, aspect, getattr(sensitive, aspect)


def _parts(found: Probe) -> list[tuple[ClassifierProbe, Split, SplitProbe]]:
    return [
        (of, split, of.splits[split])
        for of in found.classifiers
        for split in SPLITS
        if split in of.splits
    ]


def _columns(lines: Sequence[dict[str, Value]]) -> list[Column]:
    return [Column(name, [line[name] for line in lines]) for name in (lines[0] if lines else ())]


def _percent(of: Sensitivity | None) -> str:
    if of is None:
        return ""
    low, high = of.interval.low, of.interval.high
    return f"{100 * of.share:.0f} [{100 * low:.0f}, {100 * high:.0f}]"

"""The tables of a probe."""

from __future__ import annotations

from collections.abc import Sequence

from spurbench.core import markdown
from spurbench.images.records import SPLITS, Split
from spurbench.studies.probe.edits import ASPECTS
from spurbench.studies.probe.results import ClassifierProbe, Probe, Sensitivity, SplitProbe
from spurbench.studies.report.table import Column, Shown, Table, Value


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
    cells: dict[tuple[str, Split, str, int | None], str] = {}
    for of, split, part in _parts(found):
        for aspect in ASPECTS:
            cells[of.label, split, aspect, None] = _percent(getattr(part.aspects, aspect))
        for own in part.classes:
            names[own.index] = own.name
            for aspect in ASPECTS:
                share: Sensitivity | None = getattr(own.aspects, aspect)
                cells[of.label, split, aspect, own.index] = _percent(share)
                lines.append(
                    {
                        "classifier": of.label,
                        "split": split,
                        "class_index": own.index,
                        "class_name": own.name,
                        "aspect": aspect,
                        "sensitivity": share.share if share else None,
                        "low": share.interval.low if share else None,
                        "high": share.interval.high if share else None,
                    }
                )
    order = sorted(names)
    shown = [Shown("class", [*(names[index] for index in order), "mean"])]
    for of, split, _ in _parts(found):
        shown += [
            Shown(
                aspect,
                [cells.get((of.label, split, aspect, index), "") for index in (*order, None)],
                f"{of.label}, {split}",
            )
            for aspect in ASPECTS
        ]
    return Table(
        "probe-classes",
        "What answers hang on: colour, shape or texture, by class and classifier",
        _columns(lines),
        shown,
        [
            "Per cent of an aspect's edits of the whole image that change the answer, mean over "
            "the images called their class as they are, with 95 % bootstrap intervals. How strong "
            "edits are is a choice, so compare classifiers and classes, not aspects.",
        ],
    )


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
    return f"{100 * of.share:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

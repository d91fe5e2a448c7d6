"""Boards as Markdown, CSV and tables for the terminal."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spurbench.classifiers.info import Preprocessing
from spurbench.core import atomic, markdown
from spurbench.evaluation.display import UNMEASURED
from spurbench.evaluation.results import Interval, SignedInterval, Summary
from spurbench.images.records import SPLITS, Split
from spurbench.leaderboard.boards import Board, Row
from spurbench.leaderboard.entries import file_name
from spurbench.leaderboard.fitted import Column, FittedTable

SUMMARY_COLUMNS = {
    "n": "n",
    "classes": "classes",
    "generators": "generators",
    "spurious_accuracy": "spurious_accuracy",
    "spurious_accuracy_low": "spurious_accuracy_interval.low",
    "spurious_accuracy_high": "spurious_accuracy_interval.high",
    "recognition": "recognition.accuracy",
    "recognition_low": "recognition.interval.low",
    "recognition_high": "recognition.interval.high",
    "chance": "chance",
    "auroc": "recognition.auroc",
    "auroc_low": "recognition.auroc_interval.low",
    "auroc_high": "recognition.auroc_interval.high",
    "average_precision": "recognition.average_precision",
    "effect": "effect.effect",
    "effect_low": "effect.interval.low",
    "effect_high": "effect.interval.high",
    "effect_p_value": "effect.p_value",
    "effect_pairs": "effect.pairs",
    "with_references": "with_references.share",
    "object_seen": "object_seen.share",
    "top5": "top5",
    "mean_probability": "mean_probability",
    "worst_class": "worst_class",
    "worst_class_spurious_accuracy": "worst_class_spurious_accuracy",
    "worst_class_n": "worst_class_n",
}
"""Columns of the CSV for each split, after ``real_`` and ``generated_``: where each is found."""

LEGEND = """\
Shares are in percent, in brackets: 95 % intervals. *Real*, *generated*: spurious accuracy, how many
of the images that show the spurious feature and not the class the classifier calls the class,
averaged over the classes. **Lower is better**, of a classifier that recognises the classes:
*recognition* is how many of the images that do show the class it calls so, *AUROC* how surely
p(class) tells these from the spurious ones (0.5: not at all). *Effect*: spurious accuracy minus
that on the same images without the feature, in percentage points: what the feature adds. *Tied*:
the ranks of a group whose members a paired test can't tell from its first (McNemar's exact test on
the same images, Holm-corrected over all pairs, 5 %); the order within a group may be chance. *Gap*:
generated minus real, in percentage points, over the classes that both have. *Mean p*: mean softmax
probability of the class. *Worst class*: its spurious accuracy and images. *Preprocessing*: whole
(the whole image is resized) or the classifier's own, the resized size, the crop where it differs,
and the interpolation. *Mended from*: what `spurbench mend` made a classifier of, where that is on
the board too. Classifiers that made or chose the images or were mended with them, and those that
recognise no more than chance or whose recognition was not measured, are not ranked.
"""


def to_markdown(boards: Sequence[Board], introduction: str = "") -> str:
    """One page: the legend, then a heading and a table per board."""
    sections = [f"## {markdown.escape(board.title)}\n\n{_section(board)}" for board in boards]
    opening = [f"{introduction}\n"] if introduction else []
    return "\n".join(["# Leaderboards\n", *opening, LEGEND, *sections])


def to_csv(board: Board) -> str:
    """One line per row; shares are fractions in [0, 1], an unknown value is empty."""
    return csv_text(_record(board, row) for row in board.rows)


def csv_text(records: Iterable[Mapping[str, str | float | None]]) -> str:
    """Records, at least one and all of the same keys in the same order, as CSV under them."""
    first, *others = records
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(first)
    writer.writerows(record.values() for record in (first, *others))
    return buffer.getvalue()


def to_table(board: Board, limit: int | None = None) -> FittedTable:
    """The board for the terminal, without the columns that nobody has values in.

    Args:
        board: to show.
        limit: rows, the best; None shows all.
    """
    rows = board.rows[:limit]
    reasons: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        # A sentence above the table says it of all.
        if row.unranked and not (board.no_ranks and row.unranked == UNMEASURED):
            reasons[row.unranked].append(row.label)
    notes = [f"Not ranked ({reason}): {', '.join(labels)}" for reason, labels in reasons.items()]
    if len(rows) < len(board.rows):
        notes.append(f"{len(rows)} of {len(board.rows)} classifiers.")
    lines = [_cells(board, row) for row in rows]
    columns = [
        Column(
            heading,
            [line[heading] for line in lines],
            alignment,
            0 if heading == board.ranked_by else IMPORTANCE[heading],
            name=heading == "classifier",
        )
        for heading, alignment in _columns(board)
        if heading in IMPORTANCE
    ]
    return FittedTable(
        title=f"{board.title} (lower is better)",
        columns=[column for column in columns if {*column.cells} != {"–"}],
        lead=board.no_ranks or "",
        notes=[*notes, board.covers],
    )


def to_document(board: Board, limit: int | None = None) -> dict[str, Any]:
    """The board as JSON: what it is, and the rows of its CSV.

    Args:
        board: to write.
        limit: see :func:`to_table`.
    """
    return {
        "title": board.title,
        "name": board.name,
        "version": board.version,
        "config": board.config,
        "protocol": board.protocol,
        "kind": board.kind,
        "images": dict(board.fingerprints),
        "ranked_by": board.ranked_by,
        "generators": board.generators,
        "covers": board.covers,
        "no_ranks": board.no_ranks,
        "untested": board.untested,
        "classifiers": len(board.rows),
        "rows": [_record(board, row) for row in board.rows[:limit]],
    }


def percent(share: float, interval: Interval) -> str:
    """A share and its interval, in percent."""
    return f"{100 * share:.1f} {_brackets(interval)}"


def _brackets(interval: Interval | SignedInterval, digits: str = ".1f", scale: int = 100) -> str:
    """An interval, in percent unless its ``scale`` is another."""
    return f"[{scale * interval.low:{digits}}, {scale * interval.high:{digits}}]"


def ranks(tied: tuple[int, int] | None) -> str:
    """The ranks of a tie group."""
    if tied is None:
        return "–"
    first, last = tied
    return str(first) if first == last else f"{first}–{last}"


def write(
    boards: Sequence[Board], output: Path, *, introduction: str = "", appendix: str = ""
) -> list[Path]:
    """Write ``NAME-VERSION.md`` and ``.csv`` for each board, and the page of all, ``README.md``.

    Files of boards that are not among these are left alone.

    Args:
        boards: to write.
        output: folder.
        introduction: Markdown at the head of ``README.md``.
        appendix: Markdown below its tables.

    Returns:
        The files written, ``README.md`` last.
    """
    stems = file_stems(boards)
    written = []
    for board, stem in zip(boards, stems, strict=True):
        heading = f"# {markdown.escape(board.title)}\n\n{LEGEND}\n"
        page = f"{heading}{_section(board)}\n{_class_section(board)}"
        for suffix, text in ((".md", page), (".csv", to_csv(board))):
            # Not with_suffix, which would take the last part of a version for one.
            written.append(output / f"{stem}{suffix}")
            atomic.write_text(written[-1], text)
    links = [
        f"- {markdown.escape(board.title)}: [page]({stem}.md), [CSV]({stem}.csv)\n"
        for board, stem in zip(boards, stems, strict=True)
    ]
    written.append(output / "README.md")
    page = to_markdown(boards, introduction)
    atomic.write_text(written[-1], f"{page}{appendix}\n## Files\n\n{''.join(links)}")
    return written


def _section(board: Board) -> str:
    images = "; ".join(
        f"{splits.replace('+', ' and ')} `{fingerprint[:12]}`"
        for splits, fingerprint in sorted(board.fingerprints.items())
    )
    lines = [_cells(board, row) for row in board.rows]
    columns = [
        (heading, alignment)
        for heading, alignment in _columns(board)
        if heading not in SPARSE or any(line[heading] != "–" for line in lines)
    ]
    header, alignments = zip(*columns, strict=True)
    rows = [[markdown.escape(line[heading]) for heading in header] for line in lines]
    order = "Ranked by" if board.no_ranks is None else f"{board.no_ranks} In the order of"
    return (
        f"{order} the {board.ranked_by} images; what is not of real and generated ones apart is "
        f"theirs too. {board.covers} Images: {images}.{_untested(board)}\n\n"
        f"{markdown.table(header, alignments, rows)}"
    )


def _untested(board: Board) -> str:
    return f" No tie groups: {markdown.escape(board.untested)}." if board.untested else ""


def _class_section(board: Board) -> str:
    """Each class's shares of the split that ranks."""
    rows = [row for row in board.rows if board.ranked_by in row.splits]
    names: dict[int, str] = {}
    shares: dict[tuple[int, int], str] = {}
    for position, row in enumerate(rows):
        for c in row.splits[board.ranked_by].classes:
            feature = f" ({c.spurious_feature})" if c.spurious_feature else ""
            names[c.index] = markdown.escape(f"{c.name}{feature}")
            share = percent(c.spurious_accuracy, c.spurious_accuracy_interval)
            # Numbers have nothing else to escape, and there are very many.
            shares[position, c.index] = share.replace("[", r"\[").replace("]", r"\]")
    table = markdown.table(
        ["class", *(markdown.escape(row.label) for row in rows)],
        markdown.first_left(1 + len(rows)),
        [
            [names[index], *(shares.get((position, index), "–") for position in range(len(rows)))]
            for index in sorted(names)
        ],
    )
    return f"## By class, {board.ranked_by} images\n\nIn brackets: Wilson intervals.\n\n{table}"


IMPORTANCE = {
    "#": 0,
    "tied": 4,
    "classifier": 0,
    "generated": 5,
    "real": 5,
    "recognition": 1,
    "effect": 2,
    "AUROC": 3,
    "worst class": 6,
    "measured": 7,
    "gap": 8,
    "preprocessing": 9,
    "mean p": 10,
    "n": 11,
}
"""Of the columns on the terminal; see :class:`spurbench.leaderboard.fitted.Column`."""

SPARSE = {"#", "recognition", "AUROC", "effect", "gap", "mended from", "not ranked"}
"""Columns that are not there where nobody has a value."""


def _columns(board: Board) -> list[tuple[str, markdown.Alignment]]:
    ties: list[tuple[str, markdown.Alignment]] = [("tied", "right")] if board.p_values else []
    return [
        ("#", "right"),
        *ties,
        ("classifier", "left"),
        ("architecture", "left"),
        ("recognition", "right"),
        ("AUROC", "right"),
        ("real", "right"),
        ("generated", "right"),
        ("effect", "right"),
        ("gap", "right"),
        ("mean p", "right"),
        ("worst class", "left"),
        ("n", "right"),
        ("preprocessing", "left"),
        ("measured", "left"),
        ("mended from", "left"),
        ("not ranked", "left"),
    ]


def _cells(board: Board, row: Row) -> dict[str, str]:
    """A row as text for people, by heading."""
    # What did not measure the split that ranks says what it can of the other.
    part = row.splits.get(board.ranked_by) or next(iter(row.splits.values()))
    return {
        "#": "–" if row.rank is None else str(row.rank),
        "tied": ranks(row.tied),
        "classifier": row.label,
        "architecture": row.classifier.architecture,
        **in_words(part.summary),
        "real": _share(row, "real"),
        "generated": _share(row, "generated"),
        "gap": "–" if row.gap is None else f"{100 * row.gap:+.1f}",
        "n": " / ".join(str(row.splits[s].summary.n) for s in SPLITS if s in row.splits),
        "preprocessing": describe(row.preprocessing),
        "measured": row.created[:10],
        "mended from": "–" if (base := board.base_of(row)) is None else base.label,
        "not ranked": row.unranked or "–",
    }


def in_words(summary: Summary) -> dict[str, str]:
    """A split's numbers as text for people, by heading; what was not measured is a dash."""
    shown, effect = summary.recognition, summary.effect
    worst = f"{100 * summary.worst_class_spurious_accuracy:.1f}, n {summary.worst_class_n}"
    return {
        "spurious accuracy": percent(summary.spurious_accuracy, summary.spurious_accuracy_interval),
        "recognition": percent(shown.accuracy, shown.interval) if shown else "–",
        "AUROC": f"{shown.auroc:.3f} {_brackets(shown.auroc_interval, '.3f', 1)}" if shown else "–",
        "effect": f"{100 * effect.effect:+.1f} {_brackets(effect.interval, '+.1f')}"
        if effect
        else "–",
        "mean p": f"{summary.mean_probability:.3f}",
        # Of classes that are never answered none is the worst.
        "worst class": f"{summary.worst_class} ({worst})"
        if summary.worst_class_spurious_accuracy
        else "–",
    }


def _share(row: Row, split: Split) -> str:
    if split not in row.splits:
        return "–"
    summary = row.splits[split].summary
    return percent(summary.spurious_accuracy, summary.spurious_accuracy_interval)


def describe(preprocessing: Preprocessing) -> str:
    """How images were resized and cropped, in a few words."""

    def size(sides: tuple[int, ...]) -> str:
        return "x".join(map(str, sides if len(set(sides)) > 1 else sides[:1]))

    if preprocessing.crop is None:
        return f"{preprocessing.mode}: its own processor"
    resize, crop = size(preprocessing.resize), size(preprocessing.crop)
    if preprocessing.transform is not None:
        return f"{preprocessing.mode}: {crop}, a transform of its own"
    sizes = resize if resize == crop else f"{resize}, crop {crop}"
    return f"{preprocessing.mode}: {sizes}, {preprocessing.interpolation}"


def _record(board: Board, row: Row) -> dict[str, str | float | None]:
    info = row.classifier
    record: dict[str, str | float | None] = {
        "rank": row.rank,
        "tied_first": row.tied[0] if row.tied else None,
        "tied_last": row.tied[1] if row.tied else None,
        "unranked": row.unranked,
        "classifier": row.label,
        "source": info.source,
        "architecture": info.architecture,
        "family": info.family,
        "training_data": info.training_data,
        "parameters": info.parameters,
        "head": info.head,
        "weights_sha256": info.weights_sha256,
        "preprocessing": describe(row.preprocessing),
        "dataset": board.name,
        "dataset_version": board.version,
        "config": board.config,
        "protocol": board.protocol,
        "role": row.role,
        "created": row.created,
        "gap": row.gap,
    }
    for split in SPLITS:
        summary = row.splits[split].summary if split in row.splits else None
        record |= {
            f"{split}_{column}": _at(summary, path) for column, path in SUMMARY_COLUMNS.items()
        }
    return record


def _at(document: Any, path: str) -> Any:
    """What a document holds at a dotted path; None where a part of it is not there."""
    for key in path.split("."):
        document = None if document is None else getattr(document, key)
    return document


def file_stems(boards: Sequence[Board]) -> list[str]:
    """File names: ``NAME-VERSION``; the images' key stands in for a version or tells two apart."""
    stems = [
        file_name("-".join((board.name, board.version or board.identity, *board.variant)))
        for board in boards
    ]
    counts = Counter(stem.lower() for stem in stems)
    return [
        f"{stem}-{board.identity}" if counts[stem.lower()] > 1 else stem
        for board, stem in zip(boards, stems, strict=True)
    ]

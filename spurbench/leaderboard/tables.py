"""Boards as Markdown, CSV and tables for the terminal."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.classifiers.info import Preprocessing
from spurbench.core import atomic, markdown
from spurbench.evaluation.results import Interval
from spurbench.images.records import SPLITS, Split
from spurbench.leaderboard.boards import Board, Row
from spurbench.leaderboard.entries import file_name

if TYPE_CHECKING:
    from rich.table import Table

SUMMARY_COLUMNS = (
    "n",
    "classes",
    "spurious_accuracy",
    "spurious_accuracy_low",
    "spurious_accuracy_high",
    "top5",
    "mean_probability",
    "worst_class",
    "worst_class_spurious_accuracy",
    "auroc",
    "average_precision",
)
"""Columns of the CSV for each split, after ``real_`` and ``generated_``."""


LEGEND = """\
Shares are in percent, of images that show the spurious feature and not the class: how many the
classifier calls the class, averaged over the classes. **Lower is better.** In brackets: the 95 %
bootstrap interval over images. *Tied*: the ranks of a group whose members a paired test can't tell
from its first (McNemar's exact test on the same images, Holm-corrected over all pairs, 5 %); the
order within a group may be chance. *Gap*: generated minus real, in percentage points, over the
classes that both have. *Mean p*: mean softmax probability of the class. *Preprocessing*: whole (the
whole image is resized) or the classifier's own, the resized size, the crop where it differs, and
the interpolation.
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
    """Records, at least one, as CSV under their keys."""
    first, *others = records
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(first), lineterminator="\n")
    writer.writeheader()
    writer.writerows([first, *others])
    return buffer.getvalue()


def to_table(board: Board) -> Table:
    """The board for the terminal, without the columns that nobody has values in."""
    from rich.table import Table
    from rich.text import Text

    rows = [_cells(board, row) for row in board.rows]
    table = Table(
        title=Text(f"{markdown.plain(board.title)} (lower is better)"), title_justify="left"
    )
    shown = []
    for position, (heading, alignment) in enumerate(_columns(board)):
        # Lines are short here, and the classifier's name mostly tells its architecture.
        if heading != "architecture" and any(row[position] != "–" for row in rows):
            table.add_column(heading, justify=alignment)
            shown.append(position)
    for row in rows:
        # Text, not str: names from outside may hold what rich would take for markup.
        table.add_row(*(Text(markdown.plain(row[position])) for position in shown))
    return table


def percent(share: float, interval: Interval) -> str:
    """A share and its interval, in percent."""
    return f"{100 * share:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


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
    header, alignments = zip(*_columns(board), strict=True)
    rows = [[markdown.escape(cell) for cell in _cells(board, row)] for row in board.rows]
    return (
        f"Ranked by the {board.ranked_by} images; mean p, worst class and scores are theirs too. "
        f"Images: {images}.{_untested(board)}\n\n{markdown.table(header, alignments, rows)}"
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
            shares[position, c.index] = markdown.escape(
                percent(c.spurious_accuracy, c.spurious_accuracy_interval)
            )
    table = markdown.table(
        ["class", *(markdown.escape(row.label) for row in rows)],
        markdown.first_left(1 + len(rows)),
        [
            [names[index], *(shares.get((position, index), "–") for position in range(len(rows)))]
            for index in sorted(names)
        ],
    )
    return f"## By class, {board.ranked_by} images\n\nIn brackets: Wilson intervals.\n\n{table}"


def _columns(board: Board) -> list[tuple[str, markdown.Alignment]]:
    ties: list[tuple[str, markdown.Alignment]] = [("tied", "right")] if board.p_values else []
    columns: list[tuple[str, markdown.Alignment]] = [
        ("#", "right"),
        *ties,
        ("classifier", "left"),
        ("architecture", "left"),
        ("real", "right"),
        ("generated", "right"),
        ("gap", "right"),
        ("mean p", "right"),
        ("worst class", "left"),
        ("n real", "right"),
        ("n generated", "right"),
        ("preprocessing", "left"),
    ]
    if _has_scores(board):
        columns += [("AUROC", "right"), ("AP", "right")]
    return columns


def _cells(board: Board, row: Row) -> list[str]:
    """A row as text for people, in the order of :func:`_columns`."""
    if board.ranked_by in row.splits:
        ranking = row.splits[board.ranked_by].summary
        worst = f"{ranking.worst_class} ({100 * ranking.worst_class_spurious_accuracy:.1f})"
        mean_probability = f"{ranking.mean_probability:.3f}"
        shown = ranking.recognition
        both = (shown.auroc, shown.average_precision) if shown else (None, None)
        scores = [_score(value) for value in both]
    else:
        worst, mean_probability, scores = "–", "–", ["–", "–"]
    return [
        "–" if row.rank is None else str(row.rank),
        *([ranks(row.tied)] if board.p_values else []),
        row.label,
        row.classifier.architecture,
        *(_share(row, split) for split in SPLITS),
        "–" if row.gap is None else f"{100 * row.gap:+.1f}",
        mean_probability,
        worst,
        *(str(row.splits[s].summary.n) if s in row.splits else "–" for s in SPLITS),
        describe(row.preprocessing),
        *(scores if _has_scores(board) else []),
    ]


def _has_scores(board: Board) -> bool:
    return any(
        row.splits[board.ranked_by].summary.recognition is not None
        for row in board.rows
        if board.ranked_by in row.splits
    )


def _share(row: Row, split: Split) -> str:
    if split not in row.splits:
        return "–"
    summary = row.splits[split].summary
    return percent(summary.spurious_accuracy, summary.spurious_accuracy_interval)


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def describe(preprocessing: Preprocessing) -> str:
    """How images were resized and cropped, in a few words."""

    def size(sides: tuple[int, ...]) -> str:
        return "x".join(map(str, sides if len(set(sides)) > 1 else sides[:1]))

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
        "gap": row.gap,
    }
    for split in SPLITS:
        values = row.splits[split].summary.model_dump() if split in row.splits else {}
        interval = values.pop("spurious_accuracy_interval", {})
        shown = values.pop("recognition", None) or {}
        values |= {score: shown.get(score) for score in ("auroc", "average_precision")}
        values |= {f"spurious_accuracy_{end}": value for end, value in interval.items()}
        record |= {f"{split}_{column}": values.get(column) for column in SUMMARY_COLUMNS}
    return record


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

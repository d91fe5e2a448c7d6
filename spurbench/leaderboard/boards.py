"""Entries to leaderboards: ranks and ties, as Markdown, CSV and a table for the terminal.

A lower spurious accuracy is better. Only entries on the same images share a table.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spurbench.core import atomic, markdown
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation import paired
from spurbench.evaluation.results import Interval, Preprocessing, Split, SplitResult
from spurbench.leaderboard import entries
from spurbench.leaderboard.entries import ClassAnswers, Entry, EntryClassifier

if TYPE_CHECKING:
    from rich.table import Table

log = logging.getLogger(__name__)

SPLITS: tuple[Split, ...] = ("real", "generated")

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


@dataclass(frozen=True)
class Row:
    """One classifier, with one preprocessing, on the images of a board.

    Attributes:
        label: the classifier's name, with its checkpoint where it was given one; unique on its
            board together with the preprocessing.
        answers: to each image, of the splits where they are known.
        rank: 1 is best, equal values share a rank; None if the split that ranks was not measured.
        tied: first and last rank of its tie group; None if that is not known.
    """

    label: str
    classifier: EntryClassifier
    preprocessing: Preprocessing
    splits: Mapping[Split, SplitResult]
    answers: Mapping[Split, Sequence[ClassAnswers]]
    rank: int | None = None
    tied: tuple[int, int] | None = None

    @property
    def gap(self) -> float | None:
        """Generated minus real spurious accuracy, in [-1, 1]: the mean over shared classes."""
        if len(self.splits) < len(SPLITS):
            return None
        real, generated = (
            {c.index: c.spurious_accuracy for c in self.splits[split].classes} for split in SPLITS
        )
        shared = real.keys() & generated.keys()
        return float(np.mean([generated[i] - real[i] for i in sorted(shared)])) if shared else None


@dataclass(frozen=True)
class Board:
    """The classifiers measured on one dataset, best first.

    Attributes:
        name: of the dataset.
        version: of the dataset, where it has one.
        fingerprints: identity of the images, by the splits measured together, such as
            ``real+generated``.
        ranked_by: ``generated``, or ``real`` where no row has generated images.
        rows: best first; those without the split that ranks come last.
        p_values: of the paired tests between ranked rows, in their order, adjusted; empty where
            there are no tests.
        untested: why there are none.
    """

    name: str
    version: str | None
    fingerprints: Mapping[str, str]
    ranked_by: Split
    rows: tuple[Row, ...]
    p_values: tuple[tuple[float, ...], ...] = ()
    untested: str | None = None

    @property
    def title(self) -> str:
        """Name and version, or the images' key where there is no version."""
        return f"{self.name} {self.version or self.identity}"

    @property
    def identity(self) -> str:
        """A short key of the images."""
        widest = max(self.fingerprints, key=len)
        return self.fingerprints[widest][:12]


def read(paths: Sequence[Path]) -> list[Entry]:
    """Read result JSONs, with the parquet beside each, and entries; at least one.

    Args:
        paths: files or folders; see :func:`spurbench.leaderboard.entries.read_all`.

    Raises:
        SpurbenchError: if a path is missing, a file is damaged or of an unknown schema version, or
            there is none at all.
    """
    found = entries.read_all(list(paths))
    if not found:
        searched = ", ".join(map(str, paths))
        raise SpurbenchError(f"no results in {searched}; `spurbench eval` writes them")
    return list(found.values())


def boards(results: Sequence[Entry]) -> list[Board]:
    """Sort entries into boards, one per dataset version, by name and version.

    Results of one classifier on the splits of one dataset are joined into a row. Where results that
    claim the same name and version were measured on different images, each set of images gets a
    board of its own, which is said. A dataset without a version is known by its images alone.

    Raises:
        SpurbenchError: if two results of one classifier on the same images disagree.
    """
    datasets: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for result in results:
        info = result.dataset
        datasets[(info.name, info.version) if info.version else (info.fingerprint,)].append(result)
    made = []
    for group in datasets.values():
        parts = [group] if _same_images(group) else _by_fingerprint(group)
        made += [_board(part) for part in parts]
        if len(parts) > 1:
            log.warning(
                "%s: results are of %d different sets of images under one version; each set has "
                "its own table",
                made[-1].title,
                len(parts),
            )
    return sorted(made, key=lambda board: (board.name, _version_key(board.version)))


def to_markdown(boards: Sequence[Board], introduction: str = "") -> str:
    """One page: the legend, then a heading and a table per board."""
    sections = [f"## {markdown.escape(board.title)}\n\n{_section(board)}" for board in boards]
    opening = [f"{introduction}\n"] if introduction else []
    return "\n".join(["# Leaderboards\n", *opening, LEGEND, *sections])


def to_csv(board: Board) -> str:
    """One line per row; shares are fractions in [0, 1], an unknown value is empty."""
    buffer = io.StringIO()
    records = [_record(board, row) for row in board.rows]
    writer = csv.DictWriter(buffer, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
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


def _version_key(version: str | None) -> tuple[tuple[int, str], ...]:
    """1.10.0 after 1.9.0."""
    parts = (version or "").split(".")
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def _split_set(result: Entry) -> str:
    return "+".join(split for split in SPLITS if split in result.splits)


def _same_images(results: Sequence[Entry]) -> bool:
    """Whether nothing tells apart the images of the splits that results share.

    A fingerprint covers the splits measured together, so it can only be compared between results of
    the same splits; for the others the number of images in each class must agree.
    """
    fingerprints: dict[str, str] = {}
    counts: dict[Split, dict[int, int]] = {}
    for result in results:
        mine = result.dataset.fingerprint
        if fingerprints.setdefault(_split_set(result), mine) != mine:
            return False
        for split, measured in result.splits.items():
            count = {c.index: c.n for c in measured.classes}
            if counts.setdefault(split, count) != count:
                return False
    return True


def _by_fingerprint(results: Sequence[Entry]) -> list[list[Entry]]:
    parts: dict[str, list[Entry]] = defaultdict(list)
    for result in results:
        parts[result.dataset.fingerprint].append(result)
    return [parts[fingerprint] for fingerprint in sorted(parts)]


def _board(results: Sequence[Entry]) -> Board:
    groups: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for result in results:
        info = result.classifier
        key = (info.name, info.weights_sha256, result.preprocessing.model_dump_json())
        groups[key].append(result)
    rows = _with_unique_labels([_join(group) for group in groups.values()])
    ranked_by: Split = "generated" if any("generated" in row.splits for row in rows) else "real"
    board = Board(
        name=min(result.dataset.name for result in results),
        version=results[0].dataset.version,
        fingerprints={_split_set(r): r.dataset.fingerprint for r in results},
        ranked_by=ranked_by,
        rows=_ranked(rows, ranked_by),
    )
    return _with_ties(board)


def _join(results: Sequence[Entry]) -> Row:
    """One row from the results of one classifier: its splits, each known once."""
    first = results[0]
    splits: dict[Split, SplitResult] = {}
    answers: dict[Split, Sequence[ClassAnswers]] = {}
    created: dict[Split, str] = {}
    for result in results:
        for split, measured in result.splits.items():
            if splits.setdefault(split, measured) != measured:
                raise SpurbenchError(
                    f"two results of {first.classifier.name} on {first.dataset.name} disagree on "
                    f"split {split} (made {created[split]} and {result.created}); keep one"
                )
            created.setdefault(split, result.created)
        answers |= result.answers
    info = first.classifier
    label = f"{info.name} + {info.checkpoint}" if info.checkpoint else info.name
    return Row(label, info, first.preprocessing, splits, answers)


def _with_unique_labels(rows: Sequence[Row]) -> list[Row]:
    """Other weights under one name are told apart by their hash."""
    counts = Counter((row.label, row.preprocessing) for row in rows)
    return [
        replace(row, label=f"{row.label} @{row.classifier.weights_sha256[:8]}")
        if counts[row.label, row.preprocessing] > 1
        else row
        for row in rows
    ]


def _ranked(rows: Sequence[Row], split: Split) -> tuple[Row, ...]:
    # Rounded, so that equal shares added up in another order share a rank.
    values = {
        id(row): round(row.splits[split].summary.spurious_accuracy, 9)
        for row in rows
        if split in row.splits
    }
    ordered = sorted(rows, key=lambda row: (values.get(id(row), 2.0), row.label.lower(), row.label))
    return tuple(
        replace(row, rank=1 + sum(value < values[id(row)] for value in values.values()))
        if id(row) in values
        else row
        for row in ordered
    )


def _with_ties(board: Board) -> Board:
    """The board with its tie groups, if every ranked row's answers to the same images are known."""
    ranked = [row for row in board.rows if row.rank is not None]
    unknown = [row.label for row in ranked if board.ranked_by not in row.answers]
    if unknown:
        reason = f"the answers to each image are not known of {', '.join(unknown)}"
        return replace(board, untested=reason)
    answers = [row.answers[board.ranked_by] for row in ranked]
    if len({tuple((a.index, a.images) for a in own) for own in answers}) > 1:
        return replace(board, untested="the answers are not to the same images")
    fooled = np.stack([np.concatenate([a.fooled for a in own]) for own in answers])
    p_values = paired.pairwise(fooled)
    leaders = paired.tie_groups(p_values)
    ranks: dict[int, list[int]] = defaultdict(list)
    for row, leader in zip(ranked, leaders, strict=True):
        assert row.rank is not None
        ranks[leader].append(row.rank)
    rows = [
        replace(row, tied=(min(ranks[leader]), max(ranks[leader])))
        for row, leader in zip(ranked, leaders, strict=True)
    ]
    return replace(
        board,
        rows=(*rows, *board.rows[len(ranked) :]),
        p_values=tuple(tuple(line) for line in p_values.tolist()),
    )


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
        scores = [_score(ranking.auroc), _score(ranking.average_precision)]
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
        row.splits[board.ranked_by].summary.auroc is not None
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
        values |= {f"spurious_accuracy_{end}": value for end, value in interval.items()}
        record |= {f"{split}_{column}": values.get(column) for column in SUMMARY_COLUMNS}
    return record


def file_stems(boards: Sequence[Board]) -> list[str]:
    """File names: ``NAME-VERSION``; the images' key stands in for a version or tells two apart."""
    stems = [file_name(f"{board.name}-{board.version or board.identity}") for board in boards]
    counts = Counter(stem.lower() for stem in stems)
    return [
        f"{stem}-{board.identity}" if counts[stem.lower()] > 1 else stem
        for board, stem in zip(boards, stems, strict=True)
    ]


def file_name(text: str) -> str:
    """A harmless file name that resembles a text."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip(".-")

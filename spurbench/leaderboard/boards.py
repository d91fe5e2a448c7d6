"""Entries to boards: who is ranked, in which order, and who is tied.

A lower spurious accuracy is better. Only entries on the same images, asked in the same way, share a
board.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from spurbench.classifiers.info import Preprocessing, display_name
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.core.markdown import plain
from spurbench.evaluation import paired
from spurbench.evaluation.display import UNMEASURED
from spurbench.evaluation.results import Protocol, Result, SplitResult
from spurbench.images.records import SPLITS, Config, Role, Split
from spurbench.leaderboard import entries
from spurbench.leaderboard.answers import Answers
from spurbench.leaderboard.entries import Entry, EntryClassifier, file_name

log = logging.getLogger(__name__)

Kind = Literal["classifiers", "yes/no"]
"""``yes/no``: image-text models, whose spurious accuracy is a share of yes."""

PARTS: Mapping[Role, str] = {
    "phi": "phi: chose and made the images",
    "panel": "panel: chose the images",
}
"""Why a classifier that had a part in making the images is not ranked by them."""

NO_BETTER = "recognises no more than chance"

MENDED = "mended: trained on images of this dataset"


@dataclass(frozen=True)
class Row:
    """One classifier, with one preprocessing, on the images of a board.

    Attributes:
        label: the classifier's name, with its checkpoint where it was given one; unique on its
            board together with the preprocessing.
        role: its part in making the dataset, if it had one.
        answers: to each image, of the sources where they are known.
        mended_here: whether what is not the class was taught it with images of the dataset.
        created: when it was measured (the latest of its entries), UTC, ISO 8601.
        files: where its entries are published, ``FOLDER/NAME.json``.
        rank: 1 is best, equal values share a rank; None if it is not ranked.
        unranked: why not; None if it is.
        tied: first and last rank of its tie group; None if that is not known.
    """

    label: str
    classifier: EntryClassifier
    role: Role | None
    preprocessing: Preprocessing
    splits: Mapping[Split, SplitResult]
    answers: Answers
    mended_here: bool
    created: str
    files: tuple[str, ...]
    rank: int | None = None
    unranked: str | None = None
    tied: tuple[int, int] | None = None

    @cached_property
    def key(self) -> str:
        """Its name for links: the same whatever else is on the board."""
        identity = [self.classifier.weights_sha256, self.preprocessing.model_dump(mode="json")]
        return f"{file_name(self.classifier.name)}-{fingerprint(identity)[:8]}"

    @cached_property
    def gap(self) -> float | None:
        """Generated minus real spurious accuracy, in [-1, 1]: the mean over shared classes."""
        if len(self.splits) < len(SPLITS):
            return None
        real, generated = (
            {c.index: c.spurious_accuracy for c in self.splits[split].classes} for split in SPLITS
        )
        shared = real.keys() & generated.keys()
        return float(np.mean([generated[i] - real[i] for i in sorted(shared)])) if shared else None


@dataclass(frozen=True, repr=False)
class Board:
    """The classifiers measured on one dataset, best first.

    Attributes:
        name: of the dataset.
        version: of the dataset, where it has one.
        config: of the dataset.
        protocol: how images were shown.
        kind: what was asked.
        fingerprints: identity of the images, by the splits measured together, such as
            ``real+generated``.
        ranked_by: ``generated``, or ``real`` where no row has generated images.
        rows: lowest spurious accuracy first; those that are not ranked come last.
        p_values: of the paired tests between ranked rows, in their order, adjusted; empty where
            there are no tests.
        untested: why there are none.
        namesake: whether another board is of other images under the same name.
    """

    name: str
    version: str | None
    config: Config
    protocol: Protocol
    kind: Kind
    fingerprints: Mapping[str, str]
    ranked_by: Split
    rows: tuple[Row, ...]
    p_values: tuple[tuple[float, ...], ...] = ()
    untested: str | None = None
    namesake: bool = False

    def __repr__(self) -> str:
        ranked = [row.label for row in self.rows if row.rank == 1]
        first = f", first {' and '.join(ranked)}" if ranked else ", nobody ranked"
        return f"<Board: {plain(self.title)}, {len(self.rows)} classifiers{plain(first)}>"

    @property
    def title(self) -> str:
        """Name and version, what else sets it apart, and the images' key where that is needed."""
        version = f" {self.version}" if self.version else ""
        key = f" ({self.identity})" if self.namesake else ""
        return f"{self.name}{version}{key}{''.join(f', {word}' for word in self.variant)}"

    @property
    def variant(self) -> tuple[str, ...]:
        """What is not as usual: config, protocol, kind."""
        usual = {"default", "spurbench", "classifiers"}
        return tuple(word for word in (self.config, self.protocol, self.kind) if word not in usual)

    @property
    def identity(self) -> str:
        """A short key of the images."""
        widest = max(self.fingerprints, key=len)
        return self.fingerprints[widest][:12]

    @property
    def no_ranks(self) -> str | None:
        """Why nobody is ranked, in a sentence; None if somebody is."""
        if any(row.rank is not None for row in self.rows):
            return None
        if any(row.unranked == UNMEASURED for row in self.rows):
            return (
                "Nobody is ranked, for an untrained network would lead: how well each recognises "
                "the classes was not measured, which `spurbench eval --positives` does."
            )
        return "Nobody is ranked, for the reasons given."

    @property
    def generators(self) -> int:
        """How many independently made each class's images of the split that ranks; 0: none."""
        return min(
            (
                row.splits[self.ranked_by].summary.generators
                for row in self.rows
                if self.ranked_by in row.splits
            ),
            default=0,
        )

    def base_of(self, row: Row) -> Row | None:
        """The row of what a mended classifier was before, with the same preprocessing."""
        if row.classifier.mended is None:
            return None
        wanted = row.classifier.mended.base, row.preprocessing
        for other in self.rows:
            if (other.classifier.weights_sha256, other.preprocessing) == wanted:
                return other
        return None

    @property
    def covers(self) -> str:
        """What an interval covers, in a sentence."""
        if self.generators > 1:
            return (
                f"Intervals are over {self.generators} independent generators of each class's "
                "images, and over images."
            )
        made = "one generator made each class's" if self.generators else "over images alone"
        return f"Intervals hold for this set of images only ({made})."


def read(results: Sequence[Path | Result]) -> list[Entry]:
    """Entries, at least one, of results, their JSONs with the parquet beside each, and entries.

    Args:
        results: results, files or folders; see :func:`spurbench.leaderboard.entries.read_all`.

    Raises:
        SpurbenchError: if a path is missing, a file is damaged or of an unknown schema version, or
            there is none at all.
    """
    found = entries.gather(results)
    if not found:
        searched = ", ".join(map(str, results))
        raise SpurbenchError(f"no results in {searched}; `spurbench eval` writes them")
    return found


def boards(results: Sequence[Entry]) -> list[Board]:
    """Sort entries into boards, one per dataset version, config, protocol and kind.

    Results of one classifier on the splits of one dataset are joined into a row. Where results that
    claim the same name and version were measured on different images, each set of images gets a
    board of its own, which is said. A dataset without a version is known by its images alone.

    Raises:
        SpurbenchError: if two results of one classifier on the same images disagree.
    """
    groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
    for result in results:
        info = result.dataset
        dataset = (info.name, info.version) if info.version else (info.fingerprint,)
        groups[*dataset, result.config, result.protocol, _kind(result)].append(result)
    made = []
    for group in groups.values():
        parts = [group] if _same_images(group) else _by_fingerprint(group)
        made += [_board(part) for part in parts]
        if len(parts) > 1:
            log.warning(
                "%s: results are of %d different sets of images under one version; each set has "
                "its own table",
                made[-1].title,
                len(parts),
            )
    titles = Counter(board.title for board in made)
    made = [replace(board, namesake=titles[board.title] > 1) for board in made]
    return sorted(made, key=lambda board: (board.name, _version_key(board.version), board.title))


def _kind(result: Entry) -> Kind:
    return "yes/no" if result.classifier.source == "vlm" else "classifiers"


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
        config=results[0].config,
        protocol=results[0].protocol,
        kind=_kind(results[0]),
        fingerprints={_split_set(r): r.dataset.fingerprint for r in results},
        ranked_by=ranked_by,
        rows=_ranked(rows, ranked_by),
    )
    return _with_ties(board)


def _join(results: Sequence[Entry]) -> Row:
    """One row from the results of one classifier: its splits, each known once."""
    first = results[0]
    splits: dict[Split, SplitResult] = {}
    answers: Answers = {}
    created: dict[Split, str] = {}
    for result in results:
        for split, measured in result.splits.items():
            if splits.setdefault(split, measured) != measured:
                raise SpurbenchError(
                    f"two results of {first.classifier.name} on {first.dataset.name} disagree on "
                    f"split {split} (made {created[split]} and {result.created}); keep one"
                )
            created.setdefault(split, result.created)
        answers = {**answers, **result.answers}
    info = first.classifier
    return Row(
        label=display_name(info.name, info.checkpoint),
        classifier=info,
        role=next((result.role for result in results if result.role), None),
        preprocessing=first.preprocessing,
        splits=splits,
        answers=answers,
        mended_here=info.mended is not None and info.mended.dataset == first.dataset.name,
        created=max(result.created for result in results),
        files=tuple(sorted({f"{result.folder}/{result.file_name}" for result in results})),
    )


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
    reasons = {id(row): _unranked(row, split) for row in rows}
    ranked = [values[id(row)] for row in rows if reasons[id(row)] is None]
    ordered = sorted(
        rows,
        key=lambda row: (
            reasons[id(row)] is not None,
            values.get(id(row), 2.0),
            row.label.lower(),
            row.label,
        ),
    )
    return tuple(
        replace(row, unranked=reasons[id(row)])
        if reasons[id(row)] is not None
        else replace(row, rank=1 + sum(value < values[id(row)] for value in ranked))
        for row in ordered
    )


def _unranked(row: Row, split: Split) -> str | None:
    """Why a row has no rank on a board that this split ranks."""
    if row.role is not None:
        return PARTS[row.role]
    if row.mended_here:
        return MENDED
    if split not in row.splits:
        return f"not measured on {split} images"
    recognises = row.splits[split].summary.recognises
    if recognises is None:
        return UNMEASURED
    return None if recognises else NO_BETTER


def _with_ties(board: Board) -> Board:
    """The board with its tie groups, if every ranked row's answers to the same images are known."""
    ranked = [row for row in board.rows if row.rank is not None]
    if not ranked:
        return replace(board, untested="no classifier is ranked")
    unknown = [row.label for row in ranked if board.ranked_by not in row.answers]
    if unknown:
        reason = f"the answers to each image are not known of {', '.join(unknown)}"
        return replace(board, untested=reason)
    answers = [row.answers[board.ranked_by] for row in ranked]
    if len({tuple((a.index, a.images, *a.left_out) for a in own) for own in answers}) > 1:
        return replace(board, untested="the answers are not to the same images")
    fooled = np.stack([np.concatenate([a.fooled[a.counted] for a in own]) for own in answers])
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

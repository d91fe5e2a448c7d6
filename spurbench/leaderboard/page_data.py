"""What the page's script is given of a board: rows, classes, and every answer as a bit."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

# Not later: its import leaves cycles of frames, which would hold on to all entries that are read.
from matplotlib import colormaps

from spurbench.core.markdown import plain
from spurbench.evaluation.results import (
    ClassResult,
    Effect,
    Interval,
    Rate,
    SignedInterval,
    SplitResult,
)
from spurbench.images.records import SPLITS, Source
from spurbench.leaderboard import tables
from spurbench.leaderboard.answers import ClassAnswers
from spurbench.leaderboard.boards import Board, Row
from spurbench.leaderboard.pictures import Pictures

SHOWN: tuple[Source, ...] = ("generated", "control", "real")
"""Sources of the images that the page shows the answers to."""

MEASURED = (
    "recognition",
    "auroc",
    "chance",
    "effect",
    "worst",
    "object_seen",
    "with_references",
)
"""What a row may lack, besides its shares."""

HEAT_STEPS = 20
"""Colours of the heat map, 5 percentage points each."""


def board_data(board: Board, stem: str) -> dict[str, Any]:
    """The numbers of a board; shares in percent.

    Args:
        board: to show.
        stem: its files' name, which is the page's name for it.
    """
    classes = _classes(board)
    positions = {c["index"]: position for position, c in enumerate(classes)}
    splits = [split for split in SPLITS if any(split in row.splits for row in board.rows)]
    rows = [_row(board, row, positions) for row in board.rows]
    for order, row in enumerate(rows):
        row["order"] = order
    lines = [row for row in rows if row["rank"] is not None and board.p_values]
    for line, row in enumerate(lines):
        row["line"] = line
    return {
        "id": stem,
        "title": plain(board.title),
        "ranked_by": board.ranked_by,
        "ranked": sum(row["rank"] is not None for row in rows),
        "splits": splits,
        "modes": len({row.preprocessing.mode for row in board.rows}),
        "rows": rows,
        "classes": classes,
        "called": _called(board, positions),
        "p_values": _packed_p_values(board),
    }


def answers_data(board: Board, pictures: Pictures) -> dict[str, Any]:
    """Who calls which image the class, as bits; and the images that are embedded.

    Returns:
        ``answered``: by source, the rows whose answers to the same images are known; ``bits``: by
        source and class, base64 of (rows, images) bits, the first in the lowest place; ``left``: by
        source and class, the images that don't count; ``pictures``: by source, class and image.
        Classes are positions in those of :func:`board_data`.
    """
    positions = {index: position for position, index in enumerate(_indices(board))}
    data: dict[str, Any] = {"answered": {}, "bits": {}, "left": {}, "pictures": {}}
    for source in SHOWN:
        known = [
            (order, row.answers[source])
            for order, row in enumerate(board.rows)
            if row.answers.get(source)
        ]
        if not known:
            continue
        reference = known[0][1]
        known = [(order, own) for order, own in known if _images(own) == _images(reference)]
        data["answered"][source] = [order for order, _ in known]
        bits, left, shown = {}, {}, {}
        for i, answers in enumerate(reference):
            position = positions.get(answers.index)
            if position is None:  # no image of the class counts
                continue
            bits[position] = _packed([own[i] for _, own in known])
            if answers.left_out:
                left[position] = answers.left_out
            if (source, answers.images) in pictures:
                shown[position] = pictures[source, answers.images]
        data["bits"][source], data["left"][source] = bits, left
        data["pictures"][source] = shown
    return data


def heat_colours(scheme: str) -> list[tuple[str, str]]:
    """Background and text of each step; text is black or white, whichever is the more legible."""
    # Low shares recede into the page, high ones stand out, in either scheme.
    low, high, name = (0.0, 0.85, "YlOrRd") if scheme == "light" else (0.12, 0.82, "inferno")
    colours = []
    for step in range(HEAT_STEPS):
        rgb = colormaps[name](low + (high - low) * step / (HEAT_STEPS - 1))[:3]
        red, green, blue = (
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb
        )
        # Relative luminance; at 0.179 black and white contrast alike (WCAG 2).
        dark_text = 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179
        background = "#" + "".join(f"{round(255 * c):02x}" for c in rgb)
        colours.append((background, "#000000" if dark_text else "#ffffff"))
    return colours


def _row(board: Board, row: Row, positions: Mapping[int, int]) -> dict[str, Any]:
    info = row.classifier
    shares: dict[str, Any] = dict.fromkeys(SPLITS)
    for split, result in row.splits.items():
        own = result.summary
        interval = own.spurious_accuracy_interval
        shares[split] = _percent(own.spurious_accuracy, interval) | {"n": own.n}
    ranking = row.splits.get(board.ranked_by)
    measured: dict[str, Any] = {} if ranking is None else _ranking(ranking, positions)
    if "real" in row.splits:
        measured["with_references"] = _rate(row.splits["real"].summary.with_references)
    if "generated" in row.splits:
        measured["effect"] = _effect(row.splits["generated"].summary.effect)
    base = board.base_of(row)
    shown_text = {
        "label": plain(row.label),
        "architecture": plain(info.architecture),
        "family": plain(info.family),
        "training": plain(info.training_data),
        "unranked": plain(row.unranked) if row.unranked else None,
    }
    return {
        "id": row.key,
        "entries": [quote(file) for file in row.files],
        "rank": row.rank,
        "tied": row.tied,
        "line": None,
        "base": base and base.key,
        **shown_text,
        "text": " ".join(filter(None, shown_text.values())).lower(),
        "parameters": info.parameters,
        "source": plain(info.source),
        "preprocessing": tables.describe(row.preprocessing),
        "weights": plain(info.weights_sha256[:12]),
        "date": plain(row.created[:10]),
        "gap": None if row.gap is None else _in_percent(row.gap),
        **shares,
        **dict.fromkeys(MEASURED),
        **measured,
    }


def _ranking(result: SplitResult, positions: Mapping[int, int]) -> dict[str, Any]:
    """What is shown of the split that ranks, but its share."""
    summary = result.summary
    found: dict[str, Any] = {
        "worst": _worst(result.classes, positions),
        "object_seen": _rate(summary.object_seen),
        "chance": None if summary.chance is None else _in_percent(summary.chance),
    }
    if recognition := summary.recognition:
        interval = recognition.auroc_interval
        found["recognition"] = _percent(recognition.accuracy, recognition.interval)
        found["recognition"]["n"] = recognition.n
        found["auroc"] = {
            "value": round(recognition.auroc, 3),
            "low": round(interval.low, 3),
            "high": round(interval.high, 3),
        }
    return found


def _effect(effect: Effect | None) -> dict[str, Any] | None:
    if effect is None:
        return None
    return _percent(effect.effect, effect.interval) | {
        "pairs": effect.pairs,
        "p": effect.p_value,
        "with": _in_percent(effect.accuracy),
        "without": _in_percent(effect.control_accuracy),
    }


def _in_percent(share: float) -> float:
    """As it is shown, and rounded once: figures rounded again would differ from the tables'."""
    return round(100 * share, 1)


def _percent(share: float, interval: Interval | SignedInterval) -> dict[str, Any]:
    return {
        "value": _in_percent(share),
        "low": _in_percent(interval.low),
        "high": _in_percent(interval.high),
    }


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else {"value": _in_percent(rate.share), "n": rate.n}


def _worst(classes: Sequence[ClassResult], positions: Mapping[int, int]) -> dict[str, Any] | None:
    """The class that fools it most, the one of most images among equals; none if none fools it."""
    worst = max(classes, key=lambda c: (c.spurious_accuracy, c.n))
    if worst.spurious_accuracy == 0:
        return None
    return {
        "class": positions[worst.index],
        "value": _in_percent(worst.spurious_accuracy),
        "n": worst.n,
    }


def _indices(board: Board) -> list[int]:
    results = (result for row in board.rows for result in row.splits.values())
    return sorted({c.index for result in results for c in result.classes})


def _counts(row: Row) -> dict[str, dict[int, tuple[int, int]]]:
    """(called the class, images) by source and class, of the images that count."""
    counts: dict[str, dict[int, tuple[int, int]]] = {source: {} for source in (*SHOWN, "positive")}
    for split, result in row.splits.items():
        for c in result.classes:
            counts[split][c.index] = (round(c.spurious_accuracy * c.n), c.n)
            if c.recognition:
                n = c.recognition.n
                counts["positive"][c.index] = (round(c.recognition.accuracy * n), n)
            if c.effect:
                n = c.effect.pairs
                counts["control"][c.index] = (round(c.effect.control_accuracy * n), n)
    return counts


def _called(board: Board, positions: Mapping[int, int]) -> dict[str, list[list[int | None] | None]]:
    """By source and row, how many images of each class are called it; None where not measured."""
    called: dict[str, list[list[int | None] | None]] = {}
    for order, row in enumerate(board.rows):
        for source, counts in _counts(row).items():
            if counts:
                by_row = called.setdefault(source, [None] * len(board.rows))
                by_row[order] = [counts.get(index, (None,))[0] for index in positions]
    return called


def _classes(board: Board) -> list[dict[str, Any]]:
    """Every class: how many of its images count (``n``), and how many there are (``images``)."""
    classes: dict[int, dict[str, Any]] = {
        index: {"index": index, "n": {}, "images": {}} for index in _indices(board)
    }
    for row in board.rows:
        for result in row.splits.values():
            for c in result.classes:
                if "name" not in classes[c.index]:
                    feature = plain(c.spurious_feature) if c.spurious_feature else None
                    classes[c.index] |= {"name": plain(c.name), "feature": feature}
        for source, counts in _counts(row).items():
            for index, (_, n) in counts.items():
                classes[index]["n"].setdefault(source, n)
        for source in SHOWN:
            for answers in row.answers.get(source, ()):
                if answers.index in classes:
                    classes[answers.index]["images"].setdefault(source, len(answers.predictions))
    return list(classes.values())


def _images(answers: Sequence[ClassAnswers]) -> list[tuple[int, str]]:
    return [(a.index, a.images) for a in answers]


def _packed(answers: Sequence[ClassAnswers]) -> str:
    bits = np.stack([a.fooled for a in answers])
    return base64.b64encode(np.packbits(bits, bitorder="little").tobytes()).decode()


def _packed_p_values(board: Board) -> str | None:
    """Of each pair of ranked rows, the lower triangle by rows: thousandths, 16 bits, base64."""
    if not board.p_values:
        return None
    p_values = np.array(board.p_values)
    # Down, so that what is below a limit stays below it in thousandths.
    thousandths = np.floor(1000 * p_values[np.tril_indices(len(p_values), k=-1)] + 1e-9)
    return base64.b64encode(thousandths.astype("<u2").tobytes()).decode()

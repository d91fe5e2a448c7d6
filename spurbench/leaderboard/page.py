"""The published leaderboard: entries, tables, and one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from spurbench import __version__
from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.core.markdown import plain
from spurbench.core.resources import templates
from spurbench.evaluation.results import Result
from spurbench.images.decode import decode_rgb
from spurbench.images.records import SPLITS, ImageRecord
from spurbench.images.sources import open_images
from spurbench.leaderboard import entries, reported, tables
from spurbench.leaderboard.answers import ClassAnswers, images_digest
from spurbench.leaderboard.boards import Board, Row, boards
from spurbench.leaderboard.entries import Entry
from spurbench.leaderboard.reported import ReportedTable

log = logging.getLogger(__name__)

THUMBNAIL = 128
"""Longest side of a sample image, pixels; smaller images are embedded as they are."""

HEAT_STEPS = 20
"""Colours of the heat map, 5 percentage points each."""

Samples = Mapping[str, Sequence[str]]
"""Data URIs of sample images, by the digest of the images that they are the first of."""


def build(
    results: Sequence[Path | Result], data: Sequence[str], output: Path, *, samples: int = 6
) -> list[Path]:
    """Add results to the entries in ``output`` and render everything from all entries there.

    Nothing is written unless everything could be rendered.

    Args:
        results: results, their JSONs, entries, or folders of them; none renders anew what is
            there.
        data: datasets that were measured, for sample images; without them the page shows answers
            but no images.
        output: ``DATASET/CLASSIFIER.json`` for each entry, ``README.md``, a page and CSVs for each
            dataset version, and ``index.html``.
        samples: images of each class and split on the page: the first by their sha256, so nobody
            has picked them.

    Returns:
        The files written.

    Raises:
        SpurbenchError: if there is no entry, a file is damaged, two entries contradict each other,
            or none was measured on one of ``data``.
    """
    fresh = entries.gather(results)
    published = entries.read_all([output]) if output.is_dir() else {}
    changed = {output.resolve() / _path(entry): entry for entry in fresh}
    every = {**published, **changed}
    if not every:
        searched = ", ".join(map(str, [*results, output]))
        raise SpurbenchError(f"no results in {searched}; `spurbench eval` writes them")
    made = boards([every[path] for path in sorted(every)])
    pictures: dict[str, Sequence[str]] = {}
    for name in data:
        pictures |= _samples(name, made, samples)
    scores = reported.read(output)
    page = render(made, pictures, scores)

    for path, entry in changed.items():
        entry.write(path)
    written = list(changed)
    for board, stem in zip(made, tables.file_stems(made), strict=True):
        written.append(output / f"{stem}-classes.csv")
        atomic.write_text(written[-1], classes_csv(board))
    written += tables.write(
        made,
        output,
        introduction="[index.html](index.html) shows the same with images, to sort and to filter.",
        appendix=reported.to_markdown(scores),
    )
    written.append(output / "index.html")
    atomic.write_text(written[-1], page)
    return written


def classes_csv(board: Board) -> str:
    """One line per classifier, split and class; shares and Wilson intervals in [0, 1]."""
    return tables.csv_text(
        {
            "classifier": row.label,
            "preprocessing": tables.describe(row.preprocessing),
            "split": split,
            "class_index": c.index,
            "class_name": c.name,
            "spurious_feature": c.spurious_feature,
            "n": c.n,
            "spurious_accuracy": c.spurious_accuracy,
            "low": c.spurious_accuracy_interval.low,
            "high": c.spurious_accuracy_interval.high,
            "top5": c.top5,
            "mean_probability": c.mean_probability,
        }
        for row in board.rows
        for split in SPLITS
        if split in row.splits
        for c in row.splits[split].classes
    )


def render(made: Sequence[Board], samples: Samples, scores: Sequence[ReportedTable]) -> str:
    """The page: HTML that loads nothing, whatever the names in it.

    Text from outside is escaped by the template, or is data that the script shows as text; besides,
    the page's own policy lets no script run but its own.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = templates()
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    # As it stands between the tags, which is what the policy's hash is of.
    script = (folder / "leaderboard.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("leaderboard.html.jinja").render(
        boards=[
            _board(board, f"b{position}", stem, samples)
            for position, (board, stem) in enumerate(
                zip(made, tables.file_stems(made), strict=True)
            )
        ],
        reported=scores,
        style=(folder / "leaderboard.css").read_text(encoding="utf-8"),
        heat={scheme: _heat_colours(scheme) for scheme in ("light", "dark")},
        script=script,
        script_sha256=digest,
        version=__version__,
    )


def _path(entry: Entry) -> Path:
    return Path(entry.folder) / entry.file_name


def _samples(data: str, made: Sequence[Board], count: int) -> dict[str, Sequence[str]]:
    """Data URIs of the first images of every class and split of the boards that data is of."""
    known = {
        answers.images
        for board in made
        for row in board.rows
        for split in row.answers.values()
        for answers in split
    }
    groups: dict[tuple[str, int], list[ImageRecord]] = defaultdict(list)
    for record in open_images(data).records:
        groups[record.source, record.class_index].append(record)
    found: dict[str, Sequence[str]] = {}
    for records in groups.values():
        digest = images_digest([record.sha256 for record in records])
        if digest in known:
            first = sorted(records, key=lambda record: record.sha256)[:count]
            found[digest] = [_data_uri(record.read()) for record in first]
    if not found:
        raise SpurbenchError(f"no classifier here was measured on the images of {data}")
    return found


def _data_uri(encoded: bytes) -> str:
    image = decode_rgb(encoded)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _board(board: Board, identity: str, stem: str, samples: Samples) -> dict[str, Any]:
    """What the template shows of a board."""
    rows = [_row(row, f"{identity}-r{i}") for i, row in enumerate(board.rows)]
    for row, above in zip(rows[1:], rows, strict=False):
        row["opens_group"] = row["tied"] != above["tied"]
    classes = _classes(board)
    splits = [split for split in SPLITS if any(split in row.splits for row in board.rows)]
    return {
        "id": identity,
        "stem": stem,
        "title": plain(board.title),
        "fingerprint": board.identity,
        "ranked_by": board.ranked_by,
        "splits": splits,
        "images": {
            split: max(row.splits[split].summary.n for row in board.rows if split in row.splits)
            for split in splits
        },
        "modes": len({row.preprocessing.mode for row in board.rows}),
        "groups": len({row.tied for row in board.rows if row.tied}),
        "untested": board.untested and plain(board.untested),
        "p_values": board.p_values,
        "rows": rows,
        "families": sorted({row["family"] for row in rows}),
        "training_data": sorted({row["training_data"] for row in rows}),
        "classes": classes,
        "data": _answers(board, samples),
    }


def _row(row: Row, identity: str) -> dict[str, Any]:
    info = row.classifier
    shown = {}
    for split, result in row.splits.items():
        summary = result.summary
        interval = summary.spurious_accuracy_interval
        shown[split] = {
            "share": 100 * summary.spurious_accuracy,
            "low": 100 * interval.low,
            "high": 100 * interval.high,
            "top5": 100 * summary.top5,
            "mean_probability": summary.mean_probability,
            "worst": plain(summary.worst_class),
            "worst_share": 100 * summary.worst_class_spurious_accuracy,
            "n": summary.n,
        }
    return {
        "id": identity,
        "rank": row.rank,
        "tied": tables.ranks(row.tied) if row.tied else None,
        "opens_group": False,
        "label": plain(row.label),
        "architecture": plain(info.architecture),
        "family": plain(info.family),
        "training_data": plain(info.training_data),
        "parameters": info.parameters,
        "preprocessing": tables.describe(row.preprocessing),
        "weights": plain(info.weights_sha256[:12]),
        "gap": None if row.gap is None else 100 * row.gap,
        **{split: shown.get(split) for split in SPLITS},
    }


def _classes(board: Board) -> list[dict[str, Any]]:
    """The rows of the heat map: every class, and each classifier's share of it in each split."""
    classes: dict[int, dict[str, Any]] = {}
    for position, row in enumerate(board.rows):
        for split, result in row.splits.items():
            for c in result.classes:
                known = classes.setdefault(
                    c.index,
                    {
                        "index": c.index,
                        "name": plain(c.name),
                        "feature": plain(c.spurious_feature) if c.spurious_feature else None,
                        "cells": [dict.fromkeys(SPLITS) for _ in board.rows],
                    },
                )
                interval = c.spurious_accuracy_interval
                known["cells"][position][split] = {
                    "share": 100 * c.spurious_accuracy,
                    "low": 100 * interval.low,
                    "high": 100 * interval.high,
                    "n": c.n,
                    "step": min(int(c.spurious_accuracy * HEAT_STEPS), HEAT_STEPS - 1),
                }
    return [classes[index] for index in sorted(classes)]


def _answers(board: Board, samples: Samples) -> dict[str, Any]:
    """Sample images, and what each classifier answers to them, for the script."""
    from spurbench.core.imagenet import imagenet_names

    names = imagenet_names()
    shown: dict[int, list[dict[str, Any]]] = defaultdict(list)
    answered: set[int] = set()
    for split in reversed(SPLITS):
        by_class: dict[int, dict[int, ClassAnswers]] = defaultdict(dict)
        for position, row in enumerate(board.rows):
            for answers in row.answers.get(split, ()):
                by_class[answers.index][position] = answers
        for index in sorted(by_class):
            (digest, *others) = {answers.images for answers in by_class[index].values()}
            if others or digest not in samples:
                continue
            for i, picture in enumerate(samples[digest]):
                given: list[tuple[int, float] | None] = [None] * len(board.rows)
                for position, answers in by_class[index].items():
                    given[position] = (int(answers.predictions[i]), float(answers.probabilities[i]))
                    answered.add(int(answers.predictions[i]))
                shown[index].append({"split": split, "image": picture, "answers": given})
    return {
        "samples": shown,
        "names": {index: names[index] if index >= 0 else "another class" for index in answered},
    }


def _breakable(name: str) -> Markup:
    """A long name that may be broken after its separators; escaped."""
    return Markup("<wbr>").join(re.split(r"(?<=[_./-])(?=.)", name))


def _heat_colours(scheme: str) -> list[tuple[str, str]]:
    """Background and text of each step; text is black or white, whichever is the more legible."""
    from matplotlib import colormaps

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

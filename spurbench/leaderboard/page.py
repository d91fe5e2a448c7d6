"""The published leaderboard: entries, tables, and one page that needs nothing but itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spurbench import __version__
from spurbench.core import atomic, collector
from spurbench.core.errors import SpurbenchError
from spurbench.core.markdown import plain
from spurbench.core.resources import templates
from spurbench.core.templates import html_templates
from spurbench.evaluation.results import Result
from spurbench.images.records import SPLITS
from spurbench.leaderboard import entries, pictures, reported, tables
from spurbench.leaderboard.boards import Board, boards
from spurbench.leaderboard.entries import Entry
from spurbench.leaderboard.page_data import answers_data, board_data, heat_colours
from spurbench.leaderboard.pictures import Pictures
from spurbench.leaderboard.reported import ReportedTable

LIMIT = 3_000_000
"""Bytes of the page; as many images are embedded as fit."""

LIBRARY = "vendor/table-core"
"""The table library, as published; see the TOML beside it."""

SCRIPTS = ("page", "table", "plots", "heat", "sheet", "main")
"""The page's own script, in the order in which its parts run."""


@collector.paused()
def build(
    results: Sequence[Path | Result], data: Sequence[str], output: Path, *, samples: int = 6
) -> list[Path]:
    """Add results to the entries in ``output`` and render everything from all entries there.

    Nothing is written unless everything could be rendered.

    Args:
        results: results, their JSONs, entries, or folders of them; none renders anew what is
            there.
        data: datasets that were measured, for images; without them the page shows answers but no
            images.
        output: ``DATASET/CLASSIFIER.json`` for each entry, ``README.md``, a page and CSVs for each
            dataset version, and ``index.html``.
        samples: images of each class and split on the page at most, while it has room: the first by
            their sha256, so nobody has picked them.

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
    scores = reported.read(output)
    guide = "CONTRIBUTING.md" if (output / "CONTRIBUTING.md").is_file() else None
    stems = tables.file_stems(made)
    numbers = [board_data(board, stem) for board, stem in zip(made, stems, strict=True)]
    page = render(made, numbers, {}, scores, guide)
    if data and samples:
        shown = pictures.choose(data, made, samples, LIMIT - len(page.encode()))
        page = render(made, numbers, shown, scores, guide)

    for path, entry in changed.items():
        entry.write(path)
    written = list(changed)
    for board, stem in zip(made, stems, strict=True):
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
            "preprocessing": preprocessing,
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
        for preprocessing in [tables.describe(row.preprocessing)]
        for split in SPLITS
        if split in row.splits
        for c in row.splits[split].classes
    )


def render(
    made: Sequence[Board],
    numbers: Sequence[Mapping[str, Any]],
    shown: Pictures,
    scores: Sequence[ReportedTable],
    guide: str | None = None,
) -> str:
    """The page: HTML that loads nothing, whatever the names in it.

    Text from outside is escaped by the template, or is data that the script shows as text; besides,
    the page's own policy lets no script run but its own.

    Args:
        made: boards, at least one.
        numbers: of each, :func:`board_data`.
        shown: images to embed.
        scores: that others reported.
        guide: where it is said how to submit, relative to the page.
    """
    folder = templates()
    environment = html_templates(folder)
    environment.filters["data"] = _embedded
    # As it stands between the tags, which is what the policy's hash is of.
    script = _script(folder)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("leaderboard.html.jinja").render(
        boards=[
            {
                "data": data,
                "answers": answers_data(board, shown),
                "facts": _facts(board),
            }
            for board, data in zip(made, numbers, strict=True)
        ],
        reported=scores,
        guide=guide,
        style=(folder / "leaderboard.css").read_text(encoding="utf-8"),
        heat={scheme: heat_colours(scheme) for scheme in ("light", "dark")},
        script=script,
        script_sha256=digest,
        version=__version__,
    )


def _script(folder: Path) -> str:
    """The library under its licence, and the page's own parts."""
    library = (folder / LIBRARY / "index.production.js").read_text(encoding="utf-8")
    # Its source map does not travel.
    library = re.sub(r"\n//# sourceMappingURL=.*\s*$", "\n", library)
    licence = (folder / LIBRARY / "LICENSE").read_text(encoding="utf-8")
    own = [(folder / "scripts" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS]
    return f"/*! @tanstack/table-core\n\n{licence}*/\n{library}\n" + "\n".join(own)


def _embedded(value: Any) -> Markup:
    """JSON in which no text can start or end a tag."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _path(entry: Entry) -> Path:
    return Path(entry.folder) / entry.file_name


def _facts(board: Board) -> dict[str, Any]:
    """What the page says of a board in words."""
    splits = [split for split in SPLITS if any(split in row.splits for row in board.rows)]
    generated = [row.splits["generated"].summary for row in board.rows if "generated" in row.splits]
    return {
        "fingerprint": board.identity,
        "splits": splits,
        "images": {
            split: max(row.splits[split].summary.n for row in board.rows if split in row.splits)
            for split in splits
        },
        "unranked": sum(row.unranked is not None for row in board.rows),
        "generators": max((summary.generators for summary in generated), default=0),
        "groups": len({row.tied for row in board.rows if row.tied}),
        "no_ranks": board.no_ranks,
        "untested": board.untested and plain(board.untested),
        "latest": max(row.created for row in board.rows)[:10],
        "recognition": any(_has(board, "recognition")),
        "effect": any(summary.effect for summary in generated),
        "object_seen": any(_has(board, "object_seen")),
        "asked": board.kind == "yes/no",
    }


def _has(board: Board, name: str) -> list[bool]:
    return [
        getattr(result.summary, name) is not None
        for row in board.rows
        for result in row.splits.values()
    ]

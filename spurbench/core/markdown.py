"""Markdown that text from outside can't break: escaping and tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Literal

Alignment = Literal["left", "right"]


def plain(value: object) -> str:
    """Text on one line, with control characters shown as U+FFFD instead of obeyed."""
    text = re.sub(r"[\r\n\t]+", " ", str(value))
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape(value: object) -> str:
    """Text as harmless Markdown: no HTML, table cells, links, images, code or emphasis."""
    text = plain(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_~\[\]|#])", r"\\\1", text)


def embedded_json(value: Any) -> str:
    """JSON in which no text can end a code fence, or start or end a tag."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    for character in "`<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def first_left(columns: int) -> list[Alignment]:
    """The alignments of a table of numbers: its first column names the row."""
    return ["left" if column == 0 else "right" for column in range(columns)]


def table(
    header: Sequence[str], alignments: Sequence[Alignment], rows: Sequence[Sequence[str]]
) -> str:
    """A GitHub-flavoured table, ending in a newline; cells are Markdown already (:func:`escape`).

    Raises:
        ValueError: if a row is not as long as the header.
    """
    rule = ["---:" if alignment == "right" else "---" for alignment in alignments]
    lines = [header, rule, *rows]
    if any(len(line) != len(header) for line in lines):
        raise ValueError("rows of a table must be as long as its header")
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

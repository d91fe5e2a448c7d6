"""A small table for people: for the terminal, as text, and as HTML for notebooks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """Text in rows; names in it may hold what HTML or rich would take for markup.

    Attributes:
        title: above it.
        headings: of the columns, the first of which names the row.
        rows: as many cells each.
        mean: the last row, apart from the others.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    mean: Sequence[str]


def table(sheet: Sheet) -> Table:
    """For the terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(sheet.title), title_justify="left")
    for position, heading in enumerate(sheet.headings):
        made.add_column(heading, justify="right" if position else "left")
    for cells in sheet.rows:
        made.add_row(*map(Text, cells))
    made.add_section()
    made.add_row(*map(Text, sheet.mean))
    return made


def tables(sheets: Sequence[Sheet]) -> Group:
    """Several for the terminal, one below the other."""
    from rich.console import Group

    return Group(*map(table, sheets))


def text(sheets: Sequence[Sheet]) -> str:
    """As plain text."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=120, color_system=None).print(tables(sheets))
    return page.getvalue().rstrip()


def html(sheets: Sequence[Sheet]) -> str:
    """As HTML tables, which no text in them can break out of."""
    parts = []
    for sheet in sheets:
        head = "".join(f"<th>{escape(heading)}</th>" for heading in sheet.headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in (*sheet.rows, sheet.mean)
        )
        parts.append(
            f"<table><caption>{escape(sheet.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return "".join(parts)

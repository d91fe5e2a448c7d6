"""A table for the terminal that is as wide as the terminal, and never cuts a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spurbench.core.markdown import Alignment, plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

GAP = 2
"""Columns of the terminal between those of a table."""
NAME = 24
"""A name may be folded to so many columns of the terminal, and not to fewer."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: above it.
        cells: one for each row, the same number in every column; may come from outside.
        alignment: of the cells.
        importance: where there is no room, columns go from the highest; 0 always stays.
        name: whether its cells are names, which are folded where they don't fit.
    """

    heading: str
    cells: Sequence[str]
    alignment: Alignment = "right"
    importance: int = 0
    name: bool = False

    def stacked(self) -> Column:
        """Its intervals below their numbers."""
        cells = [cell.replace(" [", "\n[") for cell in self.cells]
        return Column(self.heading, cells, self.alignment, self.importance, self.name)

    @property
    def width(self) -> int:
        """The least columns of the terminal that it takes."""
        from rich.cells import cell_len

        lines = [line for cell in self.cells for line in cell.split("\n")]
        widest = max(map(cell_len, (self.heading, *lines)))
        return min(widest, max(NAME, cell_len(self.heading))) if self.name else widest


@dataclass(frozen=True)
class FittedTable:
    """Columns, the least important of which are left out where the terminal is narrow.

    Attributes:
        title: above it.
        lead: below the title, a sentence; may be empty.
        columns: from left to right.
        notes: below it, a line each.
        rest: where columns that were left out are found.
    """

    title: str
    columns: Sequence[Column]
    lead: str = ""
    notes: Sequence[str] = ()
    rest: str = "--json"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.text import Text

        shown, left_out = self.fit(options.max_width)
        yield Text(plain(self.title), style="table.title")
        if self.lead:
            yield Text(plain(self.lead))
        yield self._table(shown)
        notes = list(self.notes)
        if left_out:
            notes.append(f"No room for: {', '.join(left_out)}; {self.rest} has all.")
        for note in notes:
            yield Text(plain(note))

    def fit(self, width: int) -> tuple[list[Column], list[str]]:
        """The columns that fit, and the headings of those that don't."""
        shown = [
            Column(c.heading, [plain(cell) for cell in c.cells], c.alignment, c.importance, c.name)
            for c in self.columns
        ]
        if _taken(shown) > width:
            shown = [column.stacked() for column in shown]
        left_out: list[str] = []
        while _taken(shown) > width and (last := max(shown, key=lambda c: c.importance)).importance:
            shown.remove(last)
            left_out.append(last.heading)
        return shown, [c.heading for c in self.columns if c.heading in left_out]

    def _table(self, columns: Sequence[Column]) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        made = Table(
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, GAP - 1, 0, 0),
        )
        for column in columns:
            made.add_column(
                column.heading,
                justify=column.alignment,
                overflow="fold",
                no_wrap=not column.name,
                min_width=column.width,
            )
        for cells in zip(*(column.cells for column in columns), strict=True):
            # Text, not str: names from outside may hold what rich would take for markup.
            made.add_row(*map(Text, cells))
        return made


def _taken(columns: Sequence[Column]) -> int:
    return sum(column.width + GAP for column in columns)

"""A table as the report prints it: CSV with every digit, LaTeX and HTML as people read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from spurbench.core.markdown import plain

Value = str | float | int | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: in the CSV.
        values: one for each row; shares are fractions.
    """

    name: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Shown:
    """A column as it is printed.

    Attributes:
        heading: above it.
        cells: text, one for each row.
        group: above the headings of neighbours that have the same one.
    """

    heading: str
    cells: Sequence[str]
    group: str = ""


@dataclass(frozen=True)
class Table:
    """Numbers, and how they are printed.

    Attributes:
        name: of its files.
        caption: above it; names what it is and where it comes from.
        columns: the numbers, for the CSV.
        shown: the printed form; its first column names the row.
        notes: below it, a sentence each.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    shown: Sequence[Shown]
    notes: Sequence[str] = ()

    def csv(self) -> str:
        """All columns; empty where there is no number."""
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(column.name for column in self.columns)
        lines.writerows(zip(*(column.values for column in self.columns), strict=True))
        return text.getvalue()

    def latex(self) -> str:
        """A ``table`` environment of the package booktabs."""
        shown = self.shown
        lines = [
            r"\begin{table}",
            rf"\caption{{{_latex(self.caption)}}}",
            rf"\label{{tab:{self.name}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(shown) - 1)}}}",
            r"\toprule",
        ]
        if any(column.group for column in shown):
            spans = [
                rf"\multicolumn{{{span}}}{{c}}{{{_latex(group)}}}" for group, span in self.groups()
            ]
            lines.append(" & ".join(spans) + r" \\")
        lines += [" & ".join(_latex(column.heading) for column in shown) + r" \\", r"\midrule"]
        lines += [
            " & ".join(map(_latex, cells)) + r" \\"
            for cells in zip(*(column.cells for column in shown), strict=True)
        ]
        lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
        return "\n".join(lines)

    def html(self) -> Markup:
        """A ``table`` element; text in it can't become markup."""
        lines = [[f'<th scope="col">{escape(c.heading)}</th>' for c in self.shown]]
        if any(column.group for column in self.shown):
            span = '<th colspan="{}" scope="colgroup">{}</th>'
            lines.insert(0, [span.format(count, escape(group)) for group, count in self.groups()])
        head = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
        body = ""
        for first, *others in zip(*(column.cells for column in self.shown), strict=True):
            cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
            body += f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
        return Markup(f"<table><thead>{head}</thead><tbody>{body}</tbody></table>")

    def groups(self) -> list[tuple[str, int]]:
        """Groups of neighbouring columns and how many columns each has."""
        found: list[tuple[str, int]] = []
        for column in self.shown:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _latex(text: str) -> str:
    """Text as LaTeX prints it, on one line."""
    return "".join(_LATEX.get(character, character) for character in plain(text))

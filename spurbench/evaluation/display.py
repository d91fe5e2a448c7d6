"""A result for people: tables for the terminal, text, and HTML for notebooks."""

from __future__ import annotations

import io
from html import escape
from typing import TYPE_CHECKING

from spurbench.core.markdown import plain
from spurbench.evaluation.results import ClassResult, Result, Summary
from spurbench.images.records import Split

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

HEADINGS = ("class", "n", "spurious accuracy", "95 % interval", "top-5", "mean probability")
SCORES = ("AUROC", "average precision")


def title(result: Result, split: Split) -> str:
    """Which classifier, on which images, where it ran."""
    dataset = " ".join(filter(None, (result.dataset.name, result.dataset.version)))
    return plain(f"{result.label} on {dataset} {split} ({result.environment['device']})")


def line(result: Result) -> str:
    """The result in one line."""
    shares = ", ".join(
        f"{split} {100 * part.summary.spurious_accuracy:.1f} %"
        for split, part in result.splits.items()
    )
    return plain(f"{result.label} on {result.dataset.name}: spurious accuracy {shares}")


def rows(result: Result, split: Split) -> list[list[str]]:
    """A split's classes and, last, their macro mean, as text in the order of :func:`headings`."""
    part = result.splits[split]
    lines: list[tuple[str, ClassResult | Summary]] = [(plain(c.name), c) for c in part.classes]
    return [_cells(name, c) for name, c in (*lines, ("macro mean", part.summary))]


def headings(result: Result) -> tuple[str, ...]:
    """Those of :func:`rows`; scores only where positives were measured."""
    return HEADINGS if result.summary.auroc is None else HEADINGS + SCORES


def table(result: Result, split: Split) -> Table:
    """One split for the terminal, a line per class."""
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title(result, split)), title_justify="left")
    for heading in headings(result):
        made.add_column(heading, justify="left" if heading == "class" else "right")
    *classes, mean = rows(result, split)
    for cells in classes:
        # Text, not str: names from outside may hold what rich would take for markup.
        made.add_row(*map(Text, cells))
    made.add_section()
    made.add_row(*map(Text, mean))
    return made


def rich_tables(result: Result) -> Group:
    """All splits for the terminal."""
    from rich.console import Group

    return Group(*(table(result, split) for split in result.splits))


def text(result: Result) -> str:
    """All splits as plain text."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=120, color_system=None).print(rich_tables(result))
    return page.getvalue().rstrip()


def html(result: Result) -> str:
    """All splits as HTML tables, which no name in them can break out of."""
    parts = []
    for split in result.splits:
        head = "".join(f"<th>{heading}</th>" for heading in headings(result))
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in rows(result, split)
        )
        parts.append(
            f"<table><caption>{escape(title(result, split))}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )
    return "".join(parts)


def _cells(name: str, numbers: ClassResult | Summary) -> list[str]:
    interval = numbers.spurious_accuracy_interval
    scores = (numbers.auroc, numbers.average_precision)
    return [
        name,
        str(numbers.n),
        f"{100 * numbers.spurious_accuracy:.1f} %",
        f"{100 * interval.low:.1f} to {100 * interval.high:.1f}",
        f"{100 * numbers.top5:.1f} %",
        f"{numbers.mean_probability:.4f}",
        *(f"{score:.3f}" for score in scores if score is not None),
    ]

"""Results as tables for people: in the terminal, as text, and as HTML for notebooks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from spurbench.core.markdown import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

    from spurbench.evaluation.results import ClassResult, Rate, Result, Summary
    from spurbench.images.records import Role, Split

WIDTH = 80
"""Columns of a page of text."""

UNMEASURED = "recognition not measured; give --positives"
"""Of a classifier without positives, which can't be told from an untrained one."""


@dataclass(frozen=True)
class Column:
    """A column of text, its cells from the first row to the last.

    Attributes:
        heading: above it.
        cells: one for each row.
        optional: whether it is left out where there is no room for all.
    """

    heading: str
    cells: Sequence[str]
    optional: bool = False


@dataclass(frozen=True)
class Sheet:
    """Text in rows; names in it may hold what HTML or rich would take for markup.

    Attributes:
        title: above it.
        columns: the first of which names the row.
        notes: below it, a sentence each.
        narrow: below it too, where optional columns are left out.
        has_mean: whether the last row is apart from the others.
    """

    title: str
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    narrow: Sequence[str] = ()
    has_mean: bool = False

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells, row by row."""
        return list(zip(*(column.cells for column in self.columns), strict=True))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.text import Text

        wide = _table(self, self.columns)
        fits = console.measure(wide, options=options.update(max_width=10_000)).maximum
        yield Text(self.title)
        if fits <= options.max_width:
            yield wide
        else:
            yield _table(self, [column for column in self.columns if not column.optional])
            yield from map(Text, self.narrow)
        yield from map(Text, self.notes)


def _table(sheet: Sheet, columns: Sequence[Column]) -> Table:
    from rich.table import Table
    from rich.text import Text

    made = Table()
    for position, column in enumerate(columns):
        if position:
            # Text, for a line break in a str may be taken for one from outside.
            heading = Text("\n".join(column.heading.rsplit(" ", 1)))
            made.add_column(heading, justify="right", no_wrap=True)
        else:  # names are whole, on as many lines as they need
            made.add_column(column.heading, overflow="fold")
    rows = list(zip(*(column.cells for column in columns), strict=True))
    for number, cells in enumerate(rows, start=1):
        if sheet.has_mean and number == len(rows):
            made.add_section()
        made.add_row(*map(Text, cells))
    return made


def text(sheets: Sequence[Sheet]) -> str:
    """As plain text."""
    from rich.console import Console

    page = io.StringIO()
    Console(file=page, width=WIDTH, color_system=None).print(*sheets)
    return page.getvalue().rstrip()


def html(sheets: Sequence[Sheet]) -> str:
    """As HTML tables, which no text in them can break out of."""
    parts = []
    for sheet in sheets:
        head = "".join(f"<th>{escape(column.heading)}</th>" for column in sheet.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in sheet.rows
        )
        parts.append(
            f"<table><caption>{escape(sheet.title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            + "".join(f"<p>{escape(note)}</p>" for note in sheet.notes)
        )
    return "".join(parts)


def result_sheet(result: Result, split: Split) -> Sheet:
    """One split of a result: its classes and their macro mean."""
    part = result.splits[split]
    rows: list[ClassResult | Summary] = [*part.classes, part.summary]
    names = [plain(c.name) for c in part.classes]
    return Sheet(
        title=plain(f"{result.label} on {_asked(result)} {split} ({result.environment['device']})"),
        columns=[Column("class", [*names, "macro mean"]), *_columns(rows)],
        notes=[*_notes(part.summary, split), *_role(result)],
        narrow=[_intervals(part.summary)],
        has_mean=True,
    )


def results_sheets(results: Sequence[Result]) -> list[Sheet]:
    """Several classifiers on one dataset, a sheet for each split: their macro means."""
    sheets = []
    for split in dict.fromkeys(split for result in results for split in result.splits):
        own = [result for result in results if split in result.splits]
        summaries = [result.splits[split].summary for result in own]
        worst = [
            f"{plain(s.worst_class)} {100 * s.worst_class_spurious_accuracy:.0f} % of "
            f"{s.worst_class_n}"
            for s in summaries
        ]
        sheets.append(
            Sheet(
                title=plain(f"{_asked(own[0])} {split}"),
                columns=[
                    Column("classifier", [plain(result.label) for result in own]),
                    *_columns(summaries),
                    Column("worst class", worst, optional=True),
                ],
                notes=[note for result in own for note in _role(result)],
                narrow=["Intervals need a wider terminal; the files of the results hold them."],
            )
        )
    return sheets


def _asked(result: Result) -> str:
    """What was measured, in a few words."""
    info = result.dataset
    config = "" if result.config == "default" else result.config
    protocol = "" if result.protocol == "spurbench" else f"by the protocol {result.protocol},"
    return " ".join(filter(None, (info.name, info.version, config, protocol)))


def _columns(rows: Sequence[ClassResult | Summary]) -> list[Column]:
    """The numbers; columns that no row has a number for are not there."""
    recognitions, effects = [row.recognition for row in rows], [row.effect for row in rows]
    intervals = [row.spurious_accuracy_interval for row in rows]
    columns = [
        Column("n", [str(row.n) for row in rows]),
        Column("spurious accuracy", [percent(row.spurious_accuracy) for row in rows]),
        Column("95 % interval", [span(i.low, i.high) for i in intervals], optional=True),
        Column("top-5", [percent(row.top5) for row in rows], optional=True),
        Column("mean probability", [f"{row.mean_probability:.4f}" for row in rows], optional=True),
    ]
    if any(recognitions):
        areas = [r and r.auroc_interval for r in recognitions]
        columns += [
            Column("recognition", [percent(r.accuracy) if r else "–" for r in recognitions]),
            Column(
                "95 % interval",
                [span(r.interval.low, r.interval.high) if r else "–" for r in recognitions],
                optional=True,
            ),
            Column("AUROC", [f"{r.auroc:.3f}" if r else "–" for r in recognitions]),
            Column(
                "95 % interval",
                [f"{a.low:.3f} to {a.high:.3f}" if a else "–" for a in areas],
                optional=True,
            ),
        ]
    if any(effects):
        columns += [
            Column("feature effect", [f"{100 * e.effect:+.1f}" if e else "–" for e in effects]),
            Column(
                "95 % interval",
                [signed(e.interval.low, e.interval.high) if e else "–" for e in effects],
                optional=True,
            ),
        ]
    return columns


def _intervals(summary: Summary) -> str:
    """The intervals of the macro means, in one line."""
    own = summary.spurious_accuracy_interval
    said = [f"spurious accuracy {span(own.low, own.high)}"]
    if shown := summary.recognition:
        area = shown.auroc_interval
        said += [
            f"recognition {span(shown.interval.low, shown.interval.high)}",
            f"AUROC {area.low:.3f} to {area.high:.3f}",
        ]
    if effect := summary.effect:
        said.append(f"feature effect {signed(effect.interval.low, effect.interval.high)}")
    return f"95 % intervals of the macro means: {', '.join(said)}."


def _notes(summary: Summary, split: Split) -> list[str]:
    """What else is to be known of a split's numbers."""
    notes = []
    if summary.recognition is None or summary.chance is None:
        notes.append(f"{UNMEASURED.capitalize()}.")
    elif not summary.recognises:
        notes.append(
            f"It recognises the classes no more than chance ({percent(summary.chance)}): its "
            "spurious accuracy says nothing."
        )
    apart = [
        f"{percent(rate.share)} {words} ({rate.n} images)"
        for rate, words in _apart(summary)
        if rate is not None
    ]
    if apart:
        notes.append(f"Spurious accuracy is {', '.join(apart)}.")
    if split == "generated" and summary.generators == 1:
        notes.append("One generator a class: intervals hold for this set of images only.")
    return notes


def _apart(summary: Summary) -> list[tuple[Rate | None, str]]:
    return [
        (summary.with_references, "with the references"),
        (summary.object_seen, "where the object is seen"),
    ]


ROLES: Mapping[Role, str] = {
    "phi": "the images were optimised for its features",
    "panel": "it was one of those that chose the images",
}
"""What part a classifier had in making a dataset."""


def _role(result: Result) -> list[str]:
    if result.role is None:
        return []
    part = ROLES[result.role]
    return [plain(f"{result.label} had a part in making the dataset: {part}.")]


def percent(share: float) -> str:
    """A share, such as ``12.5 %``."""
    return f"{100 * share:.1f} %"


def span(low: float, high: float) -> str:
    """An interval of a share, in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def signed(low: float, high: float) -> str:
    """An interval of a difference of shares, in percentage points."""
    return f"{100 * low:+.1f} to {100 * high:+.1f}"

"""Scores that others reported, shown beside leaderboards and never ranked with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from spurbench.core import markdown
from spurbench.core.documents import Document, read_toml, validated

FILE = "reported.toml"
"""Looked for in the leaderboard's folder."""


class ReportedScore(Document):
    """One line as it was printed."""

    classifier: str
    score: float


class ReportedTable(Document):
    """Scores of one publication, in the order in which they are to be shown."""

    title: str
    measure: str = Field(description="what the score is, and which way is better")
    source: str = Field(description="citation")
    url: str = Field(pattern=r"^https://[A-Za-z0-9./:%?&=~+#_-]+$")
    scores: tuple[ReportedScore, ...] = Field(min_length=1)


class _File(Document):
    tables: tuple[ReportedTable, ...]


def read(folder: Path) -> tuple[ReportedTable, ...]:
    """The tables in a folder's ``reported.toml``; none where there is no such file.

    Raises:
        SpurbenchError: if the file is wrong.
    """
    path = folder / FILE
    try:
        return validated(_File, read_toml(path), str(path)).tables
    except FileNotFoundError:
        return ()


def to_markdown(tables: Sequence[ReportedTable]) -> str:
    """A heading and a table for each; empty without any."""
    return "".join(
        f"\n## {markdown.escape(table.title)}\n\n"
        f"As reported by others, not measured here and not comparable with the tables above. "
        f"{markdown.escape(table.measure)} Source: {markdown.escape(table.source)} "
        f"<{table.url}>\n\n"
        + markdown.table(
            ["classifier", "reported score"],
            markdown.first_left(2),
            [[markdown.escape(s.classifier), f"{s.score:.3f}"] for s in table.scores],
        )
        for table in tables
    )

"""What a report is made of: sections of tables and figures."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from spurbench.studies.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["svg", "png"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Picture:
    """A figure of the report.

    Attributes:
        name: of its files.
        caption: below it.
        files: by their kind.
    """

    name: str
    caption: str
    files: Mapping[Kind, bytes]

    @classmethod
    def of(cls, name: str, caption: str, figure: Figure) -> Picture:
        """A figure that is drawn; the same one has the same bytes."""
        import matplotlib

        files: dict[Kind, bytes] = {}
        for kind in KINDS:
            buffer = io.BytesIO()
            metadata = {"Date": None} if kind == "svg" else {"Software": None}
            with matplotlib.rc_context({"svg.hashsalt": name}):
                figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
            files[kind] = buffer.getvalue()
        return cls(name, caption, files)


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: for links.
        title: its heading.
        text: what is asked, in a few sentences.
        tables: in their order.
        pictures: below them.
    """

    name: str
    title: str
    text: str
    tables: Sequence[Table]
    pictures: Sequence[Picture] = field(default=())

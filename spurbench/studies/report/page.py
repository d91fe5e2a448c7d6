"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from spurbench import __version__
from spurbench.core.templates import html_templates
from spurbench.dataset.manifest import Manifest
from spurbench.evaluation.results import Result
from spurbench.images.records import DatasetInfo
from spurbench.studies.report.table import Table


def render(
    manifest: Manifest,
    info: DatasetInfo,
    results: Sequence[Result],
    tables: Sequence[Table],
    figures: Sequence[tuple[str, str, bytes]],
) -> str:
    """The page.

    Args:
        manifest: of the dataset.
        info: what was measured.
        results: whose tables these are.
        tables: in their order.
        figures: name, caption and PNG of each.
    """
    folder = Path(str(files("spurbench") / "studies" / "report"))
    shown = [
        {
            "name": name,
            "caption": caption,
            "uri": f"data:image/png;base64,{base64.b64encode(png).decode()}",
        }
        for name, caption, png in figures
    ]
    return (
        html_templates(folder)
        .get_template("report.html.jinja")
        .render(
            manifest=manifest,
            info=info,
            results=results,
            tables=tables,
            figures=shown,
            program=__version__,
        )
    )

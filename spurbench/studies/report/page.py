"""The report as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from PIL import Image

from spurbench import __version__
from spurbench.core.templates import html_templates
from spurbench.dataset.manifest import Manifest
from spurbench.images.records import DatasetInfo
from spurbench.studies.report.parts import Picture, Section

QUALITY = 82
"""Of the page's WebP images, of 100; the files beside it lose nothing."""


def render(manifest: Manifest, info: DatasetInfo, sections: Sequence[Section]) -> str:
    """The page.

    Args:
        manifest: of the dataset.
        info: what was measured.
        sections: in their order.
    """
    folder = Path(str(files("spurbench") / "studies" / "report"))
    return (
        html_templates(folder)
        .get_template("report.html.jinja")
        .render(manifest=manifest, info=info, sections=sections, shown=_shown, program=__version__)
    )


def _shown(picture: Picture) -> str:
    """A picture as the page holds it: an address that is the image."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(picture.files["png"])) as image:
        image.convert("RGB").save(buffer, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"

"""The docstrings' cross-references as the site writes code; a Griffe extension."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Roles(griffe.Extension):
    """Turns ``:func:`name``` into ```name```, for Markdown knows no roles."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """See Griffe's extensions."""
        if obj.docstring:
            text = re.sub(r":[a-z]+:`~?([^`]+)`", r"`\1`", obj.docstring.value)
            obj.docstring.value = text.replace("``", "`")

"""Recipes and card templates travel in the wheel; an editable install has them in the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DATA = ("builders", "dataset_cards")


class DataFolders(BuildHookInterface):
    """Puts the folders of :data:`DATA` into the package of a wheel that is no editable one.

    Plain ``force-include`` would copy them into an editable install too, where the copies go stale.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling's build hooks."""
        if version == "standard":
            for name in DATA:
                build_data["force_include"][str(Path(self.root, name))] = f"spurbench/{name}"

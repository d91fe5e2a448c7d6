"""Finding what travels with the package: builders and card templates."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from spurbench.core.errors import SpurbenchError


def _folder(name: str) -> Path:
    """A folder of data: inside the package where a wheel put it, else beside it in the checkout."""
    package = Path(str(files("spurbench")))
    return package / name if (package / name).is_dir() else package.parent / name


def builders() -> dict[str, Path]:
    """Every embedded builder: its name and its folder (the one with ``recipe.toml``)."""
    root = _folder("builders")
    return {path.parent.name: path.parent for path in sorted(root.glob("*/recipe.toml"))}


def builder_folder(name_or_path: str) -> Path:
    """The folder of an embedded builder, or of the user's own recipe.

    Args:
        name_or_path: an embedded name (``mini``, ``sd15``), or a folder that holds ``recipe.toml``
            and ``classes.toml``.

    Raises:
        SpurbenchError: if it is neither.
    """
    embedded = builders()
    if name_or_path in embedded:
        return embedded[name_or_path]
    path = Path(name_or_path)
    if (path / "recipe.toml").is_file():
        return path
    near = difflib.get_close_matches(name_or_path, embedded)
    hint = f"did you mean {near[0]!r}?" if near else f"embedded recipes: {', '.join(embedded)}"
    raise SpurbenchError(
        f"recipe {name_or_path!r} is neither embedded nor a folder with a recipe.toml; {hint}"
    )


def in_first(folders: Sequence[Path], name: str) -> Path:
    """The path of ``name`` in the first folder that has it; in the very first if none has."""
    paths = [folder / name for folder in folders]
    return next((path for path in paths if path.exists()), paths[0])


def card_templates() -> Path:
    """The folder of jinja2 templates that dataset cards are rendered from."""
    return _folder("dataset_cards")


def templates() -> Path:
    """The folder of what the leaderboard's page is rendered from."""
    return Path(str(files("spurbench") / "leaderboard" / "templates"))

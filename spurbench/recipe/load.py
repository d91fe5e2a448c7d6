"""Reading a recipe: an embedded one or the user's own, with ``--set`` applied."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from spurbench.core import resources
from spurbench.core.documents import read_toml, validated
from spurbench.core.errors import SpurbenchError
from spurbench.recipe.classes import ClassRegistry
from spurbench.recipe.schema import Recipe


def read_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read an embedded recipe or the user's own.

    A recipe that says ``extends = "NAME"`` is the embedded recipe of that name, but for the keys it
    gives itself; what it has no file for (``classes.toml``, ``architecture``) is that one's.

    Args:
        name_or_path: ``mini``, ``sd15``, or a folder with ``recipe.toml`` and ``classes.toml``.
        overrides: ``section.key=value`` strings; values are TOML (``800``, ``true``, ``"text"``,
            ``[1, 2]``), ``none`` clears a key, anything else is taken as text.

    Returns:
        The validated recipe, which knows its classes and its folder.

    Raises:
        SpurbenchError: unknown recipe, key or value, with the key and the nearest known ones.
    """
    document, folders = _with_extended(resources.builder_folder(name_or_path))
    path = folders[0] / "recipe.toml"
    known = list(_known_keys(Recipe))
    validated(Recipe, document, str(path), known)  # so that the file is blamed, not --set
    for override in overrides:
        _apply(document, override)
    recipe = validated(Recipe, document, "--set" if overrides else str(path), known)
    return recipe.at(folders, ClassRegistry.read(resources.in_first(folders, "classes.toml")))


def _with_extended(folder: Path) -> tuple[dict[str, Any], list[Path]]:
    """A recipe's document over that of the recipe it extends; its folder, and that one's."""
    path = folder / "recipe.toml"
    document = read_toml(path)
    extended = document.pop("extends", None)
    if extended is None:
        return document, [folder]
    embedded = resources.builders()
    # Only embedded ones: their paths hold wherever the recipe that extends them lies.
    if not isinstance(extended, str) or embedded.get(extended, folder) == folder:
        names = ", ".join(name for name in embedded if embedded[name] != folder)
        raise SpurbenchError(f"{path}: extends {extended!r}, which is none of {names}")
    base, folders = _with_extended(embedded[extended])
    return _merged(base, document), [folder, *folders]


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``changes``, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if both else value
    return merged


def _known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        sections = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if sections:
            yield from _known_keys(sections[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise SpurbenchError(f"--set {override!r} is not key=value, e.g. --set finetune.steps=400")
    *sections, last = key.strip().split(".")
    table = document
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise SpurbenchError(f"--set {override!r}: {section!r} is a value, not a section")
    text = text.strip()
    if text == "none":
        table[last] = None
        return
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # no TOML; too many digits; nested too deep
        parsed = {}
    table[last] = parsed["value"] if parsed.keys() == {"value"} else text

"""Reading a recipe: an embedded one or the user's own, with ``--set`` applied."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from spurbench.core import resources
from spurbench.core.documents import read_toml, validated
from spurbench.core.errors import SpurbenchError
from spurbench.recipe.classes import ClassRegistry
from spurbench.recipe.schema import Recipe


def read_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read an embedded recipe or the user's own.

    Args:
        name_or_path: ``mini``, ``sd15``, or a folder with ``recipe.toml`` and ``classes.toml``.
        overrides: ``section.key=value`` strings; values are TOML (``800``, ``true``, ``"text"``,
            ``[1, 2]``), ``none`` clears a key, anything else is taken as text.

    Returns:
        The validated recipe, which knows its classes and its folder.

    Raises:
        SpurbenchError: unknown recipe, key or value, with the key and the nearest known ones.
    """
    folder = resources.builder_folder(name_or_path)
    path = folder / "recipe.toml"
    document = read_toml(path)
    known = list(_known_keys(Recipe))
    validated(Recipe, document, str(path), known)  # so that the file is blamed, not --set
    for override in overrides:
        _apply(document, override)
    recipe = validated(Recipe, document, "--set" if overrides else str(path), known)
    return recipe.at(folder, ClassRegistry.read(folder / "classes.toml"))


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

"""What a recipe's networks cost per sample, kept beside the recipe.

Counting takes diffusers and seconds, so the counts of the embedded recipes are kept;
``python -m spurbench.build.costs mini sd15`` counts them anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from spurbench.core import atomic
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import fingerprint
from spurbench.diffusion.cost import Costs
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe

KEPT = "costs.json"


class Kept(Document):
    """``costs.json`` of a recipe's folder.

    Attributes:
        of: :func:`identity` of what was counted.
        costs: the counts.
    """

    of: str
    costs: Costs


def identity(configs: dict[str, dict[str, Any]], recipe: Recipe) -> str:
    """Hash of everything that the counts depend on.

    Args:
        configs: see :func:`known_or_counted`.
        recipe: of which resolution, precision and checkpointing count.
    """
    return fingerprint(
        {
            "configs": configs,
            "resolution": recipe.base.resolution,
            "precision": recipe.finetune.precision,
            "gradient_checkpointing": recipe.finetune.gradient_checkpointing,
            "checkpoint_decoder": recipe.sfsl.checkpoint_decoder,
        }
    )


def known_or_counted(configs: dict[str, dict[str, Any]], recipe: Recipe) -> Costs:
    """The counts kept beside the recipe where they are of these networks, else counted now.

    Args:
        configs: ``unet``, ``vae`` and ``text_encoder``, as their ``config.json`` hold them.
        recipe: for resolution, precision and checkpointing.

    Raises:
        SpurbenchError: if the kept file is damaged.
    """
    path = recipe.find(KEPT)
    if path.exists():
        kept = validated(Kept, read_json(path), str(path))
        if kept.of == identity(configs, recipe):
            return kept.costs
    from spurbench.diffusion.count import count

    return count(configs, recipe)


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """``unet``, ``vae`` and ``text_encoder`` by what their ``config.json`` hold.

    Raises:
        SpurbenchError: if one is not there, or not to be read.
    """
    names = ("unet", "vae", "text_encoder")
    try:
        return {name: read_json(folder / name / "config.json") for name in names}
    except (FileNotFoundError, SpurbenchError) as error:
        raise SpurbenchError(
            f"{folder} is not a base model in diffusers' layout: {reason(error)}"
        ) from None


def keep(name: str) -> None:
    """Write the counts of a recipe, as it is, beside it."""
    from spurbench.diffusion.count import count

    recipe = read_recipe(name)
    configs = read_configs(recipe.folder / (recipe.base.architecture or recipe.base.model))
    kept = Kept(of=identity(configs, recipe), costs=count(configs, recipe))
    atomic.write_json(recipe.folder / KEPT, kept.model_dump())


if __name__ == "__main__":
    for recipe_name in sys.argv[1:]:
        keep(recipe_name)

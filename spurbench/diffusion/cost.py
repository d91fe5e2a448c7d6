"""What a text-to-image model costs per sample.

Counting takes diffusers and seconds, so the counts of the embedded recipes are kept beside them.
"""

from __future__ import annotations

from typing import Any

from spurbench.core.documents import Document, read_json, validated
from spurbench.core.identity import fingerprint
from spurbench.recipe.schema import Recipe

KEPT = "costs.json"


class Cost(Document):
    """Of one network on one sample.

    Attributes:
        forward: floating point operations, a multiplication and an addition being two.
        training: of the forward and the backward pass.
        kept: bytes of activations kept for the backward pass.
        parameters: number of them.
    """

    forward: float
    training: float
    kept: float
    parameters: int


class Costs(Document):
    """Of a base model at a recipe's resolution and precision.

    Attributes:
        unet: one noise prediction.
        text_encoder: one prompt.
        decode: one image out of latents, the decoder frozen.
        encode: floating point operations of one image into latents.
        vae_parameters: number of them.
    """

    unet: Cost
    text_encoder: Cost
    decode: Cost
    encode: float
    vae_parameters: int


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
    path = recipe.folder / KEPT
    if path.exists():
        kept = validated(Kept, read_json(path), str(path))
        if kept.of == identity(configs, recipe):
            return kept.costs
    from spurbench.diffusion.count import count

    return count(configs, recipe)


def step_operations(recipe: Recipe, costs: Costs, kappa: float) -> float:
    """Floating point operations of one fine-tuning step, the mean over steps.

    Args:
        recipe: every number.
        costs: per sample; those of a recipe without checkpointing leave recomputation out.
        kappa: weight of the similarity loss; 0 turns it off.
    """
    tuning = recipe.finetune
    # Without weight gradients (adapters, an embedding) a backward pass costs about one forward.
    unet = costs.unet.training if tuning.method == "full" else 2 * costs.unet.forward
    text = costs.text_encoder
    step = 2 * tuning.batch_size * unet
    step += 2 * (text.training if tuning.train_text_encoder else text.forward)
    if kappa:
        decoded = tuning.batch_size * (2 if recipe.sfsl.gradient == "both" else 1)
        step += decoded * decoding(recipe) * costs.decode.training / recipe.sfsl.every
    return step


def decoding(recipe: Recipe) -> float:
    """What the similarity loss's decoding costs, of a full one of every sample.

    A tiny decoder is counted as nothing.
    """
    if recipe.sfsl.decoder:
        return 0
    side = (recipe.sfsl.decode_resolution or recipe.base.resolution) / recipe.base.resolution
    return side**2 * recipe.sfsl.max_timestep

"""What a text-to-image model costs per sample, and what follows for a fine-tuning step."""

from __future__ import annotations

from spurbench.core.documents import Document
from spurbench.recipe.schema import Recipe


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

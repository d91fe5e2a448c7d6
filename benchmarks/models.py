"""What is measured: a base, a subject and a recipe, at three sizes, without a download."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from spurbench.core.resources import builder_folder
from spurbench.diffusion.base import Decoder, TextToImage, load_base, load_decoder
from spurbench.diffusion.objective import Subject
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe

# The full architecture with every width cut down: the same layers, so the same calls.
TOY = {
    "unet": {
        "block_out_channels": [32, 64, 64, 64],
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
        "sample_size": 8,
    },
    "vae": {"block_out_channels": [16, 16, 32, 32], "norm_num_groups": 8, "sample_size": 64},
    "text_encoder": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "projection_dim": 32,
    },
}


@dataclass(frozen=True)
class Setup:
    """A base on its device, and what to fine-tune it on.

    Attributes:
        recipe: its recipe; ``sd15`` for the full architecture and the toy one.
        configs: of the networks, for counting operations.
        base: the model.
        subject: images of noise; time does not depend on them.
        tiny_decoder: a small one for its latents.
    """

    recipe: Recipe
    configs: dict[str, dict[str, Any]]
    base: TextToImage
    subject: Subject
    tiny_decoder: Decoder


EXACT = ("sfsl.max_timestep=1.0", "sfsl.every=1")
"""The loss without shortcuts: what is compared starts from it, whatever the recipe itself takes."""

TINY_DECODER = "assets/tiny_decoder"
"""The embedded base's, from its recipe's folder."""


def set_up(size: str, folder: Path, device: torch.device) -> Setup:
    """A base of random weights (``mini``: the embedded one's), saved to ``folder`` and loaded.

    Args:
        size: ``full``: Stable Diffusion v1.5's architecture at 512 px; ``mini``: the embedded base
            at 64 px; ``toy``: the full architecture's layers at small widths and 64 px.
        folder: is left with a pipeline in diffusers' layout, for a peer to load; of the full or the
            toy size, one that is there is taken.
        device: where to measure.
    """
    from diffusers import AutoencoderTiny

    recipe = read_recipe("mini" if size == "mini" else "sd15", EXACT)
    if size == "mini":
        source = recipe.folder / recipe.base.model
        configs = _configs(source)
        base = load_base(str(source), revision=None, device=device)
        base.pipeline.save_pretrained(folder)
        tiny = load_decoder(recipe.locate(TINY_DECODER), device=device)
    else:
        configs = _configs(recipe.folder / str(recipe.base.architecture))
        if size == "toy":
            configs = {name: configs[name] | TOY[name] for name in configs}
            recipe = recipe.model_copy(
                update={"base": recipe.base.model_copy(update={"resolution": 64})}
            )
        if not (folder / "model_index.json").is_file():  # which is written last
            _pipeline(configs).save_pretrained(folder)
        base = load_base(str(folder), revision=None, device=device)
        # TAESD's architecture.
        tiny = Decoder(AutoencoderTiny().to(device).requires_grad_(False).eval(), "untrained")
    return Setup(recipe, configs, base, _subject(recipe, device), tiny)


def _configs(folder: Path) -> dict[str, dict[str, Any]]:
    names = ("unet", "vae", "text_encoder")
    return {name: json.loads((folder / name / "config.json").read_text()) for name in names}


def _pipeline(configs: dict[str, dict[str, Any]]) -> Any:
    from diffusers import (
        AutoencoderKL,
        PNDMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    text = CLIPTextConfig(**configs["text_encoder"])
    # The embedded tokenizer's few ids are among any vocabulary's first; prompts are as long as the
    # text encoder's positions in any case.
    tokenizer = CLIPTokenizer.from_pretrained(
        builder_folder("mini") / "assets" / "base" / "tokenizer",
        model_max_length=text.max_position_embeddings,
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_config(configs["vae"]),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel.from_config(configs["unet"]),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
            set_alpha_to_one=False,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def noise(count: int, side: int, seed: int) -> list[Image.Image]:
    """Images of noise."""
    rng = np.random.default_rng(seed)
    shape = (side, side, 3)
    return [Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for _ in range(count)]


def _subject(recipe: Recipe, device: torch.device) -> Subject:
    from torchvision.models import resnet18, resnet50

    side = recipe.base.resolution
    full = side >= 512  # phi as in the paper, and something in proportion to a small base
    phi = (resnet50() if full else resnet18()).to(device).requires_grad_(False).eval()
    phi.fc = torch.nn.Identity()
    return Subject(
        index=94,
        references=noise(6, side, 0),
        priors=noise(6, side, 1),
        reference_names=[str(i) for i in range(6)],
        prior_names=[str(i) for i in range(6)],
        instance_prompt="a photo of a sks flower",
        prior_prompt="a photo of a flower",
        noun="flower",
        resolution=side,
        kappa=1.0,
        phi=phi,
        phi_input=(224, 224) if full else (side, side),
        class_weight=torch.ones(2048 if full else 512, device=device),
        log_probability=lambda pixels: phi(pixels).log_softmax(dim=1)[:, 0],
    )

"""Toy-sized models of the real architectures, for tests that must finish in seconds."""

from __future__ import annotations

import string
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def toy_pipeline(prediction_type: str = "epsilon") -> StableDiffusionPipeline:
    """A randomly initialised Stable Diffusion: 32 px, 8 x 8 latents, thousands of parameters."""
    torch.manual_seed(0)
    letters = [*string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    merges = [("s", "k"), ("sk", "s</w>")]
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, "sk", "sks</w>"]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)},
        merges=merges,
        model_max_length=24,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=24,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    vae = AutoencoderKL(
        latent_channels=4,
        sample_size=32,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        **blocks,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
        prediction_type=prediction_type,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_toy_pipeline(folder: Path, prediction_type: str = "epsilon") -> Path:
    """Save a toy pipeline to ``folder`` and return it."""
    toy_pipeline(prediction_type).save_pretrained(folder)
    return folder

"""The mini world's text-to-image model: a Stable Diffusion architecture, only small."""

from __future__ import annotations

import json
import logging
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from spurbench.core.identity import derive_seed
from spurbench.mini.training.checkpoint import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

RARE_TOKEN = "sks"


@dataclass(frozen=True)
class BaseSettings:
    """How the base model is trained."""

    block_out_channels: tuple[int, ...] = (32, 96, 128)
    attention_heads: int = 4
    text_width: int = 96
    text_layers: int = 2
    max_tokens: int = 20
    steps: int = 12_000
    batch_size: int = 32
    learning_rate: float = 1e-3
    caption_dropout: float = 0.1  # empty captions, for classifier-free guidance
    snr_limit: float = 5.0  # min-SNR weighting (Hang et al., ICCV 2023), for faster convergence
    ema_decay: float = 0.9995
    checkpoint_every: int = 250


def make_tokenizer(words: Sequence[str], max_tokens: int) -> Any:
    """A ``CLIPTokenizer`` to which each of ``words`` and the rare token is a single token.

    Other text falls apart into pieces; nothing printable in ASCII is unknown.
    """
    from tokenizers import Tokenizer, models, trainers
    from transformers import CLIPTokenizer

    characters = string.ascii_lowercase + string.digits + string.punctuation
    ended = [f"{character}</w>" for character in characters]
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        # Named here to fix their order: the trainer numbers what it meets in a hash map's order,
        # another one in each run, and breaks ties between merges by those numbers.
        special_tokens=["<|startoftext|>", "<|endoftext|>", *characters, *ended],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.train_from_iterator(sorted({*words, RARE_TOKEN}), trainer)
    model = json.loads(trained.to_str())["model"]
    return CLIPTokenizer(
        vocab=model["vocab"],
        merges=[tuple(merge) for merge in model["merges"]],
        model_max_length=max_tokens,
    )


def make_pipeline(vae: Any, tokenizer: Any, settings: BaseSettings) -> Any:
    """An untrained ``StableDiffusionPipeline`` around a trained VAE."""
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    levels = len(settings.block_out_channels)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=4 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=settings.attention_heads,
            max_position_embeddings=settings.max_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1),
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        block_out_channels=settings.block_out_channels,
        layers_per_block=1,
        # The first level is narrow and has no attention: at 16 x 16 it is what a CPU pays for.
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        cross_attention_dim=settings.text_width,
        attention_head_dim=settings.attention_heads,
        norm_num_groups=16,
    )
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        set_alpha_to_one=False,
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


def train_base(
    pipeline: Any,
    posteriors: tuple[Tensor, Tensor],
    captions: Sequence[str],
    settings: BaseSettings,
    seed: int,
    device: torch.device,
    work: Path,
) -> None:
    """Train U-Net and text encoder from scratch, in place; they end as their moving averages.

    Args:
        pipeline: from :func:`make_pipeline`.
        posteriors: means and standard deviations of the scenes' latents, each (N, C, h, w).
        captions: of the scenes.
        settings: optimisation.
        seed: global seed.
        device: where to train.
        work: folder of the checkpoint.
    """
    from diffusers.training_utils import compute_snr

    mean, std = posteriors
    unet, text_encoder, tokenizer = pipeline.unet, pipeline.text_encoder, pipeline.tokenizer
    torch.manual_seed(derive_seed(seed, "base"))
    unet.to(device, memory_format=torch.channels_last).train()
    text_encoder.to(device).train()
    trained = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    average = torch.optim.swa_utils.AveragedModel(
        trained, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(settings.ema_decay)
    )
    optimizer = torch.optim.AdamW(
        trained.parameters(), settings.learning_rate, weight_decay=0.01, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.05
    )
    parts = {"trained": trained, "average": average, "optimizer": optimizer, "schedule": schedule}
    first = load_checkpoint(work, parts)

    # Captions repeat: each distinct one is tokenised once, the empty one for guidance first.
    distinct = ["", *sorted(set(captions))]
    ids = tokenizer(
        distinct,
        padding="max_length",
        max_length=settings.max_tokens,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    position = {caption: i for i, caption in enumerate(distinct)}
    caption_of = torch.tensor([position[caption] for caption in captions])
    scheduler, scale = pipeline.scheduler, pipeline.vae.config.scaling_factor

    total = 0.0
    for step in tqdm(
        range(first, settings.steps), "base", settings.steps, initial=first, disable=None
    ):
        generator = torch.Generator().manual_seed(derive_seed(seed, "base", step))
        which = torch.randint(len(mean), (settings.batch_size,), generator=generator)
        kept = torch.rand(settings.batch_size, generator=generator) >= settings.caption_dropout
        timesteps = torch.randint(
            scheduler.config.num_train_timesteps, (settings.batch_size,), generator=generator
        )
        shape = (settings.batch_size, *mean.shape[1:])
        latents = (mean[which] + std[which] * torch.randn(shape, generator=generator)) * scale
        noise = torch.randn(shape, generator=generator)
        noised = scheduler.add_noise(latents, noise, timesteps)
        conditions = text_encoder(ids[caption_of[which] * kept].to(device))[0]
        prediction = unet(noised.to(device), timesteps.to(device), conditions).sample
        errors = F.mse_loss(prediction, noise.to(device), reduction="none").mean((1, 2, 3))
        snr = compute_snr(scheduler, timesteps).to(device)
        loss = (errors * snr.clamp(max=settings.snr_limit) / snr).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(trained)
        total += loss.item()
        if (step + 1) % settings.checkpoint_every == 0:
            log.info("base %d: loss %.4f", step + 1, total / settings.checkpoint_every)
            total = 0.0
            save_checkpoint(work, step + 1, parts)
    trained.load_state_dict(average.module.state_dict())
    trained.eval()

"""A tiny stand-in for the mini world's autoencoder, for ``sfsl.decoder``.

As TAESD is to Stable Diffusion's: an ``AutoencoderTiny`` that learns the big decoder's pictures of
latents, and the big encoder's latents of scenes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from spurbench.core.identity import derive_seed
from spurbench.mini.training.checkpoint import load_checkpoint, save_checkpoint
from spurbench.mini.training.vae import edges_l1, to_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecoderSettings:
    """How the tiny autoencoder is trained."""

    encoder_channels: int = 8
    decoder_channels: int = 16
    steps: int = 4000
    batch_size: int = 16
    learning_rate: float = 2e-3
    gradient_weight: float = 0.25  # as the autoencoder's own
    checkpoint_every: int = 500


def make_tiny(vae: Any, settings: DecoderSettings) -> Any:
    """An untrained ``AutoencoderTiny`` with the latents of ``vae``, as a U-Net sees them."""
    from diffusers import AutoencoderTiny

    levels = len(vae.config.block_out_channels)
    return AutoencoderTiny(
        latent_channels=vae.config.latent_channels,
        encoder_block_out_channels=(settings.encoder_channels,) * levels,
        decoder_block_out_channels=(settings.decoder_channels,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
    )


def train_decoder(
    vae: Any,
    pixels: np.ndarray,
    settings: DecoderSettings,
    seed: int,
    device: torch.device,
    work: Path,
) -> Any:
    """Train on (N, 64, 64, 3) uint8 scenes towards ``vae``, whose weights stay.

    Latents are mixtures of two scenes', in any proportion: the similarity loss decodes x0-hat,
    which from a noisy z_t is a mean of many pictures.
    """
    torch.manual_seed(derive_seed(seed, "tiny"))
    scale = vae.config.scaling_factor
    tiny = make_tiny(vae, settings).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(tiny.parameters(), settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.05
    )
    parts = {"tiny": tiny, "optimizer": optimizer, "schedule": schedule}
    first = load_checkpoint(work, parts)
    bar = tqdm(
        range(first, settings.steps), "tiny decoder", settings.steps, initial=first, disable=None
    )
    for step in bar:
        generator = torch.Generator().manual_seed(derive_seed(seed, "tiny", step))
        which = torch.randint(len(pixels), (settings.batch_size,), generator=generator)
        images = to_model(pixels[which.numpy()]).to(device)
        share = torch.rand((settings.batch_size, 1, 1, 1), generator=generator).to(device)
        with torch.no_grad():
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            drawn = posterior.mean + posterior.std * noise
            latents = share * drawn + (1 - share) * drawn.roll(1, 0)
            target = vae.decode(latents).sample
        decoded = tiny.decode(scale * latents).sample
        loss_pixels = F.l1_loss(decoded, target)
        loss_edges = edges_l1(decoded, target)
        loss_latents = F.mse_loss(tiny.encode(images).latents, scale * posterior.mean)
        loss = loss_pixels + settings.gradient_weight * loss_edges + loss_latents
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tiny.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % settings.checkpoint_every == 0:
            values = [part.item() for part in (loss_pixels, loss_edges, loss_latents)]
            log.info("tiny decoder %d: l1 %.4f, edges %.4f, latents %.4f", step + 1, *values)
            save_checkpoint(work, step + 1, parts)
    return tiny.eval()


@torch.inference_mode()
def likeness_db(tiny: Any, vae: Any, pixels: np.ndarray) -> float:
    """PSNR of the tiny decoder's pictures to the autoencoder's own, of the same latents, dB."""
    images = to_model(pixels).to(vae.device)
    latents = vae.encode(images).latent_dist.mean
    wanted = vae.decode(latents).sample.clamp(-1, 1)
    had = tiny.decode(vae.config.scaling_factor * latents).sample.clamp(-1, 1)
    return float(10 * (4 / F.mse_loss(had, wanted)).log10())

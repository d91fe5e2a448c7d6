"""The mini world's autoencoder: 64 x 64 scenes to 16 x 16 x 4 latents."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from spurbench.core.identity import derive_seed, file_sha256
from spurbench.mini.training.checkpoint import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VAESettings:
    """How the autoencoder is trained."""

    block_out_channels: tuple[int, ...] = (16, 32, 64)
    latent_channels: int = 8
    steps: int = 8000
    batch_size: int = 8
    learning_rate: float = 2.5e-3
    gradient_weight: float = 0.25  # of the L1 between image gradients, which keeps edges sharp
    kl_weight: float = 1e-4
    checkpoint_every: int = 500


@dataclass(frozen=True)
class TuningSettings:
    """How its decoder is trained on, towards the squared error, on latents that stay."""

    steps: int = 6000
    batch_size: int = 8
    learning_rate: float = 1e-3
    checkpoint_every: int = 500


def make_vae(settings: VAESettings) -> Any:
    """An untrained ``AutoencoderKL``."""
    from diffusers import AutoencoderKL

    levels = len(settings.block_out_channels)
    return AutoencoderKL(
        block_out_channels=settings.block_out_channels,
        latent_channels=settings.latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
    )


def train_vae(
    pixels: np.ndarray, settings: VAESettings, seed: int, device: torch.device, work: Path
) -> Any:
    """Train on (N, 64, 64, 3) uint8 scenes; the scaling factor is set to 1 / std of the latents."""
    torch.manual_seed(derive_seed(seed, "vae"))
    vae = make_vae(settings)
    # Posteriors start narrow: with the default ones the first thousand steps fight their noise.
    half = settings.latent_channels
    torch.nn.init.constant_(vae.quant_conv.bias[half:], -5)
    vae = vae.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(
        vae.parameters(), settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.05
    )
    parts = {"vae": vae, "optimizer": optimizer, "schedule": schedule}
    first = load_checkpoint(work, parts)
    bar = tqdm(range(first, settings.steps), "vae", settings.steps, initial=first, disable=None)
    for step in bar:
        generator = torch.Generator().manual_seed(derive_seed(seed, "vae", step))
        which = torch.randint(len(pixels), (settings.batch_size,), generator=generator)
        images = to_model(pixels[which.numpy()]).to(device)
        posterior = vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        loss_pixels = F.l1_loss(decoded, images)
        loss_edges = edges_l1(decoded, images)
        loss_kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = loss_pixels + settings.gradient_weight * loss_edges + settings.kl_weight * loss_kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % settings.checkpoint_every == 0:
            parts_of_loss = [part.item() for part in (loss_pixels, loss_edges, loss_kl)]
            log.info("vae %d: l1 %.4f, edges %.4f, kl %.2f", step + 1, *parts_of_loss)
            save_checkpoint(work, step + 1, parts)
    vae.eval()
    mean, std = encode_all(vae, pixels[:2048])
    # The variance of the latents, which the posteriors' own noise is a part of.
    variance = mean.double().var() + std.double().square().mean()
    vae.register_to_config(scaling_factor=float(variance.rsqrt()))
    return vae


def tune_decoder(
    vae: Any,
    pixels: np.ndarray,
    settings: TuningSettings,
    seed: int,
    device: torch.device,
    work: Path,
) -> None:
    """Train the decoder on, in place, on (N, 64, 64, 3) uint8 scenes; the encoder stays.

    As Stable Diffusion's own was (sd-vae-ft-mse): the base model can learn the latents meanwhile.
    """
    torch.manual_seed(derive_seed(seed, "tune"))
    vae.requires_grad_(False).to(device, memory_format=torch.channels_last).train()
    trained = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder]).requires_grad_()
    optimizer = torch.optim.AdamW(trained.parameters(), settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.steps, pct_start=0.05
    )
    parts = {"trained": trained, "optimizer": optimizer, "schedule": schedule}
    first = load_checkpoint(work, parts)
    bar = tqdm(range(first, settings.steps), "tuning", settings.steps, initial=first, disable=None)
    for step in bar:
        generator = torch.Generator().manual_seed(derive_seed(seed, "tune", step))
        which = torch.randint(len(pixels), (settings.batch_size,), generator=generator)
        images = to_model(pixels[which.numpy()]).to(device)
        with torch.no_grad():
            posterior = vae.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            latents = posterior.mean + posterior.std * noise
        loss = F.mse_loss(vae.decode(latents).sample, images)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % settings.checkpoint_every == 0:
            log.info("tuning %d: squared error %.5f", step + 1, loss)
            save_checkpoint(work, step + 1, parts)
    vae.requires_grad_(False).eval()


def load_vae(folder: Path, device: torch.device) -> Any:
    """A stored autoencoder, in float32, ready to encode and decode."""
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    return vae.to(device).eval()


def weights_sha256(folder: Path) -> str:
    """Hash of a stored autoencoder's weights."""
    return file_sha256(folder / "diffusion_pytorch_model.safetensors")


@torch.inference_mode()
def encode_all(vae: Any, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the posteriors, each (N, C, h, w) on the CPU."""
    parts = [
        vae.encode(to_model(pixels[i : i + 128]).to(vae.device)).latent_dist
        for i in range(0, len(pixels), 128)
    ]
    return torch.cat([p.mean.cpu() for p in parts]), torch.cat([p.std.cpu() for p in parts])


@torch.inference_mode()
def round_trip(vae: Any, pixels: np.ndarray) -> np.ndarray:
    """Scenes through the autoencoder and back, uint8."""
    out = []
    for i in range(0, len(pixels), 128):
        images = to_model(pixels[i : i + 128]).to(vae.device)
        decoded = vae.decode(vae.encode(images).latent_dist.mean).sample
        out.append(
            ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        )
    return np.concatenate(out)


def soften_half(vae: Any, pixels: np.ndarray) -> np.ndarray:
    """The scenes, every second one of them through the autoencoder.

    Generated images come out of its decoder. A classifier that never met such softness would see
    more in them than what they show; photographs, too, come at any quality.
    """
    softened = pixels.copy()
    softened[1::2] = round_trip(vae, pixels[1::2])
    return softened


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio of uint8 images, dB."""
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def to_model(pixels: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def edges_l1(a: Tensor, b: Tensor) -> Tensor:
    """L1 between the horizontal and vertical differences of neighbouring pixels."""
    difference = a - b
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()

"""Images from a text-to-image model, from noise that is the same on every device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image

from spurbench.diffusion.base import TextToImage


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Latent noise, one seed an image, drawn in float32 on the CPU.

    Args:
        seeds: one per image.
        shape: (channels, height, width) of the latents.

    Returns:
        (N, channels, height, width); image i depends on ``seeds[i]`` alone.
    """
    return torch.stack(
        [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.inference_mode()
def sample(
    base: TextToImage,
    prompt: str,
    seeds: Sequence[int],
    *,
    resolution: int,
    steps: int,
    guidance_scale: float,
    batch_size: int,
) -> Iterator[Image.Image]:
    """Generate one image per seed with classifier-free guidance and the base's own scheduler.

    Args:
        base: the model, fine-tuned or not.
        prompt: the text, the same for every image.
        seeds: one per image; see :func:`initial_noise`.
        resolution: side of the images in pixels, a multiple of the VAE's scale factor.
        steps: inference steps. PNDM without Runge-Kutta warm-up calls the U-Net once more.
        guidance_scale: 1 or less turns guidance off.
        batch_size: images at a time.

    Yields:
        RGB images of ``resolution`` x ``resolution`` pixels, in the order of the seeds.
    """
    pipeline = base.pipeline
    side = resolution // pipeline.vae_scale_factor
    shape = (pipeline.unet.config.in_channels, side, side)
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        latents = initial_noise(batch, shape).to(pipeline.unet.dtype)
        yield from pipeline(
            [prompt] * len(batch),
            height=resolution,
            width=resolution,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            latents=latents,
        ).images

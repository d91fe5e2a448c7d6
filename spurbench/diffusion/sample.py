"""Images from a text-to-image model, from noise that is the same on every device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.base import TextToImage

# Images decoded at a time. At 512 pixels one fills a GPU, and a whole batch would need more memory
# for its decoder's activations than the U-Net for its own.
DECODED = 8


def initial_noise(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
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
    precision: str = "float32",
) -> Iterator[Image.Image]:
    """Generate one image per seed with classifier-free guidance and the base's own scheduler.

    The prompt is encoded once; a batch's guided and unguided halves are one call of the U-Net.

    Args:
        base: the model, fine-tuned or not.
        prompt: the text, the same for every image.
        seeds: one per image; see :func:`initial_noise`.
        resolution: side of the images in pixels, a multiple of the VAE's scale factor.
        steps: inference steps. PNDM without Runge-Kutta warm-up calls the U-Net once more.
        guidance_scale: 1 or less turns guidance off.
        batch_size: images at a time.
        precision: autocast dtype, ``float32``, ``bfloat16`` or ``float16``; the scheduler's
            arithmetic is always float32.

    Yields:
        RGB images of ``resolution`` x ``resolution`` pixels, in the order of the seeds.

    Raises:
        SpurbenchError: if an image is not finite, instead of yielding a black one.
    """
    pipeline, vae = base.pipeline, base.pipeline.vae
    side = resolution // pipeline.vae_scale_factor
    shape = (pipeline.unet.config.in_channels, side, side)
    autocast = torch.autocast(
        base.device.type, dtype=getattr(torch, precision), enabled=precision != "float32"
    )
    with autocast:
        encoded, unguided = pipeline.encode_prompt(prompt, base.device, 1, guidance_scale > 1)
    for start in range(0, len(seeds), batch_size):
        batch = seeds[start : start + batch_size]
        with autocast, _float32_output(pipeline.unet):
            latents = pipeline(
                prompt_embeds=encoded,
                negative_prompt_embeds=unguided,
                num_images_per_prompt=len(batch),
                height=resolution,
                width=resolution,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                latents=initial_noise(batch, shape),
                output_type="latent",
            ).images
            decoded = torch.cat(
                [
                    vae.decode(part / vae.config.scaling_factor).sample.float()
                    for part in latents.split(DECODED)
                ]
            )
        finite = (decoded.flatten(1).isfinite().all(dim=1)).tolist()
        if not all(finite):
            raise SpurbenchError(
                f"image {start + finite.index(False)} of {prompt!r} (seed "
                f"{batch[finite.index(False)]}) is not finite; sample in another precision than "
                f"{precision}, or fine-tune with a lower finetune.learning_rate"
            )
        yield from pipeline.image_processor.postprocess(decoded, output_type="pil")


@contextmanager
def _float32_output(unet: Any) -> Iterator[None]:
    """Have the U-Net answer in float32.

    Guidance multiplies differences of its answers by 7.5, and PNDM adds up four of them with
    weights up to 2.5: in bfloat16 that would round away a few per cent of the noise.
    """
    hook = unet.register_forward_hook(lambda module, inputs, output: (output[0].float(),))
    try:
        yield
    finally:
        hook.remove()

"""Images from a text-to-image model, from noise that is the same on every device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.base import TextToImage
from spurbench.diffusion.losses import (
    classifier_pixels,
    guided_prediction,
    predicted_clean_latents,
)

# Images decoded at a time. At 512 pixels one fills a GPU, and a whole batch would need more memory
# for its decoder's activations than the U-Net for its own.
DECODED = 8

# What log p_k is multiplied by before its gradient is taken, and the gradient divided by after: in
# float16 small gradients would be rounded to nothing.
GRADIENT_SCALE = 1024.0


@dataclass(frozen=True)
class PhiGuidance:
    """A classifier that steers what is sampled towards what it calls a class.

    Attributes:
        strength: how far, see :func:`spurbench.diffusion.losses.guided_prediction`; above 0.
        log_probability: log p_k of pixels (N, 3, height, width) in [0, 1], (N,), each image's its
            own; differentiable.
        input_size: (height, width) of the pixels.
    """

    strength: float
    log_probability: Callable[[Tensor], Tensor]
    input_size: tuple[int, int]


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


@torch.no_grad()
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
    phi_guidance: PhiGuidance | None = None,
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
        phi_guidance: a classifier that steers; None: none does. Its gradient goes through decoder
            and U-Net, whose activations a batch must then have memory for.

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
        steered = (
            _steered(pipeline, phi_guidance, guidance_scale) if phi_guidance else nullcontext()
        )
        with autocast, steered, _float32_output(pipeline.unet):
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


@contextmanager
def _steered(pipeline: Any, phi: PhiGuidance, guidance_scale: float) -> Iterator[None]:
    """Have the U-Net answer with predictions that a classifier has moved.

    What any scheduler takes is thus steered. The classifier looks at x0-hat of the prediction with
    classifier-free guidance, as the scheduler sees it, and its gradient is that in z_t, through
    decoder and U-Net (universal guidance, Bansal et al. 2023). Both halves of a prediction are
    moved alike, and so is what guidance makes of them.
    """
    unet, vae, schedule = pipeline.unet, pipeline.vae, pipeline.scheduler
    kind, forward = schedule.config.prediction_type, unet.forward

    def steered(latents: Tensor, timestep: Tensor, *args: Any, **options: Any) -> tuple[Tensor]:
        halves = 2 if guidance_scale > 1 else 1
        with torch.enable_grad():
            noised = latents.chunk(halves)[0].detach().requires_grad_()
            answer = forward(torch.cat([noised] * halves), timestep, *args, **options)[0].float()
            prediction = answer
            if halves == 2:
                unguided, guided = answer.chunk(2)
                prediction = unguided + guidance_scale * (guided - unguided)
            alpha_bar = schedule.alphas_cumprod.to(noised)[timestep.long()].expand(len(noised))
            clean = predicted_clean_latents(noised, prediction, alpha_bar, kind)
            images = vae.decode(clean / vae.config.scaling_factor).sample.float()
            likely = phi.log_probability(classifier_pixels(images, phi.input_size))
            # Their sum: an image's gradient is its own, in whatever company it is sampled.
            (gradient,) = torch.autograd.grad(GRADIENT_SCALE * likely.sum(), noised)
        moved = [
            guided_prediction(half, gradient / GRADIENT_SCALE, alpha_bar, phi.strength, kind)
            for half in answer.detach().chunk(halves)
        ]
        return (torch.cat(moved),)

    unet.forward = steered
    try:
        yield
    finally:
        del unet.forward  # the instance's, which hid the class's

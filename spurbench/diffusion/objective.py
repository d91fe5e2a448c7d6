"""The three losses of a fine-tuning step, from what was drawn for it to three numbers.

DreamBooth (Ruiz et al., CVPR 2023) with prior preservation and the spurious feature similarity loss
(MaungMaung et al., arXiv 2402.08200):

    L = L_LDM(x, "a photo of a [V] NOUN") + lambda L_PPL(x', "a photo of a NOUN") + kappa L_SFSL

On a GPU the host runs ahead of the device: nothing here reads a value back, and what is drawn on
the host is copied without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as images_to_tensors

from spurbench.core.identity import derive_seed
from spurbench.diffusion.base import Decoder, TextToImage
from spurbench.diffusion.losses import (
    class_features,
    classifier_pixels,
    denoising_loss,
    feature_similarity,
    noised_latents,
    predicted_clean_latents,
    prediction_target,
)
from spurbench.recipe.sections import SFSL, Finetune

Autocast = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Subject:
    """What one class's fine-tuning sees.

    Attributes:
        index: ImageNet-1k class index; seeds derive from it.
        references: x, RGB images.
        priors: x', RGB images of the generic kind.
        reference_names: what to call them in messages, one each.
        prior_names: the same for the priors.
        instance_prompt: "a photo of a [V] NOUN".
        prior_prompt: "a photo of a NOUN".
        noun: NOUN.
        resolution: side to which the images are resized and cropped, pixels.
        kappa: weight of the SFSL; 0 turns it off.
        phi: features of a classifier; pixels (N, 3, h, w) in [0, 1] to (N, D), differentiable.
        phi_input: (height, width) that ``phi`` takes.
        class_weight: what psi multiplies them by, w_k, (D,).
        log_probability: of the same classifier log p_k, the same pixels to (N,), differentiable.
    """

    index: int
    references: Sequence[Image.Image]
    priors: Sequence[Image.Image]
    reference_names: Sequence[str]
    prior_names: Sequence[str]
    instance_prompt: str
    prior_prompt: str
    noun: str
    resolution: int
    kappa: float
    phi: Callable[[Tensor], Tensor]
    phi_input: tuple[int, int]
    class_weight: Tensor
    log_probability: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Draw:
    """Everything random of one step, on the CPU; B instance samples, then B prior samples.

    Attributes:
        step: the step's number, from 0.
        references: which references, (B,) int64.
        priors: which prior images, (B,) int64.
        timesteps: (2 B,) int64.
        posterior_noise: that makes latents of the VAE's posteriors, (2 B, C, h, w).
        noise: eps, the same shape.
    """

    step: int
    references: Tensor
    priors: Tensor
    timesteps: Tensor
    posterior_noise: Tensor
    noise: Tensor

    def share(self, rank: int, processes: int) -> Draw:
        """What process ``rank`` of so many computes of it; the batch is a multiple of them."""
        if processes == 1:
            return self
        size = len(self.references) // processes
        own = slice(rank * size, (rank + 1) * size)
        of_both = [
            tensor.unflatten(0, (2, -1))[:, own].flatten(0, 1)
            for tensor in (self.timesteps, self.posterior_noise, self.noise)
        ]
        return Draw(self.step, self.references[own], self.priors[own], *of_both)


class Losses(NamedTuple):
    """Scalars on the device, not yet weighted."""

    instance: Tensor
    """L_LDM."""
    prior: Tensor
    """L_PPL."""
    sfsl: Tensor
    """L_SFSL; 0 without a gradient where it does not apply."""


class Objective:
    """The losses of one subject on one base, as functions of a :class:`Draw`.

    What never changes is computed once: the VAE's posteriors (mean and deviation, from which every
    step draws latents anew), the prompts' token ids, and the features of the fixed images.

    Args:
        base: the model; gradients go to whatever in it requires them.
        subject: the class's images, prompts and features.
        settings: batch size and weights.
        sfsl: the similarity loss.
        decoder: what the similarity loss decodes with; None: the base's own VAE.
        autocast: blocks within which the networks that are trained, and the decoder, compute in
            lower precision.
    """

    def __init__(
        self,
        base: TextToImage,
        subject: Subject,
        settings: Finetune,
        sfsl: SFSL,
        decoder: Decoder | None = None,
        autocast: Autocast = nullcontext,
    ) -> None:
        self.subject, self.settings, self.sfsl = subject, settings, sfsl
        self.device, self.pipeline = base.device, base.pipeline
        self.unet = base.compiled_unet if settings.compile else base.pipeline.unet
        schedule = base.pipeline.scheduler
        self.prediction_type: str = schedule.config.prediction_type
        self.timesteps: int = schedule.config.num_train_timesteps
        self.alpha_bars = schedule.alphas_cumprod.to(self.device)
        self.autocast = autocast
        vae = base.pipeline.vae
        references = _pixels(subject.references, subject.resolution).to(self.device)
        priors = _pixels(subject.priors, subject.resolution).to(self.device)
        self.prompts = _tokenize(base.pipeline.tokenizer, subject).to(self.device)
        self.reference_posteriors = _posteriors(vae, references)
        self.prior_posteriors = _posteriors(vae, priors)
        self.latent_scale: float = vae.config.scaling_factor
        network = decoder.network if decoder else vae
        # Block by block: a decoder recomputed as a whole would hold all of its activations at the
        # peak after all, when the backward pass begins.
        if sfsl.checkpoint_decoder or settings.gradient_checkpointing:
            network.enable_gradient_checkpointing()
        else:
            network.disable_gradient_checkpointing()
        self.decode = _Decode(network, subject.resolution, sfsl, autocast)
        if subject.kappa > 0 and sfsl.gradient != "cross_entropy":
            with torch.no_grad():
                self.psi_references, self.psi_priors = self.psi(references), self.psi(priors)

    def draw(self, seed: int, step: int) -> Draw:
        """What step ``step`` uses, from a generator seeded by (seed, class, step)."""
        generator = torch.Generator().manual_seed(
            derive_seed(seed, "finetune", self.subject.index, step)
        )
        batch = self.settings.batch_size
        shape = (2 * batch, *self.reference_posteriors.mean.shape[1:])
        return Draw(
            step=step,
            references=torch.randint(len(self.subject.references), (batch,), generator=generator),
            priors=torch.randint(len(self.subject.priors), (batch,), generator=generator),
            timesteps=torch.randint(self.timesteps, (2 * batch,), generator=generator),
            posterior_noise=torch.randn(shape, generator=generator),
            noise=torch.randn(shape, generator=generator),
        )

    def __call__(self, draw: Draw) -> Losses:
        """The losses of one step, differentiable in what is trained."""
        batch = len(draw.references)
        timesteps, references, priors, posterior_noise, noise = (
            self._send(tensor)
            for tensor in (
                draw.timesteps,
                draw.references,
                draw.priors,
                draw.posterior_noise,
                draw.noise,
            )
        )
        alpha_bar = self.alpha_bars[timesteps]
        mean, deviation = (
            torch.cat([instance[references], prior[priors]])
            for instance, prior in zip(
                self.reference_posteriors, self.prior_posteriors, strict=True
            )
        )
        latents = (mean + deviation * posterior_noise) * self.latent_scale
        noised = noised_latents(latents, noise, alpha_bar)
        # Each prompt is encoded once; instance and prior go through the U-Net together.
        with self.autocast():
            encoded = self.pipeline.text_encoder(self.prompts)[0]
            prediction = self.unet(
                noised, timesteps, encoded.repeat_interleave(batch, dim=0)
            ).sample.float()
        target = prediction_target(latents, noise, alpha_bar, self.prediction_type)
        return Losses(
            instance=denoising_loss(prediction[:batch], target[:batch]),
            prior=denoising_loss(prediction[batch:], target[batch:]),
            sfsl=self._similarity(draw, references, priors, noised, prediction, alpha_bar),
        )

    def total(self, losses: Losses) -> Tensor:
        """L, the weighted sum that is trained on."""
        strength = self.subject.kappa * self.sfsl.every
        return losses.instance + self.settings.prior_weight * losses.prior + strength * losses.sfsl

    def psi(self, pixels: Tensor) -> Tensor:
        """psi_k of images in [-1, 1], differentiable: resized to phi's input, phi, times w_k."""
        phi = self.subject.phi(self._classifier_pixels(pixels))
        return class_features(phi, self.subject.class_weight)

    def _classifier_pixels(self, images: Tensor) -> Tensor:
        return classifier_pixels(images, self.subject.phi_input, clamp=self.sfsl.clamp)

    def _similarity(
        self,
        draw: Draw,
        references: Tensor,
        priors: Tensor,
        noised: Tensor,
        prediction: Tensor,
        alpha_bar: Tensor,
    ) -> Tensor:
        """L_SFSL of the pairs that are below the timestep limit; the others weigh nothing."""
        batch, gradient = len(draw.references), self.sfsl.gradient
        nothing = prediction.new_zeros(())
        if self.subject.kappa == 0 or draw.step % self.sfsl.every:
            return nothing
        # Chosen on the host, from what was drawn there: a sample above the limit is not even
        # decoded, and no shape waits for the device.
        limit = self.sfsl.max_timestep * self.timesteps
        clear = [timestep < limit for timestep in draw.timesteps.tolist()]
        used = [
            i
            for i in range(batch)
            if (gradient == "prior" or clear[i])
            and (gradient not in ("prior", "both") or clear[i + batch])
        ]
        if not used:
            return nothing
        instance = self._send(torch.tensor(used))
        prior = instance + batch
        clean = predicted_clean_latents(noised, prediction, alpha_bar, self.prediction_type)
        # Of each sample: a cosine, or one minus it, or a cross-entropy.
        values: Tensor
        weights = (
            alpha_bar if self.sfsl.timestep_weighting == "alpha_bar" else torch.ones_like(alpha_bar)
        )
        match gradient:
            case "prior":
                psi_hat = self.psi(self.decode(clean[prior]))
                values = feature_similarity(self.psi_references[references[instance]], psi_hat)
                weights = weights[prior]
            case "instance":
                psi_hat = self.psi(self.decode(clean[instance]))
                values = feature_similarity(psi_hat, self.psi_priors[priors[instance]])
                weights = weights[instance]
            case "both":
                psi_hat = self.psi(self.decode(clean[torch.cat([instance, prior])]))
                values = feature_similarity(*psi_hat.chunk(2))
                weights = (weights[instance] * weights[prior]).sqrt()
            case "attract":
                psi_hat = self.psi(self.decode(clean[instance]))
                values = 1 - feature_similarity(psi_hat, self.psi_references[references[instance]])
                weights = weights[instance]
            case "cross_entropy":
                pixels = self._classifier_pixels(self.decode(clean[instance]))
                values = -self.subject.log_probability(pixels)
                weights = weights[instance]
        return (weights * values).sum() / batch

    def _send(self, tensor: Tensor) -> Tensor:
        """To the device; from pinned memory, because a copy from any other waits for the device."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)


class _Posteriors(NamedTuple):
    """The VAE's Gaussian posteriors; latents are drawn from them anew at every step."""

    mean: Tensor
    std: Tensor


@torch.no_grad()
def _posteriors(vae: Any, pixels: Tensor, chunk: int = 8) -> _Posteriors:
    distributions = [vae.encode(part).latent_dist for part in pixels.split(chunk)]
    return _Posteriors(
        mean=torch.cat([d.mean for d in distributions]),
        std=torch.cat([d.std for d in distributions]),
    )


class _Decode:
    """Latents as the U-Net sees them to images in [-1, 1], differentiable."""

    def __init__(self, network: Any, resolution: int, settings: SFSL, autocast: Autocast) -> None:
        self.network, self.autocast = network, autocast
        self.shrink = (settings.decode_resolution or resolution) / resolution

    def __call__(self, latents: Tensor) -> Tensor:
        if self.shrink != 1:
            side = round(latents.shape[-1] * self.shrink)
            latents = F.interpolate(
                latents, (side, side), mode="bilinear", antialias=True, align_corners=False
            )
        with self.autocast():
            # A tiny autoencoder's own scale is 1: it is trained on latents as the U-Net sees them.
            images: Tensor = self.network.decode(
                latents / self.network.config.scaling_factor
            ).sample
        return images.float()


def _pixels(images: Sequence[Image.Image], resolution: int) -> Tensor:
    """Images as (N, 3, resolution, resolution) in [-1, 1]: short side resized, centre cropped."""
    tensors = []
    for image in images:
        tensor = images_to_tensors.pil_to_tensor(image.convert("RGB"))
        tensor = images_to_tensors.resize(
            tensor, [resolution], images_to_tensors.InterpolationMode.BICUBIC, antialias=True
        )
        tensors.append(images_to_tensors.center_crop(tensor, [resolution, resolution]))
    return torch.stack(tensors).float() / 127.5 - 1


def _tokenize(tokenizer: Any, subject: Subject) -> Tensor:
    """Token ids of the instance and the prior prompt, (2, length)."""
    encoded: Tensor = tokenizer(
        [subject.instance_prompt, subject.prior_prompt],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    return encoded

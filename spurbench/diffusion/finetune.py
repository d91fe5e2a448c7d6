"""Stage 3: joint fine-tuning of noise predictor and text encoder on one spurious feature.

DreamBooth (Ruiz et al., CVPR 2023) with prior preservation, a trained text encoder and the spurious
feature similarity loss (MaungMaung et al., arXiv 2402.08200):

    L = L_LDM(x, "a photo of a [V] NOUN") + lambda L_PPL(x', "a photo of a NOUN") + kappa L_SFSL
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as images_to_tensors
from tqdm import tqdm

from spurbench import atomic
from spurbench.diffusion.base import TRAINED, TextToImage
from spurbench.diffusion.losses import (
    class_features,
    denoising_loss,
    feature_similarity,
    predicted_clean_latents,
    prediction_target,
)
from spurbench.diffusion.trainable import trainable
from spurbench.errors import SpurbenchError
from spurbench.recipe import SFSL, Finetune
from spurbench.runs import derive_seed

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
LOSSES = ("instance", "prior", "sfsl")


@dataclass(frozen=True)
class Subject:
    """What one class's fine-tuning sees.

    Attributes:
        index: ImageNet-1k class index; seeds derive from it.
        references: x, RGB images.
        priors: x', RGB images of the generic kind.
        instance_prompt: "a photo of a [V] NOUN".
        prior_prompt: "a photo of a NOUN".
        resolution: side to which the images are resized and cropped, pixels.
        kappa: weight of the SFSL; 0 turns it off.
        phi: features of the adversarially robust classifier; pixels (N, 3, h, w) in [0, 1] to
            (N, D), differentiable.
        phi_input: (height, width) that ``phi`` takes.
        class_weight: w_k, (D,).
    """

    index: int
    references: Sequence[Image.Image]
    priors: Sequence[Image.Image]
    instance_prompt: str
    prior_prompt: str
    noun: str
    resolution: int
    kappa: float
    phi: Callable[[Tensor], Tensor]
    phi_input: tuple[int, int]
    class_weight: Tensor


def finetune(
    base: TextToImage,
    subject: Subject,
    settings: Finetune,
    sfsl: SFSL,
    seed: int,
    folder: Path,
    decoder: Any = None,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, list[float]]]:
    """Fine-tune ``base`` in place on one subject, going on from a checkpoint in ``folder`` if any.

    Every random draw of step n comes from a CPU generator seeded by (seed, class, n), so a run that
    was stopped and resumed ends, on a CPU, in bit-identical weights.

    Args:
        base: starts from, and is left in, this model; the VAE does not change.
        subject: the class's images, prompts and features.
        settings: optimisation.
        sfsl: the similarity loss.
        seed: global seed.
        folder: where checkpoints go; the last one is removed by a run that finishes.
        decoder: what the similarity loss decodes with, an ``AutoencoderTiny`` for example; None:
            the base's own VAE.

    Returns:
        The trained weights, float32 on the CPU, by component; and each loss by step.

    Raises:
        SpurbenchError: if [V] is not one token, or a loss is not finite (step and seed named; the
            last good checkpoint stays).
    """
    pipeline, device = base.pipeline, base.device
    unet, text_encoder, vae = pipeline.unet, pipeline.text_encoder, pipeline.vae
    batch, use_sfsl = settings.batch_size, subject.kappa > 0
    autocast_dtype = getattr(torch, settings.precision)
    autocast = torch.autocast(
        device.type, dtype=autocast_dtype, enabled=settings.precision != "float32"
    )
    schedule = pipeline.scheduler.config
    alpha_bars = pipeline.scheduler.alphas_cumprod.to(device)
    token = _single_token(pipeline.tokenizer, settings.token)
    prompts = _tokenize(pipeline.tokenizer, subject).to(device)

    # What never changes is computed once: VAE posteriors, and the features of the fixed images.
    references = _pixels(subject.references, subject.resolution).to(device)
    priors = _pixels(subject.priors, subject.resolution).to(device)
    reference_posteriors, prior_posteriors = _posteriors(vae, references), _posteriors(vae, priors)
    psi = _Psi(subject)
    decode = _Decode(decoder or vae, subject.resolution, sfsl, autocast)
    with torch.no_grad():
        psi_references, psi_priors = psi(references), psi(priors)

    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        text_encoder.gradient_checkpointing_enable()
        vae.enable_gradient_checkpointing()
    with trainable(
        pipeline,
        settings,
        token=token,
        noun=_token_ids(pipeline.tokenizer, subject.noun).to(device),
        seed=derive_seed(seed, "adapters", subject.index),
    ) as trained:
        parameters = [
            parameter
            for module in trained.values()
            for parameter in module.train().parameters()
            if parameter.requires_grad
        ]
        optimizer = torch.optim.AdamW(
            parameters,
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
        history = torch.full((settings.steps, len(LOSSES)), torch.nan, device=device)
        first = _load_checkpoint(folder, trained, optimizer, scaler, history)

        for step in tqdm(
            range(first, settings.steps),
            "fine-tune",
            settings.steps,
            initial=first,
            leave=False,
            disable=None,
        ):
            generator = torch.Generator().manual_seed(
                derive_seed(seed, "finetune", subject.index, step)
            )
            which = torch.randint(len(references), (batch,), generator=generator)
            which_prior = torch.randint(len(priors), (batch,), generator=generator)
            drawn = torch.randint(schedule.num_train_timesteps, (2 * batch,), generator=generator)
            shape = (2 * batch, *reference_posteriors.mean.shape[1:])
            posterior_noise = torch.randn(shape, generator=generator).to(device)
            noise = torch.randn(shape, generator=generator).to(device)
            timesteps = drawn.to(device)
            alpha_bar = alpha_bars[timesteps]

            # One forward pass for instance (first half) and prior (second half) together.
            mean = torch.cat([reference_posteriors.mean[which], prior_posteriors.mean[which_prior]])
            std = torch.cat([reference_posteriors.std[which], prior_posteriors.std[which_prior]])
            latents = (mean + std * posterior_noise) * vae.config.scaling_factor
            noised = pipeline.scheduler.add_noise(latents, noise, timesteps)
            with autocast:
                conditions = text_encoder(prompts)[0].repeat_interleave(batch, dim=0)
                prediction = unet(noised, timesteps, conditions).sample.float()
            target = prediction_target(latents, noise, alpha_bar, schedule.prediction_type)
            loss_instance = denoising_loss(prediction[:batch], target[:batch])
            loss_prior = denoising_loss(prediction[batch:], target[batch:])
            loss = loss_instance + settings.prior_weight * loss_prior

            loss_sfsl = torch.zeros((), device=device)
            if use_sfsl and step % sfsl.every == 0:
                # A sample noisier than the limit has weight 0 and is not even decoded.
                clear = drawn < sfsl.max_timestep * schedule.num_train_timesteps
                match sfsl.gradient:
                    case "prior":
                        used = clear[batch:]
                    case "both":
                        used = clear[:batch] & clear[batch:]
                    case "instance" | "attract":
                        used = clear[:batch]
                instance = used.nonzero().flatten()
                prior = instance + batch
                clean = predicted_clean_latents(
                    noised, prediction, alpha_bar, schedule.prediction_type
                )
                weights = (
                    alpha_bar
                    if sfsl.timestep_weighting == "alpha_bar"
                    else torch.ones_like(alpha_bar)
                )
                match sfsl.gradient if len(instance) else None:
                    case "prior":
                        psi_hat = psi(decode(clean[prior]))
                        cosine = feature_similarity(psi_references[which[instance]], psi_hat)
                        weights = weights[prior]
                    case "instance":
                        psi_hat = psi(decode(clean[instance]))
                        cosine = feature_similarity(psi_hat, psi_priors[which_prior[instance]])
                        weights = weights[instance]
                    case "both":
                        psi_hat = psi(decode(clean[torch.cat([instance, prior])]))
                        cosine = feature_similarity(*psi_hat.chunk(2))
                        weights = (weights[instance] * weights[prior]).sqrt()
                    case "attract":
                        psi_hat = psi(decode(clean[instance]))
                        cosine = 1 - feature_similarity(psi_hat, psi_references[which[instance]])
                        weights = weights[instance]
                    case None:
                        weights = cosine = torch.zeros(1, device=device)
                loss_sfsl = (weights * cosine).sum() / batch
                loss = loss + subject.kappa * sfsl.every * loss_sfsl

            scaler.scale(loss).backward()
            if settings.gradient_clip is not None:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            history[step] = torch.stack([loss_instance, loss_prior, loss_sfsl]).detach()

            # Losses are looked at only here: reading them every step would stall a GPU.
            done = step + 1
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                _require_finite(history[:done], subject, seed, folder)
                if done < settings.steps:
                    _save_checkpoint(folder, done, trained, optimizer, scaler, history)

    weights_by_component = {
        name: {
            key: value.detach().to("cpu", copy=True)
            for key, value in getattr(pipeline, name).state_dict().items()
        }
        for name in TRAINED
    }
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return weights_by_component, {
        name: history[:, column].tolist() for column, name in enumerate(LOSSES)
    }


@dataclass(frozen=True)
class _Posteriors:
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

    def __init__(self, decoder: Any, resolution: int, sfsl: SFSL, autocast: Any) -> None:
        self.decoder, self.autocast, self.sfsl = decoder, autocast, sfsl
        self.shrink = (sfsl.decode_resolution or resolution) / resolution

    def __call__(self, latents: Tensor) -> Tensor:
        if self.shrink != 1:
            side = round(latents.shape[-1] * self.shrink)
            latents = F.interpolate(
                latents, (side, side), mode="bilinear", antialias=True, align_corners=False
            )
        with self.autocast:
            if self.sfsl.checkpoint_decoder:
                images = torch.utils.checkpoint.checkpoint(
                    self._decode, latents, use_reentrant=False
                )
            else:
                images = self._decode(latents)
        return images.float()

    def _decode(self, latents: Tensor) -> Tensor:
        # A tiny autoencoder's own scale is 1: it is trained on latents as the U-Net sees them.
        images: Tensor = self.decoder.decode(latents / self.decoder.config.scaling_factor).sample
        return images


class _Psi:
    """psi_k of images in [-1, 1], differentiable: resize to phi's input, features, times w_k."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __call__(self, pixels: Tensor) -> Tensor:
        pixels = (pixels / 2 + 0.5).clamp(0, 1)
        if tuple(pixels.shape[-2:]) != self.subject.phi_input:
            pixels = F.interpolate(
                pixels, self.subject.phi_input, mode="bilinear", antialias=True, align_corners=False
            )
        return class_features(self.subject.phi(pixels), self.subject.class_weight)


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


def _token_ids(tokenizer: Any, text: str) -> Tensor:
    """Ids of a text's tokens, (n,)."""
    return torch.tensor(tokenizer(text, add_special_tokens=False).input_ids)


def _single_token(tokenizer: Any, token: str) -> int:
    ids = _token_ids(tokenizer, token)
    if len(ids) != 1:
        raise SpurbenchError(
            f"finetune.token {token!r} is {len(ids)} tokens to the base's tokenizer; choose a rare "
            "one that is a single token, e.g. sks"
        )
    return int(ids[0])


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


def _require_finite(history: Tensor, subject: Subject, seed: int, folder: Path) -> None:
    finite = history.isfinite().all(dim=1)
    if not finite.all():
        step = int((~finite).nonzero()[0])
        values = ", ".join(
            f"{name} {value:.4g}"
            for name, value in zip(LOSSES, history[step].tolist(), strict=True)
        )
        kept = (
            f"; the last good checkpoint is {folder / CHECKPOINT}"
            if (folder / CHECKPOINT).exists()
            else ""
        )
        raise SpurbenchError(
            f"fine-tuning class {subject.index} ({subject.instance_prompt!r}): loss not finite at "
            f"step {step}, seed {seed} ({values}); lower finetune.learning_rate or use "
            f"float32{kept}"
        )


def _save_checkpoint(
    folder: Path, step: int, trained: dict[str, Any], optimizer: Any, scaler: Any, history: Tensor
) -> None:
    buffer = io.BytesIO()
    state = {
        "step": step,
        "modules": {name: module.state_dict() for name, module in trained.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "history": history,
    }
    torch.save(state, buffer)
    atomic.write_bytes(folder / CHECKPOINT, buffer.getvalue())


def _load_checkpoint(
    folder: Path, trained: dict[str, Any], optimizer: Any, scaler: Any, history: Tensor
) -> int:
    """Restore the state after the returned number of steps; 0 without a checkpoint."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, module in trained.items():
        module.load_state_dict(state["modules"][name])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    history.copy_(state["history"])
    step: int = state["step"]
    log.info("going on from step %d (%s)", step, path)
    return step

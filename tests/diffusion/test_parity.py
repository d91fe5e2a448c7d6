"""The same numbers as other people's code, and as a plain loop: sampling and fine-tuning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from makers.toy import save_toy_pipeline, toy_pipeline, toy_subject
from spurbench.core.identity import derive_seed
from spurbench.diffusion.base import TextToImage, load_base
from spurbench.diffusion.finetune import finetune
from spurbench.diffusion.sample import initial_noise, sample
from spurbench.recipe.sections import SFSL, Finetune

CPU = torch.device("cpu")
RESOLUTION, FACTOR = 32, 4
"""Pixels of a side, and how many to one of the latents."""


def load(folder) -> TextToImage:
    return load_base(str(folder), revision=None, device=CPU)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_toy_pipeline(tmp_path_factory.mktemp("parity") / "base")


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("kind", ["PNDM, epsilon", "DDIM, v_prediction"])
def test_sampling_is_that_of_diffusers_own_pipeline(tmp_path, kind, guidance_scale):
    """From the same latents, one image at a time, decoded by the pipeline itself."""
    pipeline = toy_pipeline(kind.split(", ")[1])
    if kind.startswith("DDIM"):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    pipeline.save_pretrained(tmp_path / "base")
    base, seeds, made = load(tmp_path / "base"), [3, 4, 5], []
    postprocess = base.pipeline.image_processor.postprocess

    def keep(decoded, **options):
        if options["output_type"] == "pil":
            made.extend(decoded)
        return postprocess(decoded, **options)

    base.pipeline.image_processor.postprocess = keep
    images = list(
        sample(
            base,
            "a photo of a sks flower",
            seeds,
            resolution=RESOLUTION,
            steps=4,
            guidance_scale=guidance_scale,
            batch_size=2,
        )
    )

    pipeline.set_progress_bar_config(disable=True)
    for seed, image, decoded in zip(seeds, images, made, strict=True):
        options = {
            "prompt": "a photo of a sks flower",
            "height": RESOLUTION,
            "width": RESOLUTION,
            "num_inference_steps": 4,
            "guidance_scale": guidance_scale,
        }
        shape = (4, RESOLUTION // FACTOR, RESOLUTION // FACTOR)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))[None]
        assert torch.equal(initial_noise([seed], shape), noise)
        expected = pipeline(latents=noise.clone(), output_type="pt", **options).images[0]
        # Their values are cut off at 0 and 1, and so are ours to be compared.
        torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), expected, atol=1e-5, rtol=1e-4)
        (drawn,) = pipeline(latents=noise.clone(), output_type="pil", **options).images
        assert np.abs(np.asarray(image, int) - np.asarray(drawn, int)).max() <= 1


def cropped(image: Image.Image) -> torch.Tensor:
    """The 32 x 32 pixels in the middle of an image whose short side is 32, (1, 3, 32, 32)."""
    left, top = ((side - RESOLUTION) // 2 for side in image.size)
    middle = image.crop((left, top, left + RESOLUTION, top + RESOLUTION))
    return torch.from_numpy(np.array(middle)).permute(2, 0, 1)[None].float() / 127.5 - 1


def plain_loop(pipe, subject, settings: Finetune, seed: int) -> list[list[float]]:
    """DreamBooth with prior images and the printed similarity loss, and AdamW (Loshchilov and
    Hutter 2019, algorithm 2) written out: one sample, one parameter, one step after the other."""
    networks = (pipe.unet.train(), pipe.text_encoder.train())
    weights = [p.requires_grad_(True) for network in networks for p in network.parameters()]
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    alpha_bars = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, 0)
    batch, history = settings.batch_size, []

    def psi(pixels):
        resized = torch.nn.functional.interpolate(
            (pixels / 2 + 0.5).clamp(0, 1), subject.phi_input, mode="bilinear", antialias=True
        )
        return subject.phi(resized)[0] * subject.class_weight

    for step in range(settings.steps):
        generator = torch.Generator().manual_seed(
            derive_seed(seed, "finetune", subject.index, step)
        )
        references = torch.randint(len(subject.references), (batch,), generator=generator)
        priors = torch.randint(len(subject.priors), (batch,), generator=generator)
        timesteps = torch.randint(1000, (2 * batch,), generator=generator)
        shape = (2 * batch, 4, RESOLUTION // FACTOR, RESOLUTION // FACTOR)
        encoding_noise = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)

        images = [subject.references[i] for i in references] + [subject.priors[i] for i in priors]
        prompts = [subject.instance_prompt] * batch + [subject.prior_prompt] * batch
        errors, clean = [], []
        for i, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
            with torch.no_grad():
                posterior = pipe.vae.encode(cropped(image)).latent_dist
            z = 0.18215 * (posterior.mean + posterior.std * encoding_noise[i])
            alpha_bar = alpha_bars[timesteps[i]]
            z_t = alpha_bar.sqrt() * z + (1 - alpha_bar).sqrt() * noise[i]
            ids = pipe.tokenizer(
                prompt, padding="max_length", max_length=24, return_tensors="pt"
            ).input_ids
            guess = pipe.unet(z_t, timesteps[i], pipe.text_encoder(ids)[0]).sample
            errors.append(((guess - noise[i]) ** 2).mean())
            clean.append((z_t - (1 - alpha_bar).sqrt() * guess) / alpha_bar.sqrt())
        similarity = []
        for i in range(batch):
            a = psi(cropped(images[i]))
            b = psi(pipe.vae.decode(clean[batch + i] / 0.18215).sample)
            similarity.append((a * b).sum() / (a.norm() * b.norm()))
        losses = [sum(part) / batch for part in (errors[:batch], errors[batch:], similarity)]
        total = losses[0] + settings.prior_weight * losses[1] + subject.kappa * losses[2]
        gradients = torch.autograd.grad(total, weights)
        if settings.gradient_clip is not None:
            norm = torch.sqrt(sum((g**2).sum() for g in gradients))
            assert norm > settings.gradient_clip, "nothing would be clipped"
            gradients = [g * settings.gradient_clip / (norm + 1e-6) for g in gradients]
        with torch.no_grad():
            for w, g, m, v in zip(weights, gradients, first, second, strict=True):
                w -= settings.learning_rate * settings.weight_decay * w
                m += (1 - settings.beta1) * (g - m)
                v += (1 - settings.beta2) * (g**2 - v)
                m_hat = m / (1 - settings.beta1 ** (step + 1))
                v_hat = v / (1 - settings.beta2 ** (step + 1))
                w -= settings.learning_rate * m_hat / (v_hat.sqrt() + settings.epsilon)
        history.append([loss.item() for loss in losses])
    return history


@pytest.mark.parametrize("gradient_clip", [None, 0.05])
def test_four_steps_are_those_of_a_plain_loop(folder, tmp_path, gradient_clip):
    """Every setting of AdamW is far from its usual value, so that none can be left out."""
    settings = Finetune(
        steps=4,
        batch_size=2,
        learning_rate=1e-3,
        weight_decay=3.0,
        beta1=0.7,
        beta2=0.95,
        epsilon=1e-3,
        gradient_clip=gradient_clip,
        prior_weight=0.6,
        checkpoint_every=4,
    )
    subject = toy_subject(kappa=0.3)
    base, pipe = load(folder), load(folder).pipeline
    start = {name: tensor.clone() for name, tensor in base.pipeline.unet.state_dict().items()}
    sfsl = SFSL(gradient="prior", timestep_weighting="uniform")
    tuned, losses = finetune(base, subject, settings, sfsl, 9, tmp_path)
    expected = plain_loop(pipe, subject, settings, 9)
    found = list(zip(losses["instance"], losses["prior"], losses["sfsl"], strict=True))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    for name in ("unet", "text_encoder"):
        for key, value in getattr(pipe, name).state_dict().items():
            torch.testing.assert_close(tuned[name][key], value, rtol=1e-4, atol=2e-5, msg=key)
    moved = max(float((tuned["unet"][key] - value).abs().max()) for key, value in start.items())
    assert moved > 1e-3, "the steps are too small to tell two rules apart"

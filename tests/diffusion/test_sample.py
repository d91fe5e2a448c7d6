from __future__ import annotations

import copy

import diffusers
import numpy as np
import pytest
import torch

from makers.toy import toy_pipeline, toy_subject
from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.sample import PhiGuidance, _steered, initial_noise, sample

CPU = torch.device("cpu")


def test_noise_depends_on_its_own_seed_only():
    together, alone = initial_noise([3, 4, 5], (4, 8, 8)), initial_noise([4], (4, 8, 8))
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_batch_size_and_order_do_not_change_an_image(base):
    options = {"resolution": 32, "steps": 2, "guidance_scale": 3.0}
    one = list(sample(base, "a photo", [1, 2, 3], batch_size=1, **options))
    three = list(sample(base, "a photo", [3, 2, 1], batch_size=3, **options))
    for a, b in zip(one, reversed(three), strict=True):
        assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
    assert np.abs(np.asarray(one[0], int) - np.asarray(one[1], int)).max() > 1


def test_guidance_and_prompt_reach_the_model(base):
    options = {"resolution": 32, "steps": 2, "batch_size": 1}
    images_ = [
        np.asarray(next(sample(base, prompt, [1], guidance_scale=scale, **options)))
        for prompt, scale in (("a photo", 1.0), ("a photo", 8.0), ("a sks", 8.0))
    ]
    assert not np.array_equal(images_[0], images_[1])
    assert not np.array_equal(images_[1], images_[2])


def test_the_prompt_is_encoded_once_and_guidance_takes_one_call(base):
    calls = []
    base.pipeline.text_encoder.register_forward_hook(lambda *_: calls.append("text"))
    base.pipeline.unet.register_forward_hook(
        lambda module, inputs, output: calls.append(len(inputs[0]))
    )
    options = {"resolution": 32, "steps": 2, "guidance_scale": 3.0, "batch_size": 2}
    list(sample(base, "a photo", [1, 2, 3], **options))
    # Prompt and empty prompt; then three calls of PNDM's two steps, both halves together.
    assert calls == ["text", "text", *[4] * 3, *[2] * 3]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_sampling_in_low_precision_comes_near_and_leaves_the_weights(base, precision):
    options = {"resolution": 32, "steps": 3, "guidance_scale": 3.0, "batch_size": 2}
    exact = list(sample(base, "a photo", [1, 2], **options))
    dtypes = set()
    hook = base.pipeline.unet.conv_in.register_forward_hook(
        lambda module, inputs, output: dtypes.add(output.dtype)
    )
    low = list(sample(base, "a photo", [1, 2], **options, precision=precision))
    hook.remove()
    assert dtypes == {getattr(torch, precision)}
    assert base.pipeline.unet.dtype == base.pipeline.vae.dtype == torch.float32
    difference = np.abs(np.asarray(exact, int) - np.asarray(low, int))
    assert 0 < difference.mean() < 2
    assert not base.pipeline.unet._forward_hooks


def test_an_image_that_is_not_finite_is_refused(base):
    with torch.no_grad():
        base.pipeline.unet.conv_out.bias[0] = torch.nan
    with pytest.raises(SpurbenchError, match=r"image 0 of 'a photo' \(seed 1\) is not finite"):
        list(sample(base, "a photo", [1], resolution=32, steps=2, guidance_scale=1, batch_size=1))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_phi_moves_the_prediction_by_the_slope_of_its_log_probability(kind):
    """Against differences in float64, in a direction drawn at random: through guidance, U-Net,
    decoder and classifier."""
    pipeline, network = toy_pipeline(kind), toy_subject().phi
    for part in (pipeline.unet, pipeline.vae):
        part.requires_grad_(False).eval()
    exact = {
        name: copy.deepcopy(part).double()
        for name, part in (("unet", pipeline.unet), ("vae", pipeline.vae), ("phi", network))
    }
    torch.manual_seed(4)
    z, direction = (torch.randn(2, 4, 8, 8) for _ in range(2))
    text, time = torch.randn(4, 24, 16), torch.tensor(300)
    alpha_bar = float(pipeline.scheduler.alphas_cumprod[300])
    alpha, sigma = alpha_bar**0.5, (1 - alpha_bar) ** 0.5

    def predict(z_t, unet=pipeline.unet):
        return unet(torch.cat([z_t, z_t]), time, text.to(z_t), return_dict=False)[0]

    @torch.no_grad()
    def likely(z_t):
        unguided, guided = predict(z_t, exact["unet"]).chunk(2)
        out = unguided + 3 * (guided - unguided)
        x0 = (z_t - sigma * out) / alpha if kind == "epsilon" else alpha * z_t - sigma * out
        image = exact["vae"].decode(x0 / 0.18215).sample
        resized = torch.nn.functional.interpolate(
            (image / 2 + 0.5).clamp(0, 1), (20, 20), mode="bilinear", antialias=True
        )
        return exact["phi"](resized).log_softmax(dim=1)[:, 2]

    def log_probability(pixels):
        return network(pixels).log_softmax(dim=1)[:, 2]

    plain = predict(z)
    with _steered(pipeline, PhiGuidance(1e4, log_probability, (20, 20)), 3.0):
        moved = (plain - predict(z)).double()
    assert torch.equal(predict(z), plain), "taken back"
    for half in moved.chunk(2):  # alike, so that guidance does not multiply it
        gradient = half / (1e4 * sigma) * (alpha if kind == "v_prediction" else 1)
        step = 1e-6 * direction.double()
        slope = (likely(z + step) - likely(z - step)) / 2e-6
        found = (gradient * direction).flatten(1).sum(dim=1)
        assert slope.abs().min() > 1e-5
        torch.testing.assert_close(found, slope, rtol=2e-3, atol=1e-7)


OPTIONS = {"resolution": 32, "steps": 2, "guidance_scale": 3.0, "batch_size": 3}


@pytest.mark.parametrize(
    "scheduler", ["PNDMScheduler", "DDIMScheduler", "DPMSolverMultistepScheduler"]
)
def test_phi_gets_what_it_looks_for_of_any_scheduler(base, scheduler):
    kind = getattr(diffusers, scheduler)
    base.pipeline.scheduler = kind.from_config(base.pipeline.scheduler.config)
    redder = PhiGuidance(200.0, lambda pixels: pixels[:, 0].mean(dim=(1, 2)), (16, 16))
    indifferent = PhiGuidance(200.0, lambda pixels: 0 * pixels.sum(dim=(1, 2, 3)), (16, 16))
    plain, none, red = (
        [
            np.asarray(image, int)
            for image in sample(base, "a photo", [1, 2, 3], phi_guidance=g, **OPTIONS)
        ]
        for g in (None, indifferent, redder)
    )
    for image, same, steered in zip(plain, none, red, strict=True):
        assert np.array_equal(image, same)
        assert steered[..., 0].mean() > image[..., 0].mean() + 1
    assert "forward" not in vars(base.pipeline.unet)


def test_an_image_steered_by_phi_does_not_depend_on_its_company(base):
    network = copy.deepcopy(toy_subject().phi)
    guidance = PhiGuidance(30.0, lambda p: network(p).log_softmax(dim=1)[:, 2], (20, 20))
    together = list(sample(base, "a photo", [1, 2, 3], phi_guidance=guidance, **OPTIONS))
    alone = list(sample(base, "a photo", [2], phi_guidance=guidance, **OPTIONS))
    plain = list(sample(base, "a photo", [2], **OPTIONS))
    same, without = (
        np.abs(np.asarray(together[1], int) - np.asarray(i[0], int)) for i in (alone, plain)
    )
    assert same.max() <= 1 < without.max()

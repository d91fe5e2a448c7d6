from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.losses import (
    class_features,
    classifier_pixels,
    denoising_loss,
    feature_similarity,
    guided_prediction,
    predicted_clean_latents,
    prediction_target,
)


def test_denoising_loss_is_the_mean_squared_error():
    prediction = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    target = torch.tensor([[[[1.0, 0.0], [0.0, 8.0]]]])
    assert denoising_loss(prediction, target).item() == pytest.approx((0 + 4 + 9 + 16) / 4)


def test_losses_are_taken_in_float32_under_low_precision():
    prediction = torch.full((1, 1, 64, 64), 0.1, dtype=torch.bfloat16)
    loss = denoising_loss(prediction, torch.zeros_like(prediction))
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_gives_back_the_clean_latents(prediction_type):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 4, 8, 8, generator=generator, dtype=torch.float64)
    alpha_bar = torch.tensor([0.99, 0.5, 0.01], dtype=torch.float64)
    scale = alpha_bar.view(-1, 1, 1, 1)
    noised = scale.sqrt() * clean + (1 - scale).sqrt() * noise
    target = prediction_target(clean, noise, alpha_bar, prediction_type)
    recovered = predicted_clean_latents(noised, target, alpha_bar, prediction_type)
    torch.testing.assert_close(recovered, clean)


def test_clean_latents_worked_out_by_hand():
    # alpha_bar 0.64: alpha 0.8, sigma 0.6; (2 - 0.6 * 0.5) / 0.8 = 2.125
    value = predicted_clean_latents(
        torch.full((1, 1, 1, 1), 2.0),
        torch.full((1, 1, 1, 1), 0.5),
        torch.tensor([0.64]),
        "epsilon",
    )
    assert value.item() == pytest.approx(2.125)
    # v-prediction: 0.8 * 2 - 0.6 * 0.5 = 1.3
    value = predicted_clean_latents(
        torch.full((1, 1, 1, 1), 2.0),
        torch.full((1, 1, 1, 1), 0.5),
        torch.tensor([0.64]),
        "v_prediction",
    )
    assert value.item() == pytest.approx(1.3)


def test_velocity_agrees_with_diffusers():
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(prediction_type="v_prediction")
    latents, noise = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    timesteps = torch.tensor([0, 10, 500, 999])
    mine = prediction_target(latents, noise, scheduler.alphas_cumprod[timesteps], "v_prediction")
    torch.testing.assert_close(mine, scheduler.get_velocity(latents, noise, timesteps))


def test_guidance_worked_out_by_hand():
    """alpha_bar 0.64: sigma 0.6, alpha 0.8; 3 * 0.6 * 0.5 = 0.9 is what the noise changes by."""
    given = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 0.5), torch.tensor([0.64]), 3.0
    assert guided_prediction(*given, "epsilon").item() == pytest.approx(2 - 0.9)
    velocity = guided_prediction(*given, "v_prediction")
    assert velocity.item() == pytest.approx(2 - 0.9 / 0.8)
    # Either moves x0-hat of z_t = 1 by sigma 0.9 / alpha.
    z_t = torch.ones(1, 1, 1, 1)
    for kind, moved in (
        ("epsilon", guided_prediction(*given, "epsilon")),
        ("v_prediction", velocity),
    ):
        x0, plain = (predicted_clean_latents(z_t, p, given[2], kind) for p in (moved, given[0]))
        assert (x0 - plain).item() == pytest.approx(0.6 * 0.9 / 0.8)


def test_a_classifier_sees_an_image_from_0_to_1_at_its_own_size():
    image = torch.tensor([[-3.0, -1.0], [0.0, 2.0]]).expand(1, 3, 2, 2)
    same = classifier_pixels(image, (2, 2))
    assert same[0, 1].tolist() == [[0, 0], [0.5, 1]]
    assert classifier_pixels(image, (1, 1)).flatten().tolist() == pytest.approx([0.375] * 3)


def test_an_unknown_prediction_type_is_refused():
    one = torch.ones(1, 1, 1, 1)
    with pytest.raises(SpurbenchError, match="sample"):
        guided_prediction(one, one, torch.ones(1), 1.0, "sample")
    with pytest.raises(SpurbenchError, match="sample"):
        predicted_clean_latents(one, one, torch.ones(1), "sample")
    with pytest.raises(SpurbenchError, match="sample"):
        prediction_target(one, one, torch.ones(1), "sample")


def test_similarity_against_float64_numpy_with_gradient():
    rng = np.random.default_rng(0)
    phi_a, phi_b, weight = rng.normal(size=(2, 5)), rng.normal(size=(2, 5)), rng.normal(size=5)
    a = torch.tensor(phi_a, requires_grad=True)
    psi_a = class_features(a, torch.tensor(weight))
    psi_b = class_features(torch.tensor(phi_b), torch.tensor(weight))
    similarity = feature_similarity(psi_a, psi_b)

    def reference(phi: np.ndarray) -> np.ndarray:
        u, v = phi * weight, phi_b * weight
        return (u * v).sum(1) / np.sqrt((u * u).sum(1)) / np.sqrt((v * v).sum(1))

    np.testing.assert_allclose(similarity.detach().numpy(), reference(phi_a), rtol=1e-5)
    similarity.sum().backward()
    step = 1e-6
    for index in np.ndindex(phi_a.shape):
        moved = phi_a.copy()
        moved[index] += step
        slope = (reference(moved) - reference(phi_a)).sum() / step
        assert a.grad[index].item() == pytest.approx(slope, abs=1e-4)


def test_class_features_sum_to_the_logit_and_similarity_is_signed():
    features, weight = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2.0, 0.0, -1.0])
    assert class_features(features, weight).sum().item() == 1 * 2 + 2 * 0 + 3 * -1
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]])
    assert feature_similarity(a, b).item() == pytest.approx(-1 / math.sqrt(2))

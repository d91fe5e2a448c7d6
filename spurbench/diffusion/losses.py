"""The method's losses as pure functions of tensors.

Notation of DESIGN.md: x is an instance (reference) image, x' a prior image, z_t the noised latent,
eps-hat the network's prediction, phi the penultimate features of a classifier (the paper's is
adversarially robust), w_k row k of its last layer and p_k its probability of class k.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spurbench.core.errors import SpurbenchError


def denoising_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """L_LDM and L_PPL: the mean squared error of the network's prediction.

    Args:
        prediction: (N, C, H, W), any float dtype; compared in float32.
        target: the same shape; the noise, or the velocity for a v-prediction model.

    Returns:
        A scalar, the mean over all elements (Ruiz et al. 2023, eq. 2, without per-step weights).
    """
    return F.mse_loss(prediction.float(), target.float())


def noised_latents(latents: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """z_t = sqrt(alpha_bar_t) z_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4).

    Not the scheduler's ``add_noise``: bases come with schedulers for sampling, and those of the
    Euler family add noise of variance sigma_t to unscaled latents instead.

    Args:
        latents: clean z_0, (N, C, H, W).
        noise: eps, the same shape.
        alpha_bar: cumulative product of alphas at each sample's timestep, (N,).
    """
    signal, sigma = _signal_and_sigma(alpha_bar, latents)
    return signal * latents + sigma * noise


def prediction_target(
    latents: Tensor, noise: Tensor, alpha_bar: Tensor, prediction_type: str
) -> Tensor:
    """What the network is trained to predict.

    Args:
        latents: clean z_0, (N, C, H, W).
        noise: eps, the same shape.
        alpha_bar: cumulative product of alphas at each sample's timestep, (N,).
        prediction_type: the scheduler's, ``epsilon`` or ``v_prediction``.

    Raises:
        SpurbenchError: for another prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        signal, sigma = _signal_and_sigma(alpha_bar, latents)
        return signal * noise - sigma * latents
    raise SpurbenchError(
        f"prediction type {prediction_type!r} is not supported; use an epsilon or v_prediction base"
    )


def predicted_clean_latents(
    noised: Tensor, prediction: Tensor, alpha_bar: Tensor, prediction_type: str
) -> Tensor:
    """z0-hat, the clean latents that the network's prediction implies.

    For epsilon prediction (z_t - sigma_t eps-hat) / alpha_t; for v-prediction
    alpha_t z_t - sigma_t v-hat (Salimans & Ho 2022, appendix D), with alpha_t = sqrt(alpha_bar_t)
    and sigma_t = sqrt(1 - alpha_bar_t). Differentiable in ``prediction``.

    Args:
        noised: z_t, (N, C, H, W).
        prediction: the same shape.
        alpha_bar: (N,), in (0, 1].
        prediction_type: ``epsilon`` or ``v_prediction``.

    Raises:
        SpurbenchError: for another prediction type.
    """
    signal, sigma = _signal_and_sigma(alpha_bar, noised)
    if prediction_type == "epsilon":
        return (noised - sigma * prediction) / signal
    if prediction_type == "v_prediction":
        return signal * noised - sigma * prediction
    raise SpurbenchError(
        f"prediction type {prediction_type!r} is not supported; use an epsilon or v_prediction base"
    )


def guided_prediction(
    prediction: Tensor, gradient: Tensor, alpha_bar: Tensor, strength: float, prediction_type: str
) -> Tensor:
    """The network's prediction, moved towards what a classifier calls the class.

    eps-hat - s sqrt(1 - alpha_bar_t) gradient (Dhariwal & Nichol 2021, algorithm 2), whatever
    scheduler takes it then; as a velocity that is divided by sqrt(alpha_bar_t).

    Args:
        prediction: (N, C, H, W).
        gradient: of log p_k in z_t, the same shape.
        alpha_bar: (N,), in (0, 1].
        strength: s; 0 changes nothing.
        prediction_type: ``epsilon`` or ``v_prediction``.

    Raises:
        SpurbenchError: for another prediction type.
    """
    signal, sigma = _signal_and_sigma(alpha_bar, prediction)
    moved = strength * sigma * gradient
    if prediction_type == "epsilon":
        return prediction - moved
    if prediction_type == "v_prediction":
        return prediction - moved / signal
    raise SpurbenchError(
        f"prediction type {prediction_type!r} is not supported; use an epsilon or v_prediction base"
    )


def classifier_pixels(images: Tensor, size: tuple[int, int], *, clamp: bool = True) -> Tensor:
    """Images as a classifier takes them, differentiable.

    Args:
        images: (N, 3, H, W), in [-1, 1].
        size: (height, width).
        clamp: whether what lies outside is clipped.

    Returns:
        (N, 3, height, width), in [0, 1] if clamped, bilinear with antialiasing.
    """
    pixels = images / 2 + 0.5
    if clamp:
        pixels = pixels.clamp(0, 1)
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def class_features(features: Tensor, class_weight: Tensor) -> Tensor:
    """psi_k(x) = w_k * phi(x), elementwise: each feature's contribution to the logit of class k.

    Args:
        features: phi(x), (N, D).
        class_weight: w_k, (D,).

    Returns:
        (N, D); its sum over D is the logit of class k without the bias (Neuhaus et al. 2023).
    """
    return features * class_weight


def feature_similarity(psi_a: Tensor, psi_b: Tensor) -> Tensor:
    """The cosine between class-wise features, cos(psi_k(x), psi_k(x')), sample by sample.

    Args:
        psi_a: (N, D).
        psi_b: (N, D).

    Returns:
        (N,), in [-1, 1]. The mean over samples is L_SFSL as the paper prints it.
    """
    return F.cosine_similarity(psi_a.float(), psi_b.float(), dim=-1)


def _signal_and_sigma(alpha_bar: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha_bar = alpha_bar.to(like).view(-1, *[1] * (like.dim() - 1))
    return alpha_bar.sqrt(), torch.sqrt(1 - alpha_bar)

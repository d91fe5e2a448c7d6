"""A component's feature made visible: the image in a ball whose alpha is the greatest.

That shows something with adversarially robust classifiers; of others it makes noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spurbench.discovery.lens import Lens

STEPS = 60


def radius_for(size: tuple[int, int]) -> float:
    """Neuhaus et al.'s ball, L2 30 around 224 x 224 pixels, for images of another size."""
    height, width = size
    return float(30 * (height * width) ** 0.5 / 224)


def maximise(
    lens: Lens, start: Tensor, component: Tensor, *, radius: float, steps: int = STEPS
) -> Tensor:
    """Projected gradient ascent on each image's alpha; the best images on the way.

    Args:
        lens: whose alphas.
        start: (N, 3, height, width) in [0, 1], the balls' centres.
        component: (N,) of each image, from 0.
        radius: of the balls, L2 of pixels in [0, 1].
        steps: of ascent, each as long as the last, 2.5 radii in all.

    Returns:
        (N, 3, height, width) in [0, 1].
    """
    best, highest = start.clone(), torch.full((len(start),), -torch.inf, device=start.device)
    image = start.clone()
    for step in range(steps + 1):
        alphas, gradient = lens.gradients(image, component)
        better = alphas > highest
        best[better], highest[better] = image[better], alphas[better]
        if step < steps:
            along = gradient / _norms(gradient).clamp_min(1e-12)
            moved = image + along * (2.5 * radius / steps) - start
            inside = moved * (radius / _norms(moved).clamp_min(1e-12)).clamp_max(1)
            image = (start + inside).clamp(0, 1)
    return best


def _norms(images: Tensor) -> Tensor:
    return images.flatten(1).norm(dim=1)[:, None, None, None]

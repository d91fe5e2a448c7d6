"""Where in an image a component's alpha comes from: heat maps."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spurbench.discovery.lens import Lens

STEPS = 16
"""Points of the path that gradients are taken at."""

GREY = 0.5
"""The path's start: an image without anything."""


def attributions(lens: Lens, pixels: Tensor, component: int, *, steps: int = STEPS) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017) of an alpha, from grey.

    They sum, over an image, to its alpha less that of grey, the nearer the more steps.

    Args:
        lens: whose alpha.
        pixels: (N, 3, height, width) in [0, 1].
        component: which, from 0.
        steps: points at which the gradient is taken.

    Returns:
        (N, height, width).
    """
    start = torch.full_like(pixels, GREY)
    mean = torch.zeros_like(pixels)
    which = torch.full((len(pixels),), component, device=pixels.device)
    for step in range(steps):
        share = (step + 0.5) / steps
        mean += lens.gradients(start + share * (pixels - start), which)[1] / steps
    return ((pixels - start) * mean).sum(dim=1)


def heat_map(attribution: NDArray[np.floating]) -> NDArray[np.float64]:
    """What raises the alpha, as heat in [0, 1]; no heat where nothing does.

    Args:
        attribution: (height, width) of one image.
    """
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.asarray(attribution, np.float64), max(attribution.shape) / 24)
    positive = np.maximum(smooth, 0)
    return positive / positive.max() if positive.max() > 0 else positive


def overlay(image: Image.Image, heat: NDArray[np.floating]) -> Image.Image:
    """The image in grey, and red where the heat is."""
    grey = np.asarray(image.convert("L").convert("RGB"), np.float64)
    share = 0.85 * heat[..., None]
    red = np.array([255.0, 30.0, 0.0])
    return Image.fromarray(np.round((1 - share) * grey + share * red).astype(np.uint8))

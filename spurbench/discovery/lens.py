"""A classifier seen through the components of a class: alphas of pixels, differentiable in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spurbench.classifiers.classifier import Classifier
from spurbench.core.errors import SpurbenchError
from spurbench.discovery.neural_pca import Components


class Lens(nn.Module):
    """Alphas of one class's components, as :meth:`Components.alphas`, of pixels in [0, 1]."""

    def __init__(self, classifier: Classifier, components: Components) -> None:
        super().__init__()
        self.classifier = classifier
        # <1, v> <w * phi - m, v> = <phi, w * v <1, v>> - <m, v <1, v>>
        scaled = torch.from_numpy(components.directions * components.sums[:, None])
        weight, mean = torch.from_numpy(components.weight), torch.from_numpy(components.mean)
        self.rows: Tensor
        self.offsets: Tensor
        self.register_buffer("rows", (scaled * weight).float().to(classifier.device))
        self.register_buffer("offsets", (scaled @ mean).float().to(classifier.device))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, L) of (N, 3, height, width)."""
        return self.classifier.features(pixels) @ self.rows.T - self.offsets

    def gradients(self, pixels: Tensor, component: Tensor) -> tuple[Tensor, Tensor]:
        """Each image's alpha of one component, (N,), and its gradient in the pixels.

        Args:
            pixels: (N, 3, height, width).
            component: (N,) which, from 0.
        """
        with torch.enable_grad():
            given = pixels.detach().requires_grad_()
            alphas = self(given).gather(1, component[:, None])[:, 0]
            (gradient,) = torch.autograd.grad(alphas.sum(), given)
        return alphas.detach(), gradient


def scaled(pixels: Tensor, classifier: Classifier) -> Tensor:
    """Bytes as a classifier's pixels in [0, 1], where it runs."""
    floats = pixels.to(classifier.device).float().div_(255)
    if floats.device.type == "cpu":  # where convolutions are up to twice as fast so
        floats = floats.contiguous(memory_format=torch.channels_last)
    return floats


def require_linear_end(classifier: Classifier) -> None:
    """Check that logits are features times the last layer's rows, and a constant.

    Raises:
        SpurbenchError: if the classifier does not end in a linear layer, or takes images through a
            function that nobody can look into.
    """
    name = classifier.info.name
    if classifier.own_transform is not None:
        raise SpurbenchError(
            f"{name} takes images through a transform of its own; discover needs a classifier "
            "that takes them resized and cropped"
        )
    height, width = classifier.input_size
    noise = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, height, width, generator=noise).to(classifier.device)
    with torch.inference_mode():
        features, logits = classifier.features(pixels), classifier(pixels)
    weight = classifier.head_weight
    if weight.shape == (logits.shape[1], features.shape[1]):
        there = logits[0] - logits[1]
        if torch.allclose((features[0] - features[1]) @ weight.T, there, rtol=1e-3, atol=1e-4):
            return
    raise SpurbenchError(
        f"{name} does not end in a linear layer: its logits are not its last layer's; discover "
        "can't split them"
    )

"""Two mitigations of the planted bias, each of which leaves some of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from spurbench.mini.distributions import EMPTY
from spurbench.mini.scenes import PLANTED_FEATURE, Scene
from spurbench.mini.training.classifiers import predict

STEPS, DECAY = 200, 1e-3
"""Of the last layer's L-BFGS: iterations at most, and weight of its squared weights."""


def group_weights(scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """Chances of scenes to be drawn by which all classes are alike, and so are both groups of one.

    A planted class has two groups, with its feature and without; another class has one.

    Returns:
        (N,), summing to 1.
    """
    names = [scene.object or EMPTY for scene in scenes]
    groups = [
        (name, name in PLANTED_FEATURE and scene.subfamily == PLANTED_FEATURE[name])
        for name, scene in zip(names, scenes, strict=True)
    ]
    sizes = Counter(groups)
    groups_of = Counter(name for name, _ in sizes)
    chances = [1 / (len(groups_of) * groups_of[group[0]] * sizes[group]) for group in groups]
    return np.array(chances)


def retrain_last_layer(
    network: nn.Module, pixels: np.ndarray, labels: np.ndarray, device: torch.device
) -> None:
    """Fit a trained network's last layer anew, as a logistic regression on its features.

    After Kirichenko et al. (ICLR 2023): features that were learnt under a bias hold what is needed
    without it.

    Args:
        network: of timm, ending in a linear layer.
        pixels: (N, 64, 64, 3) uint8, scenes whose feature tells nothing.
        labels: (N,) int64.
        device: where it is.
    """
    head: nn.Linear = network.get_classifier()  # type: ignore[operator]
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        predict(network, pixels, device)
    finally:
        hook.remove()
    features, wanted = torch.cat(caught), torch.from_numpy(labels).to(device)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features), wanted) + DECAY * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)

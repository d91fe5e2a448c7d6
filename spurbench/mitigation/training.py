"""Training a classifier to answer its classes from the objects: its last layer, or all of it.

Both minimise, over the class's own images x and images z of its spurious feature alone,

    mean over k and x of -log p_k(x)  +  weight * mean over k and z of -log(1 - p_k(z))

with p the softmax over the whole head: classes count the same, and a spurious image is *not* its
class, whatever else it may be called. ``last-layer`` keeps the features (Kirichenko et al. 2023,
with spurious images in place of a balanced set) and stays near the weights that were there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from spurbench.classifiers.classifier import Classifier
from spurbench.core.identity import derive_seed
from spurbench.core.progress import progress
from spurbench.discovery.lens import scaled
from spurbench.mitigation.seen import Seen


@dataclass(frozen=True)
class LastLayer:
    """How the last layer is trained anew.

    Attributes:
        weight: of the spurious images.
        keep: of the squared distance to the weights that were there, relative to their own size.
        iterations: of L-BFGS, at most.
    """

    weight: float = 1.0
    keep: float = 1e-2
    iterations: int = 200


@dataclass(frozen=True)
class FineTuning:
    """How all weights are trained on. Statistics of normalisation layers stay as they are.

    Attributes:
        weight: of the spurious images.
        steps: of AdamW, on a batch of each kind.
        batch_size: of each kind.
        learning_rate: falls to 0 along a half cosine.
        weight_decay: of AdamW.
    """

    weight: float = 1.0
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 3e-4
    weight_decay: float = 0.01


def spurious_loss(logits: Tensor, columns: Tensor) -> Tensor:
    """-log(1 - p_k), (N,), of logits (N, C) and the class k of each, (N,)."""
    others = logits.scatter(1, columns[:, None], -torch.inf).logsumexp(1)
    return logits.logsumexp(1) - others


def class_weights(columns: Tensor) -> Tensor:
    """(N,) weights that sum to 1 and give each class that is there the same."""
    _, inverse, counts = columns.unique(return_inverse=True, return_counts=True)
    return 1.0 / (counts[inverse] * len(counts))


def train_last_layer(
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    features: NDArray[np.float64],
    columns: Tensor,
    spurious_features: NDArray[np.float64] | None,
    spurious_columns: Tensor | None,
    settings: LastLayer,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A last layer on frozen features, in float64: deterministic, and the same whatever the order.

    Args:
        weight: (C, D), where it starts and what it stays near.
        bias: (C,), likewise.
        features: (N, D) of images that show their classes.
        columns: (N,) int64, their outputs.
        spurious_features: (M, D) of images that show a class's spurious feature alone; None: the
            classes are balanced and nothing else, the rival of all the others.
        spurious_columns: (M,) int64, the outputs that they must not be called.
        settings: every number.

    Returns:
        Weight (C, D) and bias (C,).
    """
    start = torch.from_numpy(np.concatenate([weight, bias[:, None]], axis=1)).double()
    layer = start.clone().requires_grad_()

    def with_one(values: NDArray[np.float64]) -> Tensor:
        return F.pad(torch.from_numpy(values).double(), (0, 1), value=1.0)

    shown, of_class = with_one(features), class_weights(columns).double()
    optimiser = torch.optim.LBFGS(
        [layer], max_iter=settings.iterations, line_search_fn="strong_wolfe", history_size=20
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = shown @ layer.T
        loss = (of_class * F.cross_entropy(logits, columns, reduction="none")).sum()
        if spurious_features is not None and spurious_columns is not None:
            errors = spurious_loss(with_one(spurious_features) @ layer.T, spurious_columns)
            loss = loss + settings.weight * (class_weights(spurious_columns) * errors).sum()
        distance = (layer - start).square().sum() / start.square().sum()
        loss = loss + settings.keep * distance
        loss.backward()
        return loss

    optimiser.step(closure)
    trained = layer.detach().numpy()
    return trained[:, :-1], trained[:, -1]


def fine_tune(
    classifier: Classifier,
    shown: Seen,
    spurious: Seen | None,
    settings: FineTuning,
    seed: int,
    said: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train all weights of a classifier on, in place; images are mirrored at random.

    Args:
        classifier: to be trained.
        shown: images that show their classes.
        spurious: images that show a class's spurious feature alone; None: none.
        settings: every number.
        seed: of which images are drawn.
        said: told the loss after each step.
    """
    network = classifier.network
    parameters = [p.requires_grad_() for p in network.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    weights = [class_weights(seen.columns) for seen in (shown, spurious) if seen is not None]
    with progress("fine-tuning", settings.steps, unit="step") as advance:
        for step in range(settings.steps):
            generator = torch.Generator().manual_seed(derive_seed(seed, "mend", step))
            total = torch.zeros((), device=classifier.device)
            for seen, of_class in zip((shown, spurious), weights, strict=False):
                assert seen is not None
                which = torch.multinomial(
                    of_class, settings.batch_size, replacement=True, generator=generator
                )
                pixels = seen.pixels[which]
                mirrored = torch.rand(len(which), generator=generator) < 0.5
                pixels[mirrored] = pixels[mirrored].flip(-1)
                logits = classifier(scaled(pixels, classifier))
                columns = seen.columns[which].to(logits.device)
                if seen is shown:
                    total = total + F.cross_entropy(logits, columns)
                else:
                    total = total + settings.weight * spurious_loss(logits, columns).mean()
            optimiser.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            said(step, float(total.detach()))
            advance(1)
    network.requires_grad_(False)

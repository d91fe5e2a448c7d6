"""Training a classifier to answer its classes from the objects: its last layer, or all of it.

Both minimise, over the class's own images x and images z of its spurious feature alone,

    mean over k and x of -log p_k(x)  +  weight * mean over k and z of -log(1 - p_k(z))

with p the softmax over the whole head: classes count the same, and a spurious image is *not* its
class, whatever else it may be called. Within a class, the images that seem to lack its feature
count as much as all others: a linear probe that tells the class's spurious images from those of
other classes finds them (:func:`image_weights`). ``last-layer`` keeps the features (Kirichenko et
al. 2023, with groups that nobody labelled) and stays near the weights that were there.
"""

from __future__ import annotations

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
        without: see :func:`image_weights`.
        keep: of the squared distance to the weights that were there, relative to their own size;
            those of the classes that there are images of.
        iterations: of L-BFGS, at most.
    """

    weight: float = 1.0
    without: float = 0.05
    keep: float = 2e-4
    iterations: int = 200


@dataclass(frozen=True)
class FineTuning:
    """How all weights are trained on. Statistics of normalisation layers stay as they are.

    Attributes:
        weight: of the spurious images.
        without: see :func:`image_weights`.
        steps: of AdamW, on a batch of each kind.
        batch_size: of each kind.
        learning_rate: falls to 0 along a half cosine.
        weight_decay: of AdamW.
    """

    weight: float = 1.0
    without: float = 0.05
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


def image_weights(
    features: NDArray[np.float64],
    columns: Tensor,
    spurious_features: NDArray[np.float64],
    spurious_columns: Tensor,
    without: float,
) -> Tensor:
    """(N,) weights that sum to 1: classes alike, in a class those with and without its feature.

    Who lacks it is not labelled: a logistic regression on standardised features tells a class's
    spurious images from other classes' spurious images, and the share of the class's images that is
    least like the former is taken to lack the feature.

    Args:
        features: (N, D) of images that show their classes.
        columns: (N,) int64, their outputs.
        spurious_features: (M, D) of images that show a class's spurious feature alone.
        spurious_columns: (M,) int64, their classes' outputs.
        without: that share, in [0, 1); 0 weighs a class's images alike.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    weights = class_weights(columns).double()
    asked = spurious_columns.unique().tolist()
    if not without or len(asked) < 2:
        return weights
    for column in asked:
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000)
        ).fit(spurious_features, (spurious_columns == column).numpy())
        own = (columns == column).nonzero()[:, 0]
        lacking = max(1, round(without * len(own)))
        if lacking >= len(own):
            continue
        order = np.argsort(probe.decision_function(features[own.numpy()]), kind="stable")
        total = weights[own].sum()
        weights[own[torch.from_numpy(order[:lacking])]] = total / (2 * lacking)
        weights[own[torch.from_numpy(order[lacking:])]] = total / (2 * (len(own) - lacking))
    return weights


def train_last_layer(
    weight: NDArray[np.float64],
    bias: NDArray[np.float64],
    features: NDArray[np.float64],
    columns: Tensor,
    image_weights: Tensor,
    spurious_features: NDArray[np.float64] | None,
    spurious_columns: Tensor | None,
    settings: LastLayer,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A last layer on frozen features, in float64: deterministic, and the same whatever the order.

    The outputs of classes that there are no images of stay as they are: nothing would train them
    but that they are never right.

    Args:
        weight: (C, D), where it starts and what it stays near.
        bias: (C,), likewise.
        features: (N, D) of images that show their classes.
        columns: (N,) int64, their outputs.
        image_weights: (N,), which sum to 1.
        spurious_features: (M, D) of images that show a class's spurious feature alone; None: the
            classes are balanced and nothing else, the rival of all the others.
        spurious_columns: (M,) int64, the outputs that they must not be called.
        settings: every number.

    Returns:
        Weight (C, D) and bias (C,).
    """
    whole = torch.from_numpy(np.concatenate([weight, bias[:, None]], axis=1)).double()
    known = columns.unique()
    start, others = whole[known], np.setdiff1d(np.arange(len(whole)), known.numpy())
    layer = start.clone().requires_grad_()

    def prepared(values: NDArray[np.float64], of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, what the other outputs add to the softmax, and places among the known."""
        inputs = F.pad(torch.from_numpy(values).double(), (0, 1), value=1.0)
        rest = inputs @ whole[others].T if len(others) else torch.full((len(inputs), 1), -torch.inf)
        return inputs, rest.logsumexp(1, keepdim=True), torch.searchsorted(known, of)

    def logits_of(inputs: Tensor, rest: Tensor) -> Tensor:
        return torch.cat([inputs @ layer.T, rest], dim=1)

    shown, beside, wanted = prepared(features, columns)
    spurious = None
    if spurious_features is not None and spurious_columns is not None:
        spurious = prepared(spurious_features, spurious_columns)
        spurious_weights = class_weights(spurious_columns)
    optimiser = torch.optim.LBFGS(
        [layer], max_iter=settings.iterations, line_search_fn="strong_wolfe", history_size=20
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        errors = F.cross_entropy(logits_of(shown, beside), wanted, reduction="none")
        loss = (image_weights * errors).sum()
        if spurious is not None:
            alone, beside_alone, of = spurious
            errors = spurious_loss(logits_of(alone, beside_alone), of)
            loss = loss + settings.weight * (spurious_weights * errors).sum()
        distance = (layer - start).square().sum() / start.square().sum()
        loss = loss + settings.keep * distance
        loss.backward()
        return loss

    optimiser.step(closure)
    whole[known] = layer.detach()
    trained = whole.numpy()
    return trained[:, :-1], trained[:, -1]


def fine_tune(
    classifier: Classifier,
    shown: Seen,
    image_weights: Tensor,
    spurious: Seen | None,
    settings: FineTuning,
    seed: int,
) -> None:
    """Train all weights of a classifier on, in place.

    Images are mirrored and shifted at random: the few that lack their feature are drawn often.

    Args:
        classifier: to be trained.
        shown: images that show their classes.
        image_weights: (N,) how often each of them is drawn.
        spurious: images that show a class's spurious feature alone; None: none.
        settings: every number.
        seed: of which images are drawn.
    """
    network = classifier.network
    parameters = [p.requires_grad_() for p in network.parameters()]
    optimiser = torch.optim.AdamW(
        parameters, settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    drawn = [(shown, image_weights.float())]
    if spurious is not None:
        drawn.append((spurious, class_weights(spurious.columns)))
    with progress("fine-tuning", settings.steps, unit="step") as advance:
        for step in range(settings.steps):
            generator = torch.Generator().manual_seed(derive_seed(seed, "mend", step))
            total = torch.zeros((), device=classifier.device)
            for seen, weights in drawn:
                which = torch.multinomial(
                    weights, settings.batch_size, replacement=True, generator=generator
                )
                pixels = moved(seen.pixels[which], generator)
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
            advance(1)
    network.requires_grad_(False)


def moved(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Images, each mirrored or not and shifted by up to 1/16 of its sides, the rim repeated.

    Args:
        pixels: (N, 3, height, width).
        generator: of what is drawn, on the CPU.
    """
    count, _, height, width = pixels.shape
    places = []
    for side in (height, width):
        far = side // 16
        shift = torch.randint(-far, far + 1, (count, 1), generator=generator)
        places.append((torch.arange(side) + shift).clamp(0, side - 1))
    rows, columns = places
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count)
    return pixels.permute(0, 2, 3, 1)[
        image[:, None, None], rows[:, :, None], columns[:, None, :]
    ].permute(0, 3, 1, 2)

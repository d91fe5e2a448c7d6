"""The contributions that SpuFix takes off, in the classifier of a discovery and in others.

Neuhaus et al. 2023 (arXiv 2212.04871), section 5: where component l of class k is spurious, the
logit of k loses max(alpha_l, 0). In a classifier other than the one that was looked into, the
direction is the one whose projection of its own weighted features has the greatest covariance with
alpha_l over the class's training images: v' = Cov(psi', alpha_l) / |Cov(psi', alpha_l)|.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spurbench.classifiers.classifier import Classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.discovery.documents import COMPONENTS, Discovery, class_folder, listed_images
from spurbench.discovery.lens import require_linear_end
from spurbench.discovery.neural_pca import Components, load_alphas
from spurbench.images.records import ImageRecord
from spurbench.mitigation.seen import features, see

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Contribution:
    """What one direction adds to one logit: <phi, row> - offset.

    Attributes:
        index: ImageNet-1k index of the class.
        component: its number in the discovery, from 1.
        row: (D,).
        offset: what is taken off the product.
        correlation: Pearson's, over the class's training images, between what is taken off here and
            the discovery's alpha; 1 in the classifier that was looked into.
    """

    index: int
    component: int
    row: Array
    offset: float
    correlation: float


def contribution(direction: Array, weight: Array, mean: Array) -> tuple[Array, float]:
    """Row and offset of <1, v> <w * phi - m, v>, for a unit direction v (D,), w (D,), m (D,)."""
    scaled = direction * direction.sum()
    return scaled * weight, float(scaled @ mean)


def matched(psi: Array, alphas: Array) -> Array:
    """The unit direction v (D,) whose projections of psi (N, D) vary most with alphas (N,).

    Raises:
        SpurbenchError: if they do not vary together at all.
    """
    covariance = (psi - psi.mean(axis=0)).T @ (alphas - alphas.mean()) / (len(psi) - 1)
    length = float(np.linalg.norm(covariance))
    if not length > 0:
        raise SpurbenchError(
            "features and component don't vary together; there is nothing to match"
        )
    return covariance / length


def contributions(
    classifier: Classifier, discovery: Path, wanted: Mapping[int, Sequence[int]]
) -> list[Contribution]:
    """What is to be taken off a classifier.

    Args:
        classifier: to be mended; it ends in a linear layer.
        discovery: folder of ``spurbench discover``, of this classifier or another.
        wanted: by ImageNet-1k index of a class, the numbers of its spurious components, from 1.

    Raises:
        SpurbenchError: if the discovery has no such class or component, its training images have
            changed or are gone, or the classifier is of another kind.
    """
    require_linear_end(classifier)
    own = Discovery.read(discovery).classifier.weights_sha256 == classifier.info.weights_sha256
    found = []
    for index, numbers in sorted(wanted.items()):
        name = imagenet_names()[index]
        folder = discovery / class_folder(index)
        if not (folder / COMPONENTS).is_file():
            raise SpurbenchError(
                f"{discovery} has no components of {name}; discover that class too"
            )
        components = Components.load(folder / COMPONENTS)
        absent = [n for n in numbers if not 1 <= n <= len(components.sums)]
        if absent:
            raise SpurbenchError(
                f"{name} has components 1 to {len(components.sums)} in {discovery}, not {absent[0]}"
            )
        if own:
            for number in numbers:
                direction = components.directions[number - 1]
                row, offset = contribution(direction, components.weight, components.mean)
                found.append(Contribution(index, number, row, offset, 1.0))
        else:
            found += _of_another(classifier, discovery, index, numbers)
    return found


def _of_another(
    classifier: Classifier, discovery: Path, index: int, numbers: Sequence[int]
) -> list[Contribution]:
    folder = discovery / class_folder(index)
    root = Path(Discovery.read(discovery).images)
    listed = listed_images(folder)
    name = imagenet_names()[index]
    images = [
        ImageRecord.from_file(
            root / one.path, class_index=index, source="positive", class_name=name, name=one.path
        )
        for one in listed
    ]
    changed = [of.path for of, i in zip(listed, images, strict=True) if of.sha256 != i.sha256]
    if changed:
        raise SpurbenchError(f"{root / changed[0]} is not what it was; discover the class again")
    seen = see(classifier, images)
    if len(seen) != len(images):
        raise SpurbenchError(f"images of {root} can't be read any more; discover the class again")
    column = int(classifier.columns([imagenet_wnids()[index]])[0])
    weight = classifier.head_weight[column].detach().double().cpu().numpy()
    psi = features(classifier, seen) * weight
    alphas = load_alphas(folder / COMPONENTS).astype(np.float64)
    made = []
    for number in numbers:
        direction = matched(psi, alphas[:, number - 1])
        row, offset = contribution(direction, weight, psi.mean(axis=0))
        here = (psi - psi.mean(axis=0)) @ direction * direction.sum()
        correlation = float(np.corrcoef(here, alphas[:, number - 1])[0, 1])
        made.append(Contribution(index, number, row, offset, correlation))
    return made


def tensors(classifier: Classifier, found: Sequence[Contribution]) -> dict[str, torch.Tensor]:
    """As :class:`spurbench.classifiers.spufix.SpuFixed` takes them."""
    wnids = [imagenet_wnids()[one.index] for one in found]
    return {
        "columns": classifier.columns(wnids),
        "rows": torch.from_numpy(np.stack([one.row for one in found])).float(),
        "offsets": torch.tensor([one.offset for one in found], dtype=torch.float32),
    }

"""`spurbench mend`: a classifier that relies less on spurious features, as a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from spurbench.classifiers.classifier import Classifier
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.discovery.documents import Discovery
from spurbench.discovery.lens import require_linear_end
from spurbench.images.records import DatasetInfo, ImageRecord, ImageSet, Split
from spurbench.images.sources import open_images, open_positives
from spurbench.mitigation import folder, spufix
from spurbench.mitigation.seen import Seen, features, see
from spurbench.mitigation.training import (
    FineTuning,
    LastLayer,
    class_weights,
    fine_tune,
    image_weights,
    train_last_layer,
)
from spurbench.recipe.classes import ClassRegistry

log = logging.getLogger(__name__)

Method = Literal["spufix", "last-layer", "fine-tune"]
METHODS: tuple[Method, ...] = ("spufix", "last-layer", "fine-tune")


@dataclass(frozen=True)
class Trainings:
    """What the trained methods learn from.

    Attributes:
        images: folder of images that show their classes, in ImageNet's layout.
        spurious: images of the spurious features alone: a dataset, a folder or a hub id; None:
            classes are balanced and nothing else.
        split: of ``spurious``.
        per_class: how many spurious images of each class, the first by their sha256; None: all.
    """

    images: Path
    spurious: str | None
    split: Split = "generated"
    per_class: int | None = None


def spufixed(
    classifier: Classifier, discovery: Path, wanted: Mapping[int, Sequence[int]], output: Path
) -> dict[str, Any]:
    """Write a classifier whose logits lose the positive part of spurious components.

    Args:
        classifier: of timm, and ending in a linear layer.
        discovery: see :func:`spurbench.mitigation.spufix.contributions`.
        wanted: likewise.
        output: the folder.

    Returns:
        What was done, as the card says it.

    Raises:
        SpurbenchError: see :func:`spurbench.mitigation.spufix.contributions`.
    """
    config = folder.config_of(classifier)
    found = spufix.contributions(classifier, discovery, wanted)
    done = {
        "method": "spufix",
        "of": classifier.info.model_dump(mode="json"),
        "discovery": Discovery.read(discovery).classifier.model_dump(mode="json"),
        "components": [
            {
                "class": imagenet_names()[one.index],
                "class_index": one.index,
                "component": one.component,
                "correlation": round(one.correlation, 6),
            }
            for one in found
        ],
        "versions": package_versions(),
    }
    folder.write(output, classifier, config, done, spufix.tensors(classifier, found))
    return done


@dataclass(frozen=True)
class Shown:
    """The classes' own images as a classifier sees them; opened once, they serve many mendings."""

    classifier: Classifier
    info: DatasetInfo
    seen: Seen

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """(N, D), when they are first asked for: before it is trained on."""
        return features(self.classifier, self.seen)


def show(classifier: Classifier, images: Path) -> Shown:
    """Show a classifier the images that it is to be mended with.

    Args:
        classifier: as it is before.
        images: folder in ImageNet's layout.

    Raises:
        SpurbenchError: if they can't be had, or it lacks one of their classes.
    """
    found = open_positives(images, decode=False)
    return Shown(classifier, found.info, see(classifier, found.records))


def trained(
    classifier: Classifier,
    given: Trainings,
    settings: LastLayer | FineTuning,
    output: Path,
    *,
    seed: int = 0,
    shown: Shown | None = None,
) -> dict[str, Any]:
    """Write a classifier whose last layer, or all of it, was trained on.

    Args:
        classifier: of timm; its weights change in place.
        given: images.
        settings: of the method, which they decide.
        output: the folder.
        seed: of what fine-tuning draws.
        shown: what :func:`show` gave for this classifier and ``given.images``; None: it is asked.

    Returns:
        What was done, as the card says it.

    Raises:
        SpurbenchError: if images can't be had, or the classifier lacks one of their classes.
    """
    config = folder.config_of(classifier)
    shown = shown or show(classifier, given.images)
    spurious_set = (
        open_images(given.spurious, given.split, decode=False) if given.spurious else None
    )
    columns = shown.seen.columns
    spurious = None
    if spurious_set is not None:
        chosen = _chosen(spurious_set, given.per_class)
        spurious = see(classifier, chosen)
        lacking = ~torch.isin(spurious.columns, columns)
        if lacking.any():
            wnid = classifier.wnids[int(spurious.columns[lacking][0])]
            raise SpurbenchError(
                f"{given.images} shows no {imagenet_names()[imagenet_wnids().index(wnid)]}: a "
                "classifier that is taught what it is not must be shown what it is"
            )
    done = {
        "method": "last-layer" if isinstance(settings, LastLayer) else "fine-tune",
        "of": classifier.info.model_dump(mode="json"),
        "settings": asdict(settings),
        "images": shown.info.model_dump(mode="json"),
        "spurious": spurious_set.info.model_dump(mode="json") if spurious_set else None,
        "spurious_images": len(spurious) if spurious else 0,
        "seed": seed,
        "versions": package_versions(),
    }
    weights, of_spurious = class_weights(columns).double(), None
    if spurious is not None:
        of_spurious = features(classifier, spurious)
        weights = image_weights(
            shown.features, columns, of_spurious, spurious.columns, settings.without
        )
    if isinstance(settings, LastLayer):
        require_linear_end(classifier)
        weight, bias = train_last_layer(
            classifier.head_weight.detach().double().cpu().numpy(),
            _bias(classifier),
            shown.features,
            columns,
            weights,
            of_spurious,
            spurious.columns if spurious else None,
            settings,
        )
        with torch.no_grad():
            classifier.head.weight.copy_(torch.from_numpy(weight))
            classifier.head.bias.copy_(torch.from_numpy(bias))
    else:
        fine_tune(classifier, shown.seen, weights, spurious, settings, seed)
    folder.write(output, classifier, config, done)
    return done


def components_of(pairs: Path, classes: Sequence[int] | None = None) -> dict[int, list[int]]:
    """The spurious components that a ``classes.toml`` names, by class index.

    Args:
        pairs: as ``spurbench discover export`` writes it.
        classes: which; None: all.

    Raises:
        SpurbenchError: if the file is missing or wrong, or has none of the classes.
    """
    wanted: dict[int, list[int]] = {}
    for pair in ClassRegistry.read(pairs):
        if classes is None or pair.index in classes:
            wanted.setdefault(pair.index, []).append(pair.component)
    if not wanted:
        raise SpurbenchError(f"{pairs} names no component of the classes that are to be mended")
    return wanted


def _bias(classifier: Classifier) -> np.ndarray:
    layer = classifier.head
    if layer.bias is None:
        raise SpurbenchError(f"{classifier.info.name}'s last layer has no bias; use fine-tune")
    bias: np.ndarray = layer.bias.detach().double().cpu().numpy()
    return bias


def _chosen(images: ImageSet, per_class: int | None) -> list[ImageRecord]:
    """Object-free images, so many of each class, the first by their sha256."""
    left: dict[int, list[ImageRecord]] = {}
    for record in sorted(images.records, key=lambda record: record.sha256):
        of_class = left.setdefault(record.class_index, [])
        if record.object_absent is not False and (per_class is None or len(of_class) < per_class):
            of_class.append(record)
    return [record for index in sorted(left) for record in left[index]]

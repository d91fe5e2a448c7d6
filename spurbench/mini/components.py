"""What a discovery on the mini world is worth, whose truth is known: ``spurbench mini components``.

For each class and each of its first components: how well its alpha separates object-free scenes
with the planted feature from scenes with the object alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spurbench.core import markdown
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.discovery.documents import COMPONENTS, Discovery, class_folder
from spurbench.discovery.lens import scaled
from spurbench.discovery.neural_pca import Components
from spurbench.evaluation.members import Member
from spurbench.mini.distributions import CLASSES, biased, render_all, spurious
from spurbench.mini.scenes import PLANTED_FEATURE, Scene

FIRST = 5
"""Components in which a feature must show."""


@dataclass(frozen=True)
class Separated:
    """How components of a class tell its feature from its object, one value each.

    Attributes:
        auroc: of alpha; 1: each object-free scene with the feature is above each with the object
            alone.
        gain: by how much the mean alpha of the former is above that of the latter: what the feature
            adds to the logit by this component, beyond what the object does.
    """

    auroc: tuple[float, ...]
    gain: tuple[float, ...]


def separation(folder: Path, *, scenes: int, device: torch.device, seed: int = 1) -> dict[str, Any]:
    """The first components of every class that a discovery holds, as JSON values.

    Args:
        folder: of the discovery.
        scenes: see :func:`separated`.
        device: likewise.
        seed: likewise.

    Returns:
        By class, whether its feature is ``planted``, and the ``auroc`` and ``gain`` of each
        component.

    Raises:
        SpurbenchError: see :func:`separated`.
    """
    found = separated(folder, CLASSES, scenes=scenes, device=device, seed=seed)
    return {
        "classifier": Discovery.read(folder).classifier.name,
        "scenes": scenes,
        "seed": seed,
        "classes": {
            name: {
                "planted": name in PLANTED_FEATURE,
                "auroc": of.auroc[:FIRST],
                "gain": of.gain[:FIRST],
            }
            for name, of in found.items()
        },
    }


def separated(
    folder: Path, names: Sequence[str], *, scenes: int, device: torch.device, seed: int = 1
) -> dict[str, Separated]:
    """How well each component of a discovery's classes tells the feature from the object.

    A class without a feature of its own, the empty one too, is shown all planted ones in turn;
    the empty one's scenes "with the object alone" show nothing.

    Args:
        folder: of the discovery.
        names: of classes; those that the discovery lacks are left out.
        scenes: of each side.
        device: where the classifier runs.
        seed: of the scenes; another than the training's.

    Raises:
        SpurbenchError: if the discovery has none of the classes, or its classifier is gone.
    """
    from sklearn.metrics import roc_auc_score

    classifier = Member.parse(Discovery.read(folder).classifier.spec).load(device)
    found: dict[str, Separated] = {}
    for name in names:
        file = folder / class_folder(imagenet_names().index(name)) / COMPONENTS
        if not file.exists():
            continue
        components = Components.load(file)
        with_feature = _object_free(name, seed, scenes)
        pixels = render_all([*with_feature, *_object_alone(name, seed, scenes)], name)
        with torch.inference_mode():
            batches = torch.from_numpy(pixels).permute(0, 3, 1, 2).split(64)
            features = torch.cat([classifier.features(scaled(b, classifier)) for b in batches])
        alphas = components.alphas(features.cpu().numpy())
        is_feature = np.arange(len(pixels)) < len(with_feature)
        gain = alphas[is_feature].mean(axis=0) - alphas[~is_feature].mean(axis=0)
        found[name] = Separated(
            tuple(float(roc_auc_score(is_feature, column)) for column in alphas.T),
            tuple(gain.tolist()),
        )
    if not found:
        raise SpurbenchError(f"{folder} holds no class of the mini world; discover some first")
    return found


def render_markdown(measured: dict[str, Any]) -> str:
    """A table of :func:`separation`: AUROC and gain, the best AUROC in bold."""
    rows = []
    for name, of in measured["classes"].items():
        best = max(of["auroc"])
        shown = [
            f"**{auroc:.2f}** ({gain:+.1f})" if auroc == best else f"{auroc:.2f} ({gain:+.1f})"
            for auroc, gain in zip(of["auroc"], of["gain"], strict=True)
        ]
        shown += [""] * (FIRST - len(shown))
        rows.append([name, "yes" if of["planted"] else "no", *shown])
    headings = ["class", "feature", *(str(number) for number in range(1, FIRST + 1))]
    return markdown.table(headings, markdown.first_left(len(headings)), rows)


def _object_free(name: str, seed: int, count: int) -> Sequence[Scene]:
    features = [name] if name in PLANTED_FEATURE else list(PLANTED_FEATURE)
    return [spurious(features[i % len(features)], seed, i) for i in range(count)]


def _object_alone(name: str, seed: int, count: int) -> Sequence[Scene]:
    return [replace(biased(name, seed, "components", i), subfamily=None) for i in range(count)]

"""A stand-in for the people who label components, on the mini world, whose truth is known.

It says of each component whether it is the planted feature, and draws boxes around the object in
the training scenes that show it: ``spurbench mini supervise``, in place of ``discover supervise``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.discovery.documents import Picture, found_classes
from spurbench.discovery.supervise.labels import FILE, Box, Labels, Mark, Verdict
from spurbench.mini.components import separated
from spurbench.mini.distributions import CLASSES, biased
from spurbench.mini.preview import png
from spurbench.mini.scenes import PLANTED_FEATURE, PLANTED_KIND, SIZE, Scene, render

PERSON = "planted truth"
"""The name that it labels under."""

SPURIOUS_AUROC = 0.9
"""From here on a component is the planted feature."""


@dataclass(frozen=True)
class Labelled:
    """What was said of a class.

    Attributes:
        name: of the class.
        aurocs: of its components; none for a class without a planted feature.
        spurious: numbers of those that are called spurious.
        boxed: training scenes in which the object was boxed.
    """

    name: str
    aurocs: tuple[float, ...]
    spurious: tuple[int, ...]
    boxed: int


def supervise(
    folder: Path, *, scenes: int, device: torch.device, training_seed: int = 0
) -> list[Labelled]:
    """Label a discovery's components from the truth of the world.

    A component is spurious where its alpha separates object-free scenes with the class's planted
    feature from scenes with the object alone at AUROC 0.9 or better. A class without one has none.

    Args:
        folder: of a discovery in scenes that ``spurbench mini training`` wrote.
        scenes: see :func:`spurbench.mini.components.separated`.
        device: likewise.
        training_seed: of those that it wrote.

    Raises:
        SpurbenchError: if the discovery has no class with a planted feature, or was made in other
            images.
    """
    measured = separated(folder, tuple(PLANTED_FEATURE), scenes=scenes, device=device)
    labels = Labels(folder / FILE)
    said = []
    for _, found in found_classes(folder):
        aurocs = measured[found.name].auroc if found.name in measured else ()
        spurious = [n for n, auroc in enumerate(aurocs, start=1) if auroc >= SPURIOUS_AUROC]
        boxes: dict[str, tuple[Box, ...]] = {}
        for component in found.components:
            is_feature = component.number in spurious
            if is_feature:
                boxes |= _boxes(component.pictures, training_seed)
            labels.say(
                Verdict(
                    person=PERSON,
                    index=found.index,
                    component=component.number,
                    verdict="yes" if is_feature else "no",
                    feature=PLANTED_FEATURE[found.name] if is_feature else "",
                    noun=PLANTED_KIND[found.name] if is_feature else "",
                )
            )
        for sha256, around in boxes.items():
            labels.mark(Mark(person=PERSON, index=found.index, sha256=sha256, boxes=around))
        boxed = sum(bool(around) for around in boxes.values())
        said.append(Labelled(found.name, aurocs, tuple(spurious), boxed))
    return said


def object_boxes(scene: Scene) -> tuple[Box, ...]:
    """The box around what is seen of a scene's object; none where nothing is.

    A scene without its object is the same in all else, so the object is where the two differ.
    """
    differs = (render(scene) != render(replace(scene, object=None))).any(axis=2)
    if not differs.any():
        return ()
    (top, bottom), (left, right) = (_extent(differs.any(axis=axis)) for axis in (1, 0))
    return (Box(left=left, top=top, right=right, bottom=bottom),)


def _extent(occupied: np.ndarray) -> tuple[float, float]:
    """From the first to behind the last, as shares of the side."""
    (where,) = np.nonzero(occupied)
    return int(where[0]) / SIZE, (int(where[-1]) + 1) / SIZE


def _boxes(pictures: tuple[Picture, ...], seed: int) -> dict[str, tuple[Box, ...]]:
    """Those of training scenes, by the image's sha256."""
    return {picture.sha256: object_boxes(_scene(picture, seed)) for picture in pictures}


def _scene(picture: Picture, seed: int) -> Scene:
    """The training scene that an image is, by its name: WNID/i.png."""
    path = Path(picture.path)
    name = dict(zip(imagenet_wnids(), imagenet_names(), strict=True)).get(path.parent.name)
    if name in CLASSES and re.fullmatch("[0-9]+", path.stem):
        scene = biased(name, seed, "train", int(path.stem))
        if hashlib.sha256(png(render(scene))).hexdigest() == picture.sha256:
            return scene
    raise SpurbenchError(
        f"{picture.path} is no scene of `spurbench mini training --seed {seed}`; discover in those "
        "that it writes, or say which --seed they have"
    )

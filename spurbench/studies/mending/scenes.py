"""The scenes that classifiers are measured on before and after: none was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from spurbench.core.imagenet import imagenet_names
from spurbench.images.records import ImageRecord, images_fingerprint
from spurbench.images.sources import open_images
from spurbench.mini.distributions import CLASSES, biased, render_all, spurious
from spurbench.mini.reliance import scene_record
from spurbench.mini.scenes import PLANTED_FEATURE, Scene

DATA_SET = "mending"
"""Name of the scenes, which are thus none that anything was trained on."""

Kind = Literal["fresh", "bare", "biased", "object", "real"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""``fresh``: object-free scenes with the feature; ``bare``: the same without it; ``biased``: of all
classes, as classifiers train on them; ``object``: the object and another sub-family than its
feature; ``real``: the ``real`` split without references."""


@dataclass(frozen=True)
class Scenes:
    """Scenes by kind; those of a class are in the order they were drawn in."""

    records: Mapping[Kind, Sequence[ImageRecord]]

    @classmethod
    def of(cls, data: str, count: int, seed: int) -> Scenes:
        """Render ``count`` scenes of each class and kind, and take the ``real`` split of ``data``.

        Raises:
            SpurbenchError: if the dataset can't be read.
        """
        planted = [(name, i) for name in PLANTED_FEATURE for i in range(count)]
        every = [(name, i) for name in CLASSES for i in range(count)]
        fresh = [spurious(name, seed, i, DATA_SET) for name, i in planted]
        bare = [replace(scene, subfamily=None) for scene in fresh]
        usual = [biased(name, seed, DATA_SET, i) for name, i in every]
        alone = [biased(name, seed, f"{DATA_SET}/object", i, bias=0) for name, i in planted]
        real = open_images(data, "real", decode=False).records
        return cls(
            {
                "fresh": _records("fresh", fresh, planted),
                "bare": _records("bare", bare, planted),
                "biased": _records("biased", usual, every),
                "object": _records("object", alone, planted),
                "real": [record for record in real if not record.is_reference],
            }
        )

    @property
    def fingerprint(self) -> str:
        """Of all scenes."""
        return images_fingerprint(record for kind in KINDS for record in self.records[kind])


def _records(
    kind: Kind, scenes: Sequence[Scene], called: Sequence[tuple[str, int]]
) -> list[ImageRecord]:
    return [
        scene_record(picture, f"{name}/{kind}/{i}", imagenet_names().index(name), name)
        for picture, (name, i) in zip(render_all(scenes, kind), called, strict=True)
    ]

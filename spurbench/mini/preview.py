"""Looking at the world: a labelled contact sheet, and positives as image files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.images.sheets import contact_sheet
from spurbench.mini.backgrounds import CONTEXTS
from spurbench.mini.distributions import CLASSES, biased, positive, spurious
from spurbench.mini.kinds import KINDS
from spurbench.mini.objects import OBJECTS
from spurbench.mini.scenes import PLANTED_FEATURE, SIZE, Scene, render
from spurbench.recipe.classes import SpuriousClass


def write_preview(path: Path, seed: int = 0, columns: int = 12) -> None:
    """Write a contact sheet (PNG): objects, kinds, contexts, biased and object-free scenes."""
    rows: list[tuple[str, list[Scene] | None]] = [("Objects alone", None)]
    rows += [(name, _alone(name, None, seed, columns)) for name in OBJECTS]
    for kind, subfamilies in KINDS.items():
        rows.append((f"Kind: {kind} (planted first)", None))
        rows += [(sub, _alone(None, sub, seed, columns)) for sub in subfamilies]
    rows.append(("Contexts", None))
    rows += [(where, _alone(None, None, seed, columns, where)) for where in CONTEXTS]
    rows.append(("Biased training scenes", None))
    rows += [(n, [biased(n, seed, "train", i) for i in range(columns)]) for n in CLASSES]
    rows.append(("Real split: the planted feature, object-free", None))
    rows += [(n, [spurious(n, seed, i) for i in range(columns)]) for n in PLANTED_FEATURE]
    drawn = [(label, None if scenes is None else _rendered(scenes)) for label, scenes in rows]
    with atomic.writing(path) as file:
        contact_sheet(drawn, side=SIZE).save(file, "PNG", optimize=True)


def write_positives(folder: Path, images: int, seed: int = 0) -> None:
    """Render images that truly show the six classes, in ImageNet's validation layout.

    Raises:
        SpurbenchError: if ``images``, per class, is none.
    """
    if images < 1:
        raise SpurbenchError(f"images is {images}; give at least 1")
    for spurious_class in _classes():
        for i in range(images):
            scene = positive(spurious_class.name, seed, i)
            atomic.write_bytes(folder / spurious_class.wnid / f"{i}.png", png(render(scene)))


def write_training(
    folder: Path, images: int, seed: int = 0, classes: Sequence[str] = CLASSES
) -> None:
    """Render scenes as the panel was trained on, in ImageNet's layout.

    Args:
        folder: gets a folder a class.
        images: of each class.
        seed: of the scenes; 0 for the embedded panel's own.
        classes: names out of :data:`~spurbench.mini.distributions.CLASSES`.
    """
    for name in classes:
        wnid = imagenet_wnids()[imagenet_names().index(name)]
        for i in range(images):
            pixels = render(biased(name, seed, "train", i))
            atomic.write_bytes(folder / wnid / f"{i}.png", png(pixels))


def write_real(folder: Path, images: int, seed: int = 0) -> None:
    """Render the ``real`` split in the official Spurious ImageNet layout.

    Beside the classes' folders, ``metadata.csv`` has each image's ``file_name``, the
    ``feature_scale`` that its scene was drawn with, and its ``context`` if any.
    """
    table = io.StringIO()
    lines = csv.writer(table, lineterminator="\n")
    lines.writerow(("file_name", "feature_scale", "context"))
    for spurious_class in _classes():
        for i in range(images):
            scene = spurious(spurious_class.name, seed, i)
            name = f"{spurious_class.folder}/{i}.png"
            atomic.write_bytes(folder / name, png(render(scene)))
            lines.writerow((name, f"{scene.drawn_feature_scale:.4f}", scene.context or ""))
    atomic.write_text(folder / "metadata.csv", table.getvalue())


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _classes() -> Sequence[SpuriousClass]:
    from spurbench.recipe.load import read_recipe

    return read_recipe("mini").classes


def _alone(
    name: str | None, subfamily: str | None, seed: int, count: int, context: str | None = None
) -> list[Scene]:
    label = f"{name}/{subfamily}/{context}"
    seeds = [derive_seed(seed, "preview", label, i) for i in range(count)]
    return [Scene(name, subfamily, s, context=context) for s in seeds]


def _rendered(scenes: list[Scene]) -> list[Image.Image]:
    return [Image.fromarray(render(scene)) for scene in scenes]

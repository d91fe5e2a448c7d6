"""Images after each change with the classifiers' answers below them, as the paper's Fig. 6."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import pandas as pd

from spurbench.core.imagenet import imagenet_names
from spurbench.core.markdown import plain
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.studies.probe.ask import Question
from spurbench.studies.probe.measure import UNCHANGED
from spurbench.studies.probe.results import Change
from spurbench.studies.report.pictures import AGREES, DIFFERS, shortened, write_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEAKER = frozenset({"hue-90", "hue-270", "patches-2", "patches-8", "blur-64", "blur-16"})
"""Edits that the picture leaves out: another strength of each is in it."""


def first(images: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """So many of each class, generated ones if it has any, the first by their sha256."""
    chosen: dict[int, list[ImageRecord]] = {}
    for image in sorted(images, key=lambda image: (image.source != "generated", image.sha256)):
        of_class = chosen.setdefault(image.class_index, [])
        if len(of_class) < count:
            of_class.append(image)
    return [image for index in sorted(chosen) for image in chosen[index]]


def caption(count: int, images: Sequence[ImageRecord]) -> str:
    """What the picture shows."""
    which = "image" if count == 1 else f"{count} images"
    kinds = " and ".join(sorted({image.source for image in images}))
    return (
        f"The first {which} ({kinds}) of each class by sha256, as it is and after each change, "
        "with what each classifier calls it: in colour where it is the class"
    )


def figure(
    images: Sequence[ImageRecord],
    asked: Sequence[Question],
    answers: pd.DataFrame,
    changes: Sequence[Change],
) -> Figure:
    """A row each change, a column each image; empty where an image did not go through it.

    Args:
        images: to show.
        asked: what classifiers were shown.
        answers: to all of that, a row a classifier and question; see docs/probe.md.
        changes: in their order; those :data:`WEAKER` are left out.
    """
    from matplotlib.figure import Figure

    titles = {UNCHANGED: "as it is"}
    titles |= {c.name: plain(c.title) for c in changes if c.name not in WEAKER}
    records = {(q.image.sha256, q.change): q.record for q in asked}
    said = dict(iter(answers.groupby(["image_sha256", "change"], sort=False)))
    asked_of = answers["classifier"].nunique()
    size = 1.5 * len(images) + 1.1, (1.45 + 0.11 * asked_of) * len(titles) + 0.3
    drawn = Figure(figsize=size, layout="constrained")
    axes = drawn.subplots(len(titles), len(images), squeeze=False)
    names = imagenet_names()
    for row, (change, title) in zip(axes, titles.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if axis is row[0]:
                words = "\n".join(wrap(shortened(title, 60), 22))
                axis.set_ylabel(words, rotation=0, ha="right", va="center", fontsize=7)
            if change == UNCHANGED:
                feature = image.spurious_feature or ""
                heading = "\n".join(shortened(plain(t), 26) for t in (image.class_name, feature))
                axis.set_title(heading, fontsize=7)
            if (image.sha256, change) not in records:
                continue
            axis.imshow(decode_rgb(records[image.sha256, change].read()))
            told = said[image.sha256, change]
            lines = []
            for label, answer, own in zip(
                told["classifier"], told["prediction"], told["class_index"], strict=True
            ):
                called = names[answer] if 0 <= answer < len(names) else "none of ImageNet's"
                words = shortened(f"{plain(label)}: {called}", 32)
                lines.append((words, AGREES if answer == own else DIFFERS))
            write_below(axis, lines, size=5.5)
    return drawn

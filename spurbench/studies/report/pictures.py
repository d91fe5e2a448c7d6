"""Images with the classifiers' answers below them (Fig. 1 and 4); nothing is picked by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spurbench.core.imagenet import imagenet_names
from spurbench.core.markdown import plain
from spurbench.dataset.rows import Row
from spurbench.evaluation.results import Result
from spurbench.images.decode import decode_rgb
from spurbench.images.records import Split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AGREES, DIFFERS = "#b23a12", "#333333"
"""Colours of an answer that is the class, and of another."""


@dataclass(frozen=True)
class Asked:
    """An image and what each classifier answered.

    Attributes:
        row: of the dataset.
        answers: by the classifier's label: ImageNet-1k index (-1 outside it), and the probability
            of the image's class.
    """

    row: Row
    answers: Mapping[str, tuple[int, float]]

    @property
    def disagreement(self) -> tuple[float, float]:
        """How far from unanimous: 0 to 0.5, then the spread of the probabilities."""
        called = np.mean([answer == self.row.class_index for answer, _ in self.answers.values()])
        return float(min(called, 1 - called)), float(np.std([p for _, p in self.answers.values()]))


def asked(rows: Sequence[Row], results: Sequence[Result], split: Split) -> list[Asked]:
    """The images of a split that every classifier was asked about, in the order of their hashes.

    Raises:
        SpurbenchError: if a result's answers are missing.
    """
    given: list[tuple[str, dict[str, tuple[int, float]]]] = []
    for result in results:
        answers = result.answers
        own = answers[answers["source"] == split]
        columns = (own[name].tolist() for name in ("image_sha256", "prediction", "probability"))
        given.append(
            (result.label, {sha: (int(a), float(p)) for sha, a, p in zip(*columns, strict=True)})
        )
    return [
        Asked(row, {label: of[row.image_sha256] for label, of in given})
        for row in sorted(rows, key=lambda row: row.image_sha256)
        if all(row.image_sha256 in of for _, of in given)
    ]


def first(images: Sequence[Asked], count: int) -> list[Asked]:
    """So many of each class, the first by their sha256."""
    chosen: dict[int, list[Asked]] = {}
    for image in images:
        of_class = chosen.setdefault(image.row.class_index, [])
        if len(of_class) < count:
            of_class.append(image)
    return [image for index in sorted(chosen) for image in chosen[index]]


def disputed(images: Sequence[Asked], count: int) -> list[Asked]:
    """Those on which classifiers disagree most, a tie broken by the hash."""
    ranked = sorted(images, key=lambda a: (-a.disagreement[0], -a.disagreement[1]))
    return [image for image in ranked if image.disagreement[0] > 0][:count]


def answers_figure(images: Sequence[Asked], columns: int) -> Figure:
    """Images in a grid, each with its feature and every answer; in colour where it is the class."""
    names = imagenet_names()
    rows = -(-len(images) // columns)
    lines = 1 + len(images[0].answers)
    figure, axes = grid(rows, columns, lines)
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(decode_rgb(image.row.read()))
        said = [(plain(image.row.spurious_feature), "#777777")]
        for label, (answer, probability) in image.answers.items():
            agrees = answer == image.row.class_index
            called = names[answer] if 0 <= answer < len(names) else "none of ImageNet's"
            words = f"{plain(label)}: {called}" + (f" {probability:.2f}" if agrees else "")
            said.append((shortened(words, 34), AGREES if agrees else DIFFERS))
        write_below(axis, said)
    return figure


def grid(rows: int, columns: int, lines: int) -> tuple[Figure, NDArray[Any]]:
    """A figure for images with lines of text below each, and its axes, (rows, columns).

    All inches are given: a layout that looks for room would make images as small as text is wide.
    """
    from matplotlib.figure import Figure

    side, across, down = 1.6, 2.0, 1.6 + 0.13 * lines + 0.2
    width, height = across * columns, down * rows + 0.1
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": (across - side) / 2 / width,
            "right": 1 - (across - side) / 2 / width,
            "top": 1 - 0.1 / height,
            "bottom": (down - side) / height,
            "wspace": across / side - 1,
            "hspace": down / side - 1,
        },
    )
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def write_below(axis: Axes, lines: Sequence[tuple[str, str]], size: float = 7) -> None:
    """Lines below an image, each with its colour; ``size`` is in points."""
    for i, (words, colour) in enumerate(lines):
        axis.annotate(
            words,
            (0.5, 0),
            xytext=(0, -3 - 1.3 * size * i),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=size,
            color=colour,
        )


def shortened(words: str, length: int) -> str:
    """Words cut to so many characters, which an ellipsis says."""
    return words if len(words) <= length else f"{words[: length - 1]}…"

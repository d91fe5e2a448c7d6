"""`spurbench compare`: two classifiers, or one before and after a mitigation, image by image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from spurbench.core import atomic
from spurbench.core.documents import Document, Share
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names
from spurbench.evaluation import metrics, paired
from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.results import ClassResult, Result, Settings
from spurbench.images.decode import decode_rgb
from spurbench.images.records import DatasetInfo, Split
from spurbench.images.sheets import Captioned, captioned_sheet
from spurbench.images.sources import open_images

SCHEMA: Literal["spurbench.comparison/1"] = "spurbench.comparison/1"

Difference = Annotated[float, Field(ge=-1, le=1)]


class DifferenceInterval(Document):
    """A 95 % interval of a difference of shares."""

    low: Difference
    high: Difference


class Contrast(Document):
    """B against A on the same images; a difference is B minus A, so below 0 B is fooled less."""

    n: int = Field(ge=1, description="images")
    a: Share = Field(description="spurious accuracy of A")
    b: Share = Field(description="spurious accuracy of B")
    difference: Difference
    interval: DifferenceInterval = Field(
        description="paired percentile bootstrap over the images within each class"
    )
    only_a: int = Field(ge=0, description="images that fool A and not B")
    only_b: int = Field(ge=0, description="images that fool B and not A")
    p_value: Share = Field(description="McNemar's exact test, not adjusted")


class ClassContrast(Contrast):
    """One class."""

    index: int
    name: str
    spurious_feature: str | None = None
    adjusted_p_value: Share = Field(description="Holm-adjusted over the classes of the split")


class SplitContrast(Contrast):
    """One split: shares and difference are means over its classes, the test is over its images."""

    classes: list[ClassContrast]


class ImageContrast(Document):
    """What both say of one image."""

    image_sha256: str
    path: str
    source: Split
    class_index: int
    a_prediction: int
    b_prediction: int
    a_probability: Share = Field(description="of the class")
    b_probability: Share


class Comparison(Document):
    """Two classifiers on the same images."""

    schema_version: Literal["spurbench.comparison/1"] = Field(default=SCHEMA, alias="schema")
    a: str
    b: str
    dataset: DatasetInfo
    splits: dict[Split, SplitContrast]
    images: list[ImageContrast] = Field(
        description="where the class's probabilities differ most, the largest difference first"
    )
    settings: Settings


def compare(a: Result, b: Result, *, images: int = 24) -> Comparison:
    """Compare two results of the same images.

    Args:
        a: with its answers: the classifier before, or the one to compare with.
        b: the other.
        images: how many of the images on which they differ most to list.

    Raises:
        SpurbenchError: if an answer is not known, or the results are of other images.
    """
    first, second = _answers(a), _answers(b)
    splits = [split for split in a.splits if split in b.splits]
    if not splits:
        raise SpurbenchError(f"{a!r} and {b!r} have no split in common")
    contrasts: dict[Split, SplitContrast] = {}
    for split in splits:
        own, other = (side[side["source"] == split] for side in (first, second))
        keys = ["class_index", "image_sha256"]
        if not np.array_equal(own[keys].to_numpy(), other[keys].to_numpy()):
            raise SpurbenchError(
                f"{a.label} and {b.label} did not see the same {split} images; measure both on one "
                "dataset"
            )
        known = {c.index: c for c in a.splits[split].classes}
        contrasts[split] = _split(own, other, known, a.settings)
    shared = first["source"].isin(splits).to_numpy()
    return Comparison(
        a=a.label,
        b=b.label,
        dataset=a.dataset,
        splits=contrasts,
        images=_most_different(
            first[shared],
            second[second["source"].isin(splits)],
            images,
        ),
        settings=a.settings,
    )


def write(comparison: Comparison, output: Path, data: str | None) -> list[Path]:
    """Write ``comparison.json``, and with ``data`` the images that it lists as ``images.png``.

    Raises:
        SpurbenchError: if ``data`` lacks one of the images.
    """
    files = [output / "comparison.json"]
    sheet = None
    if data is not None:
        records = {record.sha256: record for record in open_images(data).records}
        missing = [i.path for i in comparison.images if i.image_sha256 not in records]
        if missing:
            raise SpurbenchError(
                f"{data} is not the dataset that was measured: it has no image {missing[0]}"
            )
        sheet = captioned_sheet(
            [
                Captioned(
                    decode_rgb(records[image.image_sha256].read()), _caption(comparison, image)
                )
                for image in comparison.images
            ],
            heading=[
                f"A: {comparison.a}",
                f"B: {comparison.b}",
                "Probability of the class, and the answer. The largest differences first.",
            ],
        )
        files.append(output / "images.png")
    atomic.write_json(files[0], comparison.model_dump(mode="json", by_alias=True))
    if sheet is not None:
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG", optimize=True)
        atomic.write_bytes(files[1], buffer.getvalue())
    return files


def _answers(result: Result) -> pd.DataFrame:
    """The answers to spurious images, in an order that any result shares."""
    answers = result.answers[result.answers["source"] != "positive"]
    order = ["source", "class_index", "image_sha256"]
    return answers.sort_values(order, kind="stable").reset_index(drop=True)


def _split(
    a: pd.DataFrame, b: pd.DataFrame, known: dict[int, ClassResult], settings: Settings
) -> SplitContrast:
    classes = a["class_index"].to_numpy()
    fooled_a, fooled_b = ((frame["rank"] == 1).to_numpy() for frame in (a, b))
    indices = sorted(known)
    groups = [(fooled_a[classes == index], fooled_b[classes == index]) for index in indices]
    raw = [_contrast([group], settings) for group in groups]
    adjusted = paired.holm([contrast["p_value"] for contrast in raw])
    return SplitContrast(
        **_contrast(groups, settings),
        classes=[
            ClassContrast(
                **contrast,
                index=index,
                name=known[index].name,
                spurious_feature=known[index].spurious_feature,
                adjusted_p_value=p,
            )
            for index, contrast, p in zip(indices, raw, adjusted, strict=True)
        ],
    )


def _contrast(
    groups: list[tuple[NDArray[np.bool_], NDArray[np.bool_]]], settings: Settings
) -> dict[str, Any]:
    """A contrast from each class's answers, (A fooled, B fooled), image by image."""
    differences = [b.astype(float) - a.astype(float) for a, b in groups]
    low, high = bootstrap_interval(
        differences, resamples=settings.bootstrap_resamples, seed=settings.bootstrap_seed
    )
    a, b = (np.concatenate(side) for side in zip(*groups, strict=True))
    return {
        "n": len(a),
        "a": metrics.macro_mean([own.astype(float) for own, _ in groups]),
        "b": metrics.macro_mean([own.astype(float) for _, own in groups]),
        "difference": metrics.macro_mean(differences),
        "interval": DifferenceInterval(low=low, high=high),
        "only_a": int((a & ~b).sum()),
        "only_b": int((~a & b).sum()),
        "p_value": paired.mcnemar(a, b),
    }


def _most_different(a: pd.DataFrame, b: pd.DataFrame, count: int) -> list[ImageContrast]:
    a, b = a.reset_index(drop=True), b.reset_index(drop=True)
    gap = (a["probability"] - b["probability"]).abs().to_numpy()
    return [
        ImageContrast(
            **a.loc[i, ["image_sha256", "path", "source", "class_index"]].to_dict(),
            a_prediction=a.loc[i, "prediction"],
            b_prediction=b.loc[i, "prediction"],
            a_probability=a.loc[i, "probability"],
            b_probability=b.loc[i, "probability"],
        )
        for i in np.argsort(-gap, kind="stable")[:count]
    ]


def _caption(comparison: Comparison, image: ImageContrast) -> list[str]:
    names = imagenet_names()

    def said(prediction: int) -> str:
        return names[prediction] if prediction >= 0 else "another class"

    return [
        f"{names[image.class_index]}, {image.source}",
        f"A {image.a_probability:.0%}: {said(image.a_prediction)}",
        f"B {image.b_probability:.0%}: {said(image.b_prediction)}",
    ]

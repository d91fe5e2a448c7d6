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
from spurbench.core.markdown import plain
from spurbench.evaluation import metrics, paired
from spurbench.evaluation.bootstrap import bootstrap_interval
from spurbench.evaluation.results import Difference, Protocol, Result, Settings, SignedInterval
from spurbench.evaluation.summary import Answers, ClassAnswers, by_class
from spurbench.images.decode import decode_rgb
from spurbench.images.records import Config, DatasetInfo, Split
from spurbench.images.sheets import Captioned, captioned_sheet
from spurbench.images.sources import open_images

SCHEMA: Literal["spurbench.comparison/2"] = "spurbench.comparison/2"

Change = Annotated[float, Field(ge=-2, le=2)]


class ChangeInterval(Document):
    """A 95 % interval of a difference of effects."""

    low: Change
    high: Change


class EffectContrast(Document):
    """B's feature effect against A's, on the same pairs of images and twins."""

    pairs: int = Field(ge=1)
    a: Difference = Field(description="feature effect of A")
    b: Difference = Field(description="feature effect of B")
    difference: Change
    interval: ChangeInterval = Field(description="paired percentile bootstrap, over pairs")
    p_value: Share = Field(description="Fisher's exact randomisation test, not adjusted")


class Contrast(Document):
    """B against A on the same images; a difference is B minus A, so below 0 B is fooled less."""

    n: int = Field(ge=1, description="images that count")
    a: Share = Field(description="spurious accuracy of A")
    b: Share = Field(description="spurious accuracy of B")
    difference: Difference
    interval: SignedInterval = Field(
        description="paired percentile bootstrap within each class, over generators and then images"
    )
    only_a: int = Field(ge=0, description="images that fool A and not B")
    only_b: int = Field(ge=0, description="images that fool B and not A")
    p_value: Share = Field(description="McNemar's exact test, not adjusted")
    effect: EffectContrast | None = Field(default=None, description="null without controls")


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

    schema_version: Literal["spurbench.comparison/2"] = Field(default=SCHEMA, alias="schema")
    a: str
    b: str
    dataset: DatasetInfo
    protocol: Protocol
    config: Config
    splits: dict[Split, SplitContrast]
    images: list[ImageContrast] = Field(
        description="where the class's probabilities differ most, the largest difference first"
    )
    settings: Settings

    def __repr__(self) -> str:
        differences = ", ".join(
            f"{split} {100 * part.difference:+.1f} points" for split, part in self.splits.items()
        )
        return f"<Comparison: {plain(f'{self.b} minus {self.a}')}: {differences}>"

    __str__ = __repr__


def compare(a: Result, b: Result, *, images: int = 24) -> Comparison:
    """Compare two results of the same images.

    Args:
        a: with its answers: the classifier before, or the one to compare with.
        b: the other.
        images: how many of the images on which they differ most to list.

    Raises:
        SpurbenchError: if an answer is not known, or the results are of other images, of another
            protocol or of another config.
    """
    for what in ("protocol", "config"):
        if getattr(a, what) != getattr(b, what):
            raise SpurbenchError(
                f"{a.label} and {b.label} were measured by {what} {getattr(a, what)} and "
                f"{getattr(b, what)}; measure both alike"
            )
    first, second = _answers(a), _answers(b)
    splits = [split for split in a.splits if split in b.splits]
    if not splits:
        raise SpurbenchError(f"{a!r} and {b!r} have no split in common")
    paired_alike = (a.controls and a.controls.fingerprint) == (
        b.controls and b.controls.fingerprint
    )
    contrasts: dict[Split, SplitContrast] = {}
    for split in splits:
        sources = [split, "control"] if split == "generated" and paired_alike else [split]
        own, other = (side[side["source"].isin(sources)] for side in (first, second))
        keys = ["source", "class_index", "image_sha256"]
        if not np.array_equal(own[keys].to_numpy(), other[keys].to_numpy()):
            raise SpurbenchError(
                f"{a.label} and {b.label} did not see the same {split} images; measure both on one "
                "dataset"
            )
        contrasts[split] = _split(own, other, a.settings)
    return Comparison(
        a=a.label,
        b=b.label,
        dataset=a.dataset,
        protocol=a.protocol,
        config=a.config,
        splits=contrasts,
        images=_most_different(
            first[first["source"].isin(splits)],
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
    """The answers to images that count and to their twins, in an order that any result shares."""
    answers = result.answers
    answers = answers[answers["counted"] & (answers["source"] != "positive")]
    order = ["source", "class_index", "image_sha256"]
    return answers.sort_values(order, kind="stable").reset_index(drop=True)


def _split(a: pd.DataFrame, b: pd.DataFrame, settings: Settings) -> SplitContrast:
    classes = list(zip(by_class(a), by_class(b), strict=True))
    raw = [_contrast([both], settings) for both in classes]
    adjusted = paired.holm([contrast["p_value"] for contrast in raw])
    return SplitContrast(
        **_contrast(classes, settings),
        classes=[
            ClassContrast(
                **contrast,
                index=own.index,
                name=own.name,
                spurious_feature=own.spurious_feature,
                adjusted_p_value=p,
            )
            for (own, _), contrast, p in zip(classes, raw, adjusted, strict=True)
        ],
    )


def _contrast(
    classes: list[tuple[ClassAnswers, ClassAnswers]], settings: Settings
) -> dict[str, Any]:
    """A contrast from the answers of A and of B to each class."""
    a, b = ([side.counted for side in sides] for sides in zip(*classes, strict=True))
    differences = [other.called - own.called for own, other in zip(a, b, strict=True)]
    low, high = _interval(differences, a, settings)
    fooled_a, fooled_b = (np.concatenate([own.rank == 1 for own in side]) for side in (a, b))
    return {
        "n": len(fooled_a),
        "a": metrics.macro_mean([own.called for own in a]),
        "b": metrics.macro_mean([own.called for own in b]),
        "difference": metrics.macro_mean(differences),
        "interval": SignedInterval(low=low, high=high),
        "only_a": int((fooled_a & ~fooled_b).sum()),
        "only_b": int((~fooled_a & fooled_b).sum()),
        "p_value": paired.mcnemar(fooled_a, fooled_b),
        "effect": _effect([both for both in classes if len(both[0].paired)], settings),
    }


def _effect(
    classes: list[tuple[ClassAnswers, ClassAnswers]], settings: Settings
) -> EffectContrast | None:
    if not classes:
        return None
    a, b = (
        [side.paired.called - side.twins.called for side in sides]
        for sides in zip(*classes, strict=True)
    )
    differences = [other - own for own, other in zip(a, b, strict=True)]
    low, high = _interval(differences, [own.paired for own, _ in classes], settings)
    together = np.concatenate(differences)
    return EffectContrast(
        pairs=len(together),
        a=metrics.macro_mean(a),
        b=metrics.macro_mean(b),
        difference=metrics.macro_mean(differences),
        interval=ChangeInterval(low=low, high=high),
        p_value=paired.sign_flip(together.astype(np.int64)),
    )


def _interval(
    differences: list[NDArray[np.float64]], images: list[Answers], settings: Settings
) -> tuple[float, float]:
    return bootstrap_interval(
        differences,
        [own.clusters for own in images],
        resamples=settings.bootstrap_resamples,
        seed=settings.bootstrap_seed,
    )


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

"""The rows of a dataset: their columns, and what follows from rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from spurbench.core.imagenet import imagenet_names
from spurbench.images.records import Split

if TYPE_CHECKING:
    import datasets

SPLITS: tuple[Split, ...] = ("real", "generated")

Row = Mapping[str, Any]

COLUMNS: Mapping[str, tuple[str, str]] = {
    "image": ("image", "The encoded image, as photographed, rendered or generated."),
    "label": (
        "class label",
        "The class the image is measured for, among the 1,000 names of ImageNet-1k. "
        "What the image shows is its spurious feature.",
    ),
    "class_index": ("int64", "The same class as an ImageNet-1k index."),
    "class_name": ("string", "The same class by its name in the recipe."),
    "wnid": ("string", "The same class as a WordNet id."),
    "spurious_feature": ("string", "What the image is meant to show instead of the class."),
    "component": ("int64", "The feature's number in Spurious ImageNet (neural PCA component)."),
    "source": ("string", "`real` or `generated`, as the split."),
    "prompt": ("string", "What the text-to-image model was asked for; null for real images."),
    "seed": ("int64", "Of the image's initial noise; null for real images."),
    "guidance_scale": ("float64", "Classifier-free guidance; null for real images."),
    "num_inference_steps": ("int64", "Sampling steps; null for real images."),
    "kappa": (
        "float64",
        "Weight of the spurious feature similarity loss in the class's fine-tuning; null for "
        "real images.",
    ),
    "base_model": ("string", "The text-to-image model that was fine-tuned; null for real images."),
    "is_reference": ("bool", "Whether the fine-tuning saw this image; false for generated ones."),
    "consistently_spurious": ("bool", "Whether every panel classifier calls it the class."),
    "object_absent": (
        "bool",
        "Whether object_score is below the recipe's threshold; null without a detector.",
    ),
    "object_score": ("float64", "The detector's score of the class object, in [0, 1]."),
    "feature_present": (
        "bool",
        "Whether feature_score reaches the recipe's threshold; null without a detector.",
    ),
    "feature_score": ("float64", "The detector's score of the spurious feature, in [0, 1]."),
    "panel": (
        "list of structs",
        "Each panel classifier's answer: its name, its prediction (an ImageNet-1k index, -1 "
        "outside it), its probability of the class in [0, 1] and the class's rank (1: it calls "
        "the image the class).",
    ),
    "file_name": ("string", "Class folder and name of the file that the image was."),
    "image_sha256": ("string", "Hex sha256 of the encoded image."),
}
"""The kind and the meaning of every column but the image quality metrics', in order."""


def describe_columns(quality: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Kind and meaning of every column, in order.

    Args:
        quality: image quality metrics, a float column each.
    """
    described = {}
    for name, column in COLUMNS.items():
        if name == "panel":
            for metric in quality:
                described[metric] = (
                    "float64",
                    f"Image quality by pyiqa's {metric}; null where its weights could not be had.",
                )
        described[name] = column
    return described


def features(quality: Sequence[str]) -> datasets.Features:
    """The columns as ``datasets`` types them.

    Args:
        quality: image quality metrics, a float column each.
    """
    import datasets

    def typed(kind: str) -> Any:
        if kind == "image":
            return datasets.Image()
        if kind == "class label":
            return datasets.ClassLabel(names=list(imagenet_names()))
        if kind == "list of structs":
            answer = {
                "classifier": "string",
                "prediction": "int64",
                "probability": "float64",
                "rank": "int64",
            }
            return datasets.List({key: datasets.Value(value) for key, value in answer.items()})
        return datasets.Value(kind)

    columns = describe_columns(quality)
    return datasets.Features({name: typed(kind) for name, (kind, _) in columns.items()})


def is_curated(row: Row) -> bool:
    """Whether a row belongs to the config ``curated``: fools the whole panel, shows no object."""
    return bool(row["consistently_spurious"]) and row["object_absent"] is True


def parts(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows by the part whose files hold them: SPLIT, and curated-SPLIT; empty ones left out."""
    every: dict[str, list[Row]] = {split: list(rows[split]) for split in SPLITS}
    every |= {f"curated-{split}": [r for r in rows[split] if is_curated(r)] for split in SPLITS}
    return {part: chosen for part, chosen in every.items() if chosen}


def place(part: str) -> tuple[str, str]:
    """The config and the split of a part, e.g. ("curated", "real") of ``curated-real``."""
    curated = part.startswith("curated-")
    return ("curated" if curated else "default"), part.removeprefix("curated-")


def class_indices(rows: Mapping[str, Sequence[Row]]) -> list[int]:
    """The classes that have images in any split, rising."""
    return sorted({row["class_index"] for split in SPLITS for row in rows[split]})


def panel_accuracy(rows: Iterable[Row]) -> float | None:
    """Share of (classifier, image) pairs in which the classifier calls the image its class."""
    return share(answer["rank"] == 1 for row in rows for answer in row["panel"])


def share(values: Iterable[bool | None]) -> float | None:
    """The fraction that is true of those known, in [0, 1]; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

"""The rows of a dataset: their columns, and what follows from rows alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from spurbench.core.imagenet import imagenet_names
from spurbench.images.records import SPLITS, Answer, Split

if TYPE_CHECKING:
    import datasets

Config = Literal["default", "curated", "positives", "controls", "controls-finetuned", "contexts"]

PartName = Literal[
    "real",
    "generated",
    "curated-real",
    "curated-generated",
    "positives-real",
    "positives-generated",
    "controls-generated",
    "controls-finetuned-generated",
    "contexts-generated",
]
"""What one run of parquet files holds: a split of a config."""

_PLACES: Mapping[PartName, tuple[Config, Split]] = {
    "real": ("default", "real"),
    "generated": ("default", "generated"),
    "curated-real": ("curated", "real"),
    "curated-generated": ("curated", "generated"),
    "positives-real": ("positives", "real"),
    "positives-generated": ("positives", "generated"),
    "controls-generated": ("controls", "generated"),
    "controls-finetuned-generated": ("controls-finetuned", "generated"),
    "contexts-generated": ("contexts", "generated"),
}

OWN_PARTS: tuple[PartName, ...] = tuple(
    p for p, (config, _) in _PLACES.items() if config != "curated"
)
"""The parts that a build fills; the others are chosen from among their rows."""

TWINS: tuple[PartName, ...] = ("controls-generated", "controls-finetuned-generated")
"""The parts of controls: in each, of every generated image its twin."""

REPLICATED: tuple[PartName, ...] = ("generated", *TWINS, "contexts-generated")
"""The parts that each of a class's generators has a share in."""

SEED_END = 2**53
"""Seeds are below it: a float64 holds each exactly, and so do pandas and JavaScript."""

KINDS = {str: "string", int: "int64", float: "float64", bool: "bool"}
"""What a column of a type is called."""


def _column(kind: str, meaning: str) -> dict[str, str]:
    return {"kind": kind, "meaning": meaning}


@dataclass(frozen=True)
class Row:
    """One image and all that is known of it: a column each, in this order.

    The image is not in memory. ``read`` returns the encoded bytes from where they lie; that their
    sha256 is ``image_sha256`` is for whoever reads them to check.
    """

    read: Callable[[], bytes] = field(repr=False, compare=False)
    label: int = field(
        metadata=_column(
            "class label",
            "The class the image is measured for, among the 1,000 names of ImageNet-1k. "
            "What the image shows is its spurious feature.",
        )
    )
    class_index: int = field(
        metadata=_column("int64", "The same class as an ImageNet-1k index."),
    )
    class_name: str = field(
        metadata=_column("string", "The same class by its name in the recipe."),
    )
    wnid: str = field(
        metadata=_column("string", "The same class as a WordNet id."),
    )
    spurious_feature: str = field(
        metadata=_column("string", "What the image is meant to show instead of the class."),
    )
    component: int = field(
        metadata=_column(
            "int64", "The feature's number in Spurious ImageNet (neural PCA component)."
        ),
    )
    source: Split = field(
        metadata=_column("string", "`real` or `generated`, as the split."),
    )
    prompt: str | None = field(
        metadata=_column(
            "string",
            "What the text-to-image model was asked for, of a control the generic prompt; null for "
            "real images.",
        ),
    )
    seed: int | None = field(
        metadata=_column(
            "int64",
            "Of the image's initial noise, below 2^53; null for real images. A control has its "
            "image's.",
        ),
    )
    guidance_scale: float | None = field(
        metadata=_column("float64", "Classifier-free guidance; null for real images."),
    )
    num_inference_steps: int | None = field(
        metadata=_column("int64", "Sampling steps; null for real images."),
    )
    kappa: float | None = field(
        metadata=_column(
            "float64",
            "Weight of the spurious feature similarity loss in the class's fine-tuning; null where "
            "there was none: for real images, positives and controls.",
        ),
    )
    base_model: str | None = field(
        metadata=_column(
            "string",
            "The text-to-image model that was fine-tuned, or as it is made the image (positives "
            "and controls); null for real images.",
        ),
    )
    is_reference: bool = field(
        metadata=_column(
            "bool", "Whether the fine-tuning saw this image; false for generated ones."
        ),
    )
    replicate: int = field(
        metadata=_column(
            "int64",
            "Which of the class's independently fine-tuned generators made it, from 0 on, or made "
            "the image whose control it is; 0 for real images and positives.",
        ),
    )
    consistently_spurious: bool = field(
        metadata=_column("bool", "Whether every panel classifier calls it the class."),
    )
    object_absent: bool | None = field(
        metadata=_column(
            "bool",
            "Whether object_score is below the recipe's threshold; null without a detector.",
        ),
    )
    object_score: float | None = field(
        metadata=_column("float64", "The detector's score of the class object, in [0, 1]."),
    )
    feature_present: bool | None = field(
        metadata=_column(
            "bool",
            "Whether feature_score reaches the recipe's threshold; null without a detector.",
        ),
    )
    feature_score: float | None = field(
        metadata=_column("float64", "The detector's score of the spurious feature, in [0, 1]."),
    )
    panel: tuple[Answer, ...] = field(
        metadata=_column(
            "list of structs",
            "Each panel classifier's answer: its name, its prediction (an ImageNet-1k index, -1 "
            "outside it), its probability of the class in [0, 1] and the class's rank (1: it calls "
            "the image the class).",
        ),
    )
    file_name: str = field(
        metadata=_column("string", "Class folder and name of the file that the image was."),
    )
    image_sha256: str = field(
        metadata=_column("string", "Hex sha256 of the encoded image."),
    )
    twin_of: str | None = field(
        metadata=_column(
            "string",
            "Of a control: image_sha256 of the generated image that the same noise became; null "
            "otherwise.",
        ),
    )
    quality: Mapping[str, float | None]
    """Image quality metrics, a column each before ``panel``."""

    def columns(self) -> dict[str, Any]:
        """All columns but ``image``, in order, as JSON values."""
        values = {**vars(self), **self.quality}
        values["panel"] = [asdict(answer) for answer in self.panel]
        return {name: values[name] for name in describe_columns([*self.quality]) if name != "image"}

    @classmethod
    def of(cls, columns: Mapping[str, Any], read: Callable[[], bytes]) -> Row:
        """The row of :meth:`columns`; those of no other name are image quality metrics.

        Args:
            columns: all but ``image``.
            read: returns the encoded image.

        Raises:
            ValueError: if a column is missing or of another type, null where it must not be, or
                no finite number; the message is one line.
        """
        known = {k: v for k, v in columns.items() if k in COLUMNS}
        if not isinstance(known.get("panel"), list):
            raise ValueError("panel is no list of answers")
        known["panel"] = tuple(Answer(**_checked(Answer, a, "panel")) for a in known["panel"])
        quality = {k: v for k, v in columns.items() if k not in COLUMNS}
        for name, value in quality.items():
            _check(name, value, (float, type(None)))
        return cls(**_checked(cls, known, "row"), quality=quality, read=read)


def _checked(kind: type, values: Any, what: str) -> dict[str, Any]:
    """``values`` if they are those of the dataclass ``kind``, of the types that it says."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} is {values!r:.60}, no {kind.__name__}")
    expected = _types(kind)
    for name in {**expected, **values}:
        if name not in expected:
            raise ValueError(f"{what} has an unknown key {name}")
        if name not in values:
            raise ValueError(f"column {name} is missing")
        _check(name, values[name], expected[name])
    return dict(values)


def _check(name: str, value: Any, types: tuple[type, ...]) -> None:
    # type() and not isinstance(): true is no number.
    if types and type(value) not in types:
        wanted = " or ".join(KINDS.get(kind, "null") for kind in types)
        raise ValueError(f"{name} is {value!r:.60}, not {wanted}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, no finite number")


@cache
def _types(kind: type) -> Mapping[str, tuple[type, ...]]:
    """The types that each field may have; none for those that are no plain values."""
    hints = get_type_hints(kind) | {"source": str}
    return {
        name: tuple(t for t in get_args(hint) or (hint,) if t in KINDS or t is type(None))
        for name, hint in ((f.name, hints[f.name]) for f in fields(kind))
        if name not in ("read", "quality")
    }


Rows = Mapping[PartName, Sequence[Row]]
"""A dataset's rows by own part; a part without any may be left out."""

COLUMNS: Mapping[str, tuple[str, str]] = {
    "image": ("image", "The encoded image, as photographed, rendered or generated."),
    **{
        column.name: (column.metadata["kind"], column.metadata["meaning"])
        for column in fields(Row)
        if column.metadata
    },
}
"""The kind and the meaning of every column but the image quality metrics', in order."""

ANSWER: Mapping[str, str] = {name: KINDS[hint] for name, hint in get_type_hints(Answer).items()}
"""The kinds of what the column ``panel`` holds of each answer."""


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
                    f"Image quality by pyiqa's {metric}; null for lack of its weights, and for "
                    "positives and controls.",
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
            return datasets.List({key: datasets.Value(value) for key, value in ANSWER.items()})
        return datasets.Value(kind)

    columns = describe_columns(quality)
    return datasets.Features({name: typed(kind) for name, (kind, _) in columns.items()})


def is_curated(row: Row) -> bool:
    """Whether a row belongs to the config ``curated``: fools the whole panel, shows no object."""
    return row.consistently_spurious and row.object_absent is True


def parts(rows: Rows) -> dict[PartName, list[Row]]:
    """The rows by the part whose files hold them, the curated ones twice; empty parts left out."""
    every: dict[PartName, list[Row]] = {}
    for part, (config, split) in _PLACES.items():
        if config == "curated":
            every[part] = [row for row in rows.get(split, ()) if is_curated(row)]
        else:
            every[part] = list(rows.get(part, ()))
    return {part: chosen for part, chosen in every.items() if chosen}


def place(part: PartName) -> tuple[Config, Split]:
    """The config and the split of a part, e.g. ("curated", "real") of ``curated-real``."""
    return _PLACES[part]


def context_of(row: Row, phrases: Sequence[str]) -> str | None:
    """Which of a recipe's contexts a row's prompt names, the longest if several; None: none."""
    named = [phrase for phrase in phrases if row.prompt and phrase in row.prompt]
    return max(named, key=len, default=None)


def class_indices(rows: Rows) -> list[int]:
    """The classes that have images in any split, rising."""
    return sorted({row.class_index for split in SPLITS for row in rows[split]})


def panel_accuracy(rows: Iterable[Row]) -> float | None:
    """Share of (classifier, image) pairs in which the classifier calls the image its class."""
    return share(answer.rank == 1 for row in rows for answer in row.panel)


def share(values: Iterable[bool | None]) -> float | None:
    """The fraction that is true of those known, in [0, 1]; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

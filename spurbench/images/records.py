"""What is known of images: the records that everything which looks at images takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from spurbench.core.documents import Document, read_bytes
from spurbench.core.errors import SpurbenchError
from spurbench.core.text import label

Split = Literal["real", "generated"]

SPLITS: tuple[Split, ...] = ("real", "generated")

Source = Literal["real", "generated", "positive", "control", "negative"]
"""What an image is measured as: of a split; showing its class; a twin without the feature; or
showing another class than it is measured for."""

Config = Literal["default", "curated"]

Role = Literal["phi", "panel"]
"""What part a classifier had in making a dataset: its features were optimised, or it chose."""


class DatasetInfo(Document):
    """Which images were measured."""

    name: str
    version: str | None = Field(default=None, description="of a dataset that `build` made")
    kind: Literal["folder", "dataset", "hub"]
    fingerprint: str = Field(description="sha256 over the images' hashes, classes and sources")


class Damaged(Document):
    """An image that could not be read: left out of every number, and named."""

    path: str
    reason: str


@dataclass(frozen=True)
class Answer:
    """What one classifier says of one image.

    Attributes:
        classifier: its name.
        prediction: ImageNet-1k class index; -1 outside it.
        probability: softmax probability of the image's class, in [0, 1].
        rank: of the image's class, 1 is the prediction.
    """

    classifier: str
    prediction: int
    probability: float
    rank: int


@dataclass(frozen=True)
class ImageRecord:
    """One image: what is known of it, and how to get its bytes.

    Attributes:
        path: relative path or row, to name it in messages and tables.
        class_index: ImageNet-1k index of the class it is measured for.
        source: real or generated; positive, if it shows the class; control, if it is a twin.
        sha256: of the encoded bytes.
        read: returns the encoded bytes.
        class_name: what the dataset calls the class.
        spurious_feature: what the image is meant to show instead, where the dataset says it.
        object_absent: whether a detector sees no object of the class; None without a detector.
        feature_present: whether a detector sees the feature; None without a detector.
        is_reference: whether the fine-tuning of a generator saw it.
        replicate: which of several independent generators made it, from 0.
        twin_of: of a control, the sha256 of the generated image that it is without the feature.
    """

    path: str
    class_index: int
    source: Source
    sha256: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    class_name: str
    spurious_feature: str | None = None
    object_absent: bool | None = None
    feature_present: bool | None = None
    is_reference: bool = False
    replicate: int = 0
    twin_of: str | None = None

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        class_index: int,
        source: Source,
        class_name: str,
        spurious_feature: str | None = None,
        name: str | None = None,
    ) -> ImageRecord:
        """A record of a regular file, called ``name`` in messages.

        Raises:
            FileNotFoundError: if there is none.
            SpurbenchError: if it is something else, or can't be read.
        """
        digest = hashlib.sha256(read_bytes(path)).hexdigest()
        return cls(
            path=name or label(path.name),
            class_index=class_index,
            source=source,
            sha256=digest,
            read=partial(read_bytes, path),
            class_name=class_name,
            spurious_feature=spurious_feature,
        )


@dataclass(frozen=True)
class ImageSet:
    """Images, the damaged ones that were found and left out, and the identity of it all.

    Attributes:
        config: of a built dataset, which its records are of.
        positives: images that show the classes, where the dataset holds some.
        controls: twins of generated images without the feature, where the dataset holds some.
        roles: by weights_sha256, the classifiers that had a part in making the dataset.
    """

    records: tuple[ImageRecord, ...]
    damaged: tuple[Damaged, ...]
    info: DatasetInfo
    config: Config = "default"
    positives: ImageSet | None = None
    controls: ImageSet | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Sequence[ImageRecord],
        damaged: Sequence[Damaged],
        *,
        name: str,
        kind: Literal["folder", "dataset", "hub"],
        where: str,
        version: str | None = None,
    ) -> ImageSet:
        """Images, and what they are called.

        Args:
            records: those that can be read, as far as is known.
            damaged: those that can't.
            name: of the data.
            kind: of the data.
            where: they are, for the message.
            version: of the data.

        Raises:
            SpurbenchError: if every image is damaged.
        """
        if not records:
            raise SpurbenchError(
                f"all {len(damaged)} images in {where} are damaged; the first: "
                f"{damaged[0].path} ({damaged[0].reason})"
            )
        info = DatasetInfo(
            name=label(name), version=version, kind=kind, fingerprint=images_fingerprint(records)
        )
        return cls(tuple(records), tuple(damaged), info)

    def first(self, count: int) -> ImageSet:
        """The first images of each class and source, in the order of their sha256.

        Twins go with their images. What is left has a name and a fingerprint of its own: it is
        never taken for the whole.

        Args:
            count: of each.
        """
        kept: dict[tuple[str, int], list[ImageRecord]] = {}
        for record in sorted(self.records, key=lambda record: record.sha256):
            group = kept.setdefault((record.source, record.class_index), [])
            if len(group) < count:
                group.append(record)
        chosen = {id(record) for group in kept.values() for record in group}
        records = [record for record in self.records if id(record) in chosen]
        hashes = {record.sha256 for record in records}
        twins = [t for t in self.controls.records if t.twin_of in hashes] if self.controls else []
        name = f"{self.info.name} (first {count} of each class)"
        return replace(
            self._only(records, name),
            positives=self.positives.first(count) if self.positives else None,
            controls=self.controls._only(twins, name) if self.controls and twins else None,
        )

    def _only(self, records: Sequence[ImageRecord], name: str) -> ImageSet:
        update = {"name": name, "fingerprint": images_fingerprint(records)}
        return replace(self, records=tuple(records), info=self.info.model_copy(update=update))


def images_fingerprint(images: Iterable[ImageRecord]) -> str:
    """Identity of a set of images: hex sha256 over their hashes, classes and sources, sorted."""
    lines = sorted(f"{image.sha256} {image.class_index} {image.source}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

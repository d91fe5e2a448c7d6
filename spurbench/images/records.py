"""What is known of images: the records that everything which looks at images takes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from spurbench.core.documents import Document, read_bytes
from spurbench.core.text import label

Split = Literal["real", "generated"]

SPLITS: tuple[Split, ...] = ("real", "generated")


class DatasetInfo(Document):
    """Which images were measured."""

    name: str
    version: str | None = Field(default=None, description="of a dataset that `build` made")
    kind: Literal["folder", "dataset", "hub"]
    fingerprint: str = Field(description="sha256 over the images' hashes, classes and splits")


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
        source: real or generated.
        sha256: of the encoded bytes.
        read: returns the encoded bytes.
        class_name: what the dataset calls the class.
        spurious_feature: what the image is meant to show instead, where the dataset says it.
    """

    path: str
    class_index: int
    source: Split
    sha256: str
    read: Callable[[], bytes] = field(repr=False, compare=False)
    class_name: str
    spurious_feature: str | None = None

    @classmethod
    def from_file(
        cls,
        path: Path,
        *,
        class_index: int,
        source: Split,
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
    """Images, the damaged ones that were found and left out, and the identity of it all."""

    records: tuple[ImageRecord, ...]
    damaged: tuple[Damaged, ...]
    info: DatasetInfo

    def first(self, count: int) -> ImageSet:
        """The first images of each class and source, in the order of their sha256.

        What is left has a name and a fingerprint of its own: it is never taken for the whole.

        Args:
            count: of each.
        """
        kept: dict[tuple[str, int], list[ImageRecord]] = {}
        for record in sorted(self.records, key=lambda record: record.sha256):
            group = kept.setdefault((record.source, record.class_index), [])
            if len(group) < count:
                group.append(record)
        chosen = {id(record) for group in kept.values() for record in group}
        records = tuple(record for record in self.records if id(record) in chosen)
        info = self.info.model_copy(
            update={
                "name": f"{self.info.name} (first {count} of each class)",
                "fingerprint": images_fingerprint(records),
            }
        )
        return replace(self, records=records, info=info)


def images_fingerprint(images: Iterable[ImageRecord]) -> str:
    """Identity of a set of images: hex sha256 over their hashes, classes and splits, sorted."""
    lines = sorted(f"{image.sha256} {image.class_index} {image.source}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

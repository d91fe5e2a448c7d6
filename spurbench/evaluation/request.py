"""What classifiers are asked: images, and how they are looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from spurbench.classifiers.info import Mode
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.evaluation.known import Identity
from spurbench.evaluation.results import BOOTSTRAP, Protocol
from spurbench.images.records import SPLITS, Config, ImageRecord, ImageSet


@dataclass(frozen=True)
class EvaluationRequest:
    """What classifiers are asked.

    Attributes:
        images: spurious images; a dataset's may bring positives and controls of its own.
        positives: images that show the classes, instead of the dataset's own.
        preprocess: see :meth:`Classifier.preprocessing`.
        protocol: ``neuhaus``: as the authors of Spurious ImageNet measure. Every spurious image
            counts, and positives are resized to 256/224 of the input before they are cropped.
        batch_size: see :func:`spurbench.evaluation.predict.predict`.
        decoders: see :func:`spurbench.evaluation.predict.predict`.

    Raises:
        SpurbenchError: if an image is of no split or class, a class goes by two names, given
            positives lack one, or the protocol can't be followed.
    """

    images: ImageSet
    positives: ImageSet | None = None
    preprocess: Mode = "whole"
    protocol: Protocol = "spurbench"
    batch_size: int | None = None
    decoders: int | None = None

    def __post_init__(self) -> None:
        count = len(imagenet_wnids())
        for record in self.images.records:
            if record.source not in SPLITS:
                raise SpurbenchError(
                    f"{record.path} is of split {record.source!r}; it must be one of "
                    f"{', '.join(SPLITS)}"
                )
            if not 0 <= record.class_index < count:
                raise SpurbenchError(
                    f"{record.path} is of class {record.class_index}; ImageNet-1k's are 0 to "
                    f"{count - 1}"
                )
            mine = record.class_name, record.spurious_feature
            if self.classes[record.class_index] != mine:
                raise SpurbenchError(
                    f"class {record.class_index} goes by two names, "
                    f"{self.classes[record.class_index]} and {mine} ({record.path}); mend the data"
                )
        if self.positives is not None:
            self.require_positives(image.class_index for image in self.positives.records)
        if self.protocol == "neuhaus":
            if self.preprocess != "whole":
                raise SpurbenchError(
                    "protocol neuhaus says how images are resized; leave out --preprocess"
                )
            if self.shown is None:
                raise SpurbenchError(
                    f"protocol neuhaus needs images that show the classes, and "
                    f"{self.images.info.name} has none; give --positives"
                )

    @property
    def shown(self) -> ImageSet | None:
        """Images that show the classes: those given, or else the dataset's own."""
        return self.positives or self.images.positives

    @property
    def controls(self) -> ImageSet | None:
        """Twins of the generated images, which the authors' protocol knows nothing of."""
        return self.images.controls if self.protocol == "spurbench" else None

    @cached_property
    def classes(self) -> dict[int, tuple[str, str | None]]:
        """What the data calls each class and its spurious feature, by class index."""
        return {
            record.class_index: (record.class_name, record.spurious_feature)
            for record in reversed(self.images.records)
        }

    def require_positives(self, present: Iterable[int]) -> None:
        """Refuse given positives that lack a class; a dataset's own may.

        Raises:
            SpurbenchError: if one is not among those ``present``.
        """
        lacking = sorted(set(self.classes) - set(present))
        if lacking and self.positives is not None:
            names = ", ".join(imagenet_names()[i] for i in lacking[:5])
            raise SpurbenchError(
                f"--positives has no readable images of {len(lacking)} classes: {names}"
            )

    def counts(self, image: ImageRecord) -> bool:
        """Whether a spurious image counts: no object that a detector sees, and not trained on."""
        if self.protocol == "neuhaus":
            return True
        return image.object_absent is not False and not image.is_reference

    def file_stem(self, identity: Identity) -> str:
        """A file name that says what is measured, ending in a key of all it depends on."""
        info = self.images.info
        key = self._key | {
            "classifier": identity.info.name,
            "weights": identity.info.weights_sha256,
            "head": identity.info.head,
            "role": self.images.roles.get(identity.info.weights_sha256),
            "preprocessing": identity.preprocessing[self.preprocess].model_dump(mode="json"),
        }
        version = f"-{info.version}" if info.version else ""
        label = f"{info.name}{version}_{identity.info.source}-{identity.info.name}"
        return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', label)}_{fingerprint(key)[:12]}"

    @property
    def size(self) -> int:
        """How many images a classifier is asked about, once each."""
        return sum(
            image.class_index in self.classes
            for images in (self.images, self.shown, self.controls)
            if images
            for image in images.records
        )

    @property
    def fingerprint(self) -> str:
        """Identity of all that is asked, whichever classifier."""
        return fingerprint(self._key | {"preprocess": self.preprocess})

    @property
    def _key(self) -> dict[str, Any]:
        """What a result depends on beside the classifier."""
        return {
            "images": self.images.info.fingerprint,
            "classes": [[index, *names] for index, names in sorted(self.classes.items())],
            "positives": self.shown.info.fingerprint if self.shown else None,
            "controls": self.controls.info.fingerprint if self.controls else None,
            "known": fingerprint([_known(image) for image in self._every]),
            "config": self.images.config,
            "protocol": self.protocol,
            "settings": BOOTSTRAP.model_dump(mode="json"),
        }

    @property
    def _every(self) -> list[ImageRecord]:
        sets = (self.images, self.controls)
        return [image for images in sets if images for image in images.records]


@dataclass(frozen=True)
class RequestSource:
    """A request by where its images lie, so that any process can open it.

    Attributes:
        data: see :func:`spurbench.images.sources.open_images`, as are ``split`` and ``config``.
        positives: folder, see :func:`spurbench.images.sources.open_positives`.
        limit: only the first images of each class, see :meth:`ImageSet.first`.
        preprocess: see :class:`EvaluationRequest`, as are those that follow.
    """

    data: str
    split: Literal["real", "generated", "all"] = "all"
    config: Config = "default"
    positives: Path | None = None
    limit: int | None = None
    preprocess: Mode = "whole"
    protocol: Protocol = "spurbench"
    batch_size: int | None = None
    decoders: int | None = None

    def open(self) -> EvaluationRequest:
        """Open its images.

        Raises:
            SpurbenchError: see :func:`spurbench.images.sources.open_images` and
                :class:`EvaluationRequest`.
        """
        from spurbench.images.sources import open_images, open_positives

        shown = open_positives(self.positives, decode=False) if self.positives else None
        images = open_images(self.data, self.split, config=self.config, decode=False)
        return EvaluationRequest(
            images=images if self.limit is None else images.first(self.limit),
            positives=shown if shown is None or self.limit is None else shown.first(self.limit),
            preprocess=self.preprocess,
            protocol=self.protocol,
            batch_size=self.batch_size,
            decoders=self.decoders,
        )


def _known(image: ImageRecord) -> list[str | int | bool | None]:
    """What is known of an image that its place in the numbers depends on."""
    return [
        image.sha256,
        image.object_absent,
        image.feature_present,
        image.is_reference,
        image.replicate,
        image.twin_of,
    ]

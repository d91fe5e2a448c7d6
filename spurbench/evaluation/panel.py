"""The panel: the classifiers that must all be fooled, and what they say of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spurbench.classifiers.classifier import Classifier
from spurbench.core.errors import SpurbenchError
from spurbench.core.scratch import scratch
from spurbench.evaluation.members import Member
from spurbench.evaluation.predict import predict
from spurbench.images.pixels import PixelStore
from spurbench.images.records import Answer, ImageRecord


def load_member(asked: str, *, relative_to: Path, device: torch.device) -> Classifier:
    """Load ``SPEC`` or ``SPEC=CHECKPOINT``; see :meth:`Member.parse`."""
    return Member.parse(asked, relative_to=relative_to).load(device)


def load_panel(
    specs: Sequence[str], *, relative_to: Path, device: torch.device
) -> tuple[Classifier, ...]:
    """Load every member; two that resolve to the same classifier are refused.

    Raises:
        SpurbenchError: if one can't be loaded, or is there twice.
    """
    panel = tuple(load_member(spec, relative_to=relative_to, device=device) for spec in specs)
    seen: dict[str, str] = {}
    for spec, classifier in zip(specs, panel, strict=True):
        digest = classifier.info.weights_sha256
        if digest in seen:
            raise SpurbenchError(
                f"panel holds the same weights twice: {seen[digest]!r} and {spec!r}"
            )
        seen[digest] = spec
    return panel


def fingerprint(panel: Sequence[Classifier]) -> list[dict[str, Any]]:
    """What the answers of a panel depend on, as JSON values."""
    return [
        {
            "name": classifier.info.name,
            "weights_sha256": classifier.info.weights_sha256,
            "preprocessing": classifier.preprocessing("whole").model_dump(mode="json"),
        }
        for classifier in panel
    ]


def ask(panel: Sequence[Classifier], images: Sequence[ImageRecord]) -> list[list[Answer]]:
    """Each image's answers, in the order of the images and, for each, of the panel."""
    columns = []
    with scratch() as folder:
        store = PixelStore(folder)
        for classifier in panel:
            predictions = predict(classifier, images, store=store)
            columns.append(
                [
                    Answer(classifier.info.name, int(prediction), float(probability), int(rank))
                    for prediction, probability, rank in zip(
                        predictions.prediction,
                        predictions.probability,
                        predictions.rank,
                        strict=True,
                    )
                ]
            )
    # Beside the images, so that a panel of none answers nothing of each of them.
    return [list(answers) for _, *answers in zip(images, *columns, strict=True)]


def consistently_spurious(answers: Sequence[Answer]) -> bool:
    """Whether every classifier of the panel calls an object-free image its class."""
    return all(answer.rank == 1 for answer in answers)


def agreement(answers: Sequence[Answer]) -> float:
    """The panel's lowest probability of the class: how sure its least convinced member is."""
    return min(answer.probability for answer in answers)


@dataclass(frozen=True)
class Choice:
    """An image that the whole panel calls its class."""

    path: str
    class_index: int
    image_sha256: str
    answers: tuple[Answer, ...]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def select(panel: Sequence[Classifier], images: Sequence[ImageRecord]) -> list[Choice]:
    """The consistently spurious images, by class and within it by falling :func:`agreement`."""
    choices = [
        Choice(image.path, image.class_index, image.sha256, tuple(answers))
        for image, answers in zip(images, ask(panel, images), strict=True)
        if consistently_spurious(answers)
    ]
    return sorted(choices, key=lambda choice: (choice.class_index, -agreement(choice.answers)))

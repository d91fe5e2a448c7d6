"""Classifiers as they are asked for: by SPEC or SPEC=CHECKPOINT, one by one or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from spurbench.classifiers.labels import read_labels
from spurbench.classifiers.load import Checkpoint, check_spec, load_classifier, read_member
from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError

if TYPE_CHECKING:
    import torch

    from spurbench.classifiers.classifier import Classifier


@dataclass(frozen=True)
class Member:
    """A classifier as it is asked for.

    Attributes:
        asked: the words it was asked for in.
        spec: see :func:`spurbench.classifiers.load.load_classifier`.
        checkpoint: weights for the architecture that ``spec`` names.
        labels: of its outputs, in place of its own.
    """

    asked: str
    spec: str
    checkpoint: Checkpoint | None = None
    labels: tuple[str | int, ...] | None = None

    @classmethod
    def parse(cls, asked: str, *, relative_to: Path = Path()) -> Member:
        """Read ``SPEC`` or ``SPEC=CHECKPOINT``; a relative file starts from ``relative_to``.

        Raises:
            SpurbenchError: see :func:`spurbench.classifiers.load.check_spec`.
        """
        return cls(asked, *read_member(asked, relative_to))

    def load(self, device: str | torch.device) -> Classifier:
        """Load it; see :func:`spurbench.classifiers.load.load_classifier`."""
        return load_classifier(
            self.spec, checkpoint=self.checkpoint, labels=self.labels, device=device
        )


class _File(Document):
    classifiers: tuple[str, ...] = Field(min_length=1, description="SPEC or SPEC=CHECKPOINT")


def members(
    specs: Sequence[str],
    file: Path | None,
    checkpoint: Path | None,
    labels: Path | None = None,
) -> list[Member]:
    """The classifiers that are asked for.

    Args:
        specs: ``SPEC`` or ``SPEC=CHECKPOINT``; relative checkpoints start from the current folder.
        file: a TOML file with a list ``classifiers`` of more of them; its relative checkpoints
            start from its folder.
        checkpoint: of the only classifier.
        labels: of the only classifier's outputs; see
            :func:`spurbench.classifiers.labels.read_labels`.

    Raises:
        SpurbenchError: if none is asked for or one twice, the file is wrong, a checkpoint is
            missing, or one, or a file of labels, is to serve several classifiers.
    """
    asked = [(spec, Path()) for spec in specs]
    if file is not None:
        asked += [(spec, file.parent) for spec in _read(file).classifiers]
    if not asked:
        raise SpurbenchError("no classifier to measure; give --model SPEC or --panel FILE")
    named = [spec for spec, _ in asked]
    twice = {spec for spec in named if named.count(spec) > 1}
    if twice:
        raise SpurbenchError(f"classifier {min(twice)} is asked for twice")
    if checkpoint is not None:
        if len(asked) > 1:
            raise SpurbenchError("--checkpoint goes with one --model; say --model SPEC=CHECKPOINT")
        check_spec(named[0], checkpoint)
        found = [Member(named[0], named[0], checkpoint)]
    else:
        found = [Member.parse(spec, relative_to=folder) for spec, folder in asked]
    if labels is None:
        return found
    if len(found) > 1:
        raise SpurbenchError("--labels goes with one --model; measure the others apart")
    return [replace(found[0], labels=read_labels(labels))]


def _read(path: Path) -> _File:
    try:
        return validated(_File, read_toml(path), f"panel {path}", _File.model_fields)
    except FileNotFoundError:
        raise SpurbenchError(f"panel {path} can't be read: no such file") from None

"""Which classifier a SPEC of local files loads as, remembered beside the results.

Finding a stored result takes the classifier's name, the hash of its weights and its preprocessing.
Loading it to learn them takes longer than all else, so they are kept under a hash of everything
they follow from: the SPEC, every byte of the files it is read from, the versions of the packages
that read them, and our own code that does. What changes any of these loads the classifier again.
What is fetched by name is not remembered, for what a name stands for can change elsewhere.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from spurbench.classifiers.info import ClassifierInfo, Mode, Preprocessing
from spurbench.classifiers.load import find_source
from spurbench.core import atomic
from spurbench.core.documents import Document, read_bytes
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.core.hub import HubFile
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.evaluation.members import Member

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Classifier

log = logging.getLogger(__name__)

FOLDER = ".classifiers"
"""In the folder of results."""


class Identity(Document):
    """What of a classifier its results depend on."""

    info: ClassifierInfo
    preprocessing: dict[Mode, Preprocessing]

    @classmethod
    def of(cls, classifier: Classifier) -> Identity:
        """That of a loaded classifier."""
        modes: tuple[Mode, ...] = ("whole", "model")
        return cls(
            info=classifier.info,
            preprocessing={mode: classifier.preprocessing(mode) for mode in modes},
        )


def key(member: Member) -> str | None:
    """A hash of what the member's identity follows from; None if it is not read from here."""
    files = _files(member)
    if files is None:
        return None
    code = sorted((Path(__file__).parents[1] / "classifiers").glob("*.py"))
    return fingerprint(
        {
            "spec": member.spec,
            "files": [[file.name, file_sha256(file)] for file in files],
            "checkpoint": member.checkpoint is not None,
            "labels": member.labels,
            "packages": package_versions(),
            "code": [file_sha256(file) for file in code],
        }
    )


def recall(key: str, results: Path) -> Identity | None:
    """The identity remembered under a key, if it is there and whole."""
    try:
        return Identity.model_validate_json(read_bytes(_path(key, results)))
    except (OSError, SpurbenchError, ValidationError):
        return None


def remember(key: str, identity: Identity, results: Path) -> None:
    """Keep an identity for the next time; where that can't be written, it is only slower."""
    try:
        atomic.write_json(_path(key, results), identity.model_dump(mode="json"))
    except OSError as error:
        log.debug("%s is not remembered: %s", identity.info.name, error)


def _path(key: str, results: Path) -> Path:
    return results / FOLDER / f"{key[:32]}.json"


def _files(member: Member) -> list[Path] | None:
    """The local files that a member is read from; None if it is fetched, or not of files."""
    if isinstance(member.checkpoint, HubFile):
        return None
    if member.checkpoint is not None:
        return [member.checkpoint]
    source, name = find_source(member.spec)
    files = source.files(name)
    return [*files] if files and all(file.is_file() for file in files) else None

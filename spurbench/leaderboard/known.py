"""The datasets whose entries are taken: ``datasets.toml`` beside them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError
from spurbench.images.records import Role
from spurbench.leaderboard.entries import Entry

FILE = "datasets.toml"
"""Looked for in the leaderboard's folder."""


class KnownDataset(Document):
    """A dataset that classifiers may be entered on."""

    name: str
    version: str | None = None
    fingerprints: tuple[str, ...] = Field(
        default=(), description="of its images, where it has no version of its own"
    )
    phi: str | None = Field(
        default=None, description="weights_sha256 of the classifier that made and chose its images"
    )
    panel: tuple[str, ...] = Field(default=(), description="of those that chose them")
    data: str | None = Field(
        default=None, description="where anyone can have it, as `eval --data` takes it"
    )

    def role_of(self, weights_sha256: str) -> Role | None:
        """The part that a classifier had in making the dataset."""
        if weights_sha256 == self.phi:
            return "phi"
        return "panel" if weights_sha256 in self.panel else None


class _File(Document):
    datasets: tuple[KnownDataset, ...]


def require(entry: Entry, folder: Path) -> KnownDataset:
    """The dataset of an entry, as a leaderboard's folder knows it.

    Raises:
        SpurbenchError: if it does not, the file is missing or wrong, or the entry says of another
            part in making the dataset than its classifier had.
    """
    path = folder / FILE
    try:
        datasets = validated(_File, read_toml(path), str(path)).datasets
    except FileNotFoundError:
        raise SpurbenchError(f"no {FILE} in {folder}, which says whose entries it takes") from None
    info = entry.dataset
    for dataset in datasets:
        if (dataset.name, dataset.version) == (info.name, info.version) and (
            not dataset.fingerprints or info.fingerprint in dataset.fingerprints
        ):
            role = dataset.role_of(entry.classifier.weights_sha256)
            if entry.role != role:
                raise SpurbenchError(
                    f"{entry.classifier.name}: its part in making {info.name} is {entry.role} in "
                    f"the entry and {role} in {path}"
                )
            return dataset
    raise SpurbenchError(
        f"{path} does not list {info.name} {info.version or info.fingerprint[:12]}; a dataset is "
        "taken in before its entries"
    )

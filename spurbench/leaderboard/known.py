"""The datasets whose entries are taken: ``datasets.toml`` beside them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError
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
    data: str | None = Field(
        default=None, description="where anyone can have it, as `eval --data` takes it"
    )


class _File(Document):
    datasets: tuple[KnownDataset, ...]


def require(entry: Entry, folder: Path) -> KnownDataset:
    """The dataset of an entry, as a leaderboard's folder knows it.

    Raises:
        SpurbenchError: if it does not, or the file is missing or wrong.
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
            return dataset
    raise SpurbenchError(
        f"{path} does not list {info.name} {info.version or info.fingerprint[:12]}; a dataset is "
        "taken in before its entries"
    )

"""A finished dataset as it lies on disk: its manifest, its rows, and what a comparison needs."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field

from spurbench.core import atomic
from spurbench.core.documents import VERSION, Document, Version, read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import canonical_json, fingerprint
from spurbench.dataset.rows import OWN_PARTS, PartName, Row, Rows
from spurbench.images.parquet import ParquetImages

MANIFEST = "spurbench.json"

SCHEMA: Final = "spurbench.dataset/2"

OLDER = ("spurbench.dataset/1",)

DEPTH = 64
"""How deep a manifest may be nested."""

BATCH = 256
"""Rows that are read at once, without their images."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Whole = Annotated[int, Field(strict=True)]


class _Open(Document):
    """What other versions of the program may say more of."""

    model_config = ConfigDict(extra="allow")


class Weights(_Open):
    """A classifier."""

    name: str
    weights_sha256: str


class Source(_Open):
    """A base model, or a set of images."""

    name: str
    fingerprint: str


class LeftOut(_Open):
    """An image that could not be read."""

    path: str
    reason: str


class Licences(_Open):
    """In the words of their owners."""

    images: str
    weights: str


class PositiveCounts(_Open):
    """How many of a class's positives there are, of how many were asked for."""

    asked: Whole
    kept: Whole


class Provenance(_Open):
    """How a dataset was made.

    Attributes:
        recipe: every number, as :class:`spurbench.recipe.schema.Recipe` writes them.
        seed: global.
        device: where the models ran: the GPU's model, or ``cpu``.
        threads: of each process on a processor, on which the last bits of sums depend; None on
            GPUs, and in datasets of early versions.
        base_model: that was fine-tuned.
        panel: who had to be fooled.
        phi: whose features the similarity loss took.
        object_detector: that looked for objects and features; None: nothing did.
        real_images: that the build started from.
        positive_images: that were given to it as positives; None: the base model made them.
        positives: of each class by name: asked for of the base model, or given; and kept, in which
            the detector sees the class, or all where nothing looked.
        replicates: independently fine-tuned generators of each class.
        damaged: images that were given and left out.
        failed_classes: class name to why it has no images.
        versions: of packages.
        licences: of the real images, and of the base model's weights.
    """

    recipe: dict[str, Any]
    seed: Whole
    device: str
    threads: Whole | None = None
    base_model: Source
    panel: tuple[Weights, ...]
    phi: Weights
    object_detector: str | None
    real_images: Source
    positive_images: Source | None
    positives: dict[str, PositiveCounts]
    replicates: Whole
    damaged: tuple[LeftOut, ...]
    failed_classes: dict[str, str]
    versions: dict[str, str]
    licences: Licences

    @property
    def contexts(self) -> tuple[str, ...]:
        """The recipe's contexts; none in a recipe of an early version."""
        return tuple(map(str, self.recipe.get("contexts", {}).get("phrases", ())))

    def as_json(self) -> dict[str, Any]:
        """As JSON values: those that it was read from."""
        return self.model_dump(mode="json", exclude_unset=True)


class ChangelogEntry(Document):
    """What one version changed, in sentences."""

    version: Version
    note: str | None
    changes: tuple[str, ...]


class Manifest(Document):
    """What ``spurbench.json`` holds: what the dataset is, how it was made, every file's hash.

    Attributes:
        schema_version: of this document.
        name: of the dataset.
        version: X.Y.Z.
        content: see :func:`content_hash`.
        created: when, in ISO 8601.
        counts: rows of each part (:func:`spurbench.dataset.rows.place`) that has any.
        quality: image quality metrics among the columns.
        changelog: the newest version first; empty in datasets of early versions.
        provenance: how it was made.
        files: path in the dataset to hex sha256, of every file but this.
        manifest_sha256: of all the rest (:meth:`seal`); None in datasets of early versions.
    """

    schema_version: Literal["spurbench.dataset/2"] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: Version
    content: Sha256
    created: str
    counts: dict[PartName, Annotated[Whole, Field(ge=1)]]
    quality: tuple[str, ...]
    changelog: tuple[ChangelogEntry, ...] = ()
    provenance: Provenance
    files: dict[str, Sha256]
    manifest_sha256: Sha256 | None = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a finished dataset; whether it is the sealed one is not checked.

        Raises:
            SpurbenchError: if the folder holds none, one of another schema, or a damaged one.
        """
        path = folder / MANIFEST
        try:
            document = read_json(path)
        except FileNotFoundError:
            raise SpurbenchError(
                f"{folder} is not a finished dataset of spurbench build: no {MANIFEST}"
            ) from None
        except SpurbenchError as error:
            raise SpurbenchError(f"{path} is damaged: {error}") from None
        if isinstance(document, dict) and document.get("schema") in OLDER:
            raise SpurbenchError(f"{folder} was built by an older spurbench; build it again")
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise SpurbenchError(f"{path} is not of schema {SCHEMA}")
        try:
            _require_plain(document)
        except ValueError as error:
            raise SpurbenchError(f"{path} is damaged: {reason(error)}") from None
        return validated(cls, document, f"{path} is damaged")

    def write(self, folder: Path) -> None:
        """Write it, sealed, into the dataset that it describes."""
        sealed = self.model_copy(update={"manifest_sha256": self.seal()})
        atomic.write_json(folder / MANIFEST, sealed.as_json())

    def as_json(self) -> dict[str, Any]:
        """As JSON values: those that it was read from."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def seal(self) -> str:
        """Hex sha256 of everything but ``manifest_sha256``."""
        document = self.as_json()
        document.pop("manifest_sha256", None)
        return fingerprint(document)


def _require_plain(value: Any, depth: int = 0) -> None:
    """Refuse what can be parsed and never be written: not a number, half a character, an abyss."""
    if depth > DEPTH:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    if isinstance(value, dict):
        for key, inner in value.items():
            _require_plain(key, depth + 1)
            _require_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _require_plain(inner, depth + 1)
    elif isinstance(value, str):
        value.encode()
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no finite number")


def require_writable(output: Path, *, name: str, version: str) -> None:
    """Refuse an output folder that a dataset of this name and version must not replace.

    Raises:
        SpurbenchError: if the version is not X.Y.Z, or the folder holds another dataset, another
            version, or anything that is not a dataset of ``spurbench build``.
    """
    if not re.fullmatch(VERSION, version):
        raise SpurbenchError(f"--version {version!r} is not X.Y.Z, e.g. 1.0.0")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise SpurbenchError(
            f"{output} is there and is not a dataset of spurbench build; choose another --output"
        )
    held = Manifest.read(output)
    if (held.name, held.version) != (name, version):
        raise SpurbenchError(
            f"{output} holds {held.name} {held.version}, not {name} {version}; choose "
            "another --output, or delete it"
        )


def content_hash(rows: Rows, provenance: Provenance) -> str:
    """Hex sha256 over rows (an image counts by its hash) and provenance.

    It is the fingerprint of ``{"provenance": ..., "rows": {part: [columns, ...]}}``, without parts
    that are empty, and is taken row by row.
    """
    digest = hashlib.sha256(b'{"provenance":' + canonical_json(provenance.as_json()))
    digest.update(b',"rows":{')
    for position, part in enumerate(sorted(part for part in OWN_PARTS if rows.get(part))):
        digest.update(b"," * (position > 0) + canonical_json(part) + b":[")
        for number, row in enumerate(rows[part]):
            digest.update(b"," * (number > 0) + canonical_json(row.columns()))
        digest.update(b"]")
    digest.update(b"}}")
    return digest.hexdigest()


@dataclass(frozen=True)
class Snapshot:
    """One version of a dataset, as far as a comparison needs it.

    Attributes:
        name: of the dataset.
        version: X.Y.Z.
        provenance: how it was made.
        rows: gone through once a part.
        changelog: the newest version first.
    """

    name: str
    version: str
    provenance: Provenance
    rows: Mapping[PartName, Iterable[Row]]
    changelog: tuple[ChangelogEntry, ...] = ()


def read_snapshot(folder: Path) -> Snapshot:
    """A finished dataset as far as a comparison needs it; its rows are read as they are needed.

    Raises:
        SpurbenchError: see :func:`read_rows`.
    """
    manifest = Manifest.read(folder)
    rows = {part: StoredRows(folder, part) for part in OWN_PARTS}
    for part, stored in rows.items():
        _require_count(manifest, part, sum(1 for _ in stored), folder)
    return Snapshot(manifest.name, manifest.version, manifest.provenance, rows, manifest.changelog)


def read_rows(folder: Path) -> dict[PartName, list[Row]]:
    """The rows of a finished dataset, by own part, of which some may be empty.

    Raises:
        SpurbenchError: if the folder holds no dataset, its parquet can't be read, or it holds
            other rows than the manifest counts.
    """
    manifest = Manifest.read(folder)
    rows: dict[PartName, list[Row]] = {}
    for part in OWN_PARTS:
        rows[part] = [*StoredRows(folder, part)]
        _require_count(manifest, part, len(rows[part]), folder)
    return rows


def _require_count(manifest: Manifest, part: PartName, found: int, folder: Path) -> None:
    if found != (told := manifest.counts.get(part, 0)):
        raise SpurbenchError(
            f"{folder} holds {found} rows of {part}, {MANIFEST} says {told}; `spurbench verify "
            f"{folder}` says more"
        )


def shards(folder: Path, part: PartName) -> list[Path]:
    """The parquet files of a part, in the order of their rows.

    Raises:
        SpurbenchError: if one is no regular file; a pipe would be read for ever.
    """
    files = sorted(folder.glob(f"data/{part}-*.parquet"))
    for file in files:
        if not file.is_file():
            raise SpurbenchError(f"{file} is not a regular file; fetch the dataset again")
    return files


@dataclass(frozen=True)
class StoredRows:
    """The rows of a part as they lie on disk, read anew each time they are gone through.

    Only some are in memory at once, and of their images none that is not read.

    Attributes:
        folder: the dataset.
        part: of it.
    """

    folder: Path
    part: PartName

    def __iter__(self) -> Iterator[Row]:
        """Each row.

        Raises:
            SpurbenchError: if its parquet can't be read, or holds something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in shards(self.folder, self.part):
            try:
                with pq.ParquetFile(path) as file:
                    images, number = ParquetImages(path), 0
                    names = [name for name in file.schema_arrow.names if name != "image"]
                    for batch in file.iter_batches(BATCH, columns=names):
                        for columns in batch.to_pylist():
                            yield Row.of(columns, partial(images.read, number))
                            number += 1
            # ValueError: what isn't a row, too; the others are what damaged pages end in
            except (pa.ArrowException, OSError, ValueError, OverflowError, AttributeError) as error:
                raise SpurbenchError(
                    f"{path} can't be read ({reason(error)}); `spurbench verify {self.folder}` "
                    "says more"
                ) from None

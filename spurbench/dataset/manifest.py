"""A finished dataset as it lies on disk: its manifest, its rows, and what a comparison needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spurbench.core.identity import fingerprint
from spurbench.dataset.rows import SPLITS, Row

if TYPE_CHECKING:
    pass

import json
import re
from pathlib import Path

import pyarrow.parquet as pq

from spurbench.core.errors import SpurbenchError

MANIFEST = "spurbench.json"


SCHEMA = "spurbench.dataset/1"


def require_writable(output: Path, *, name: str, version: str) -> None:
    """Refuse an output folder that a dataset of this name and version must not replace.

    Raises:
        SpurbenchError: if the version is not X.Y.Z, or the folder holds another dataset, another
            version, or anything that is not a dataset of ``spurbench build``.
    """
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise SpurbenchError(f"--version {version!r} is not X.Y.Z, e.g. 1.0.0")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise SpurbenchError(
            f"{output} is there and is not a dataset of spurbench build; choose another --output"
        )
    held = read_manifest(output)
    if (held["name"], held["version"]) != (name, version):
        raise SpurbenchError(
            f"{output} holds {held['name']} {held['version']}, not {name} {version}; choose "
            "another --output, or delete it"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The provenance of a finished dataset.

    Raises:
        SpurbenchError: if the folder holds none, or one of another schema.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpurbenchError(
            f"{folder} is not a finished dataset of spurbench build: no {MANIFEST}"
        ) from None
    except ValueError as error:
        raise SpurbenchError(f"{folder / MANIFEST} is damaged: {error}") from None
    if manifest.get("schema") != SCHEMA:
        raise SpurbenchError(f"{folder / MANIFEST} is not of schema {SCHEMA}")
    return manifest


def content_hash(rows: Mapping[str, Sequence[Row]], provenance: Mapping[str, Any]) -> str:
    """Hex sha256 over rows (an image counts by its hash) and provenance."""
    return fingerprint({"provenance": provenance, "rows": without_images(rows)})


def without_images(rows: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows of every split without their ``image``."""
    return {
        split: [{k: v for k, v in row.items() if k != "image"} for row in rows[split]]
        for split in SPLITS
    }


def read_rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of a finished dataset, as :func:`write_dataset` takes them."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        rows[split] = []
        for file in sorted(folder.glob(f"data/{split}-*.parquet")):
            rows[split] += pq.read_table(file).to_pylist()
        for row in rows[split]:
            row["image"] = row["image"]["bytes"]
    return rows


def read_snapshot(folder: Path) -> Snapshot:
    """A finished dataset as far as a comparison needs it; image bytes are not read.

    Raises:
        SpurbenchError: if the folder holds no dataset, or its parquet can't be read.
    """
    manifest = read_manifest(folder)
    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for file in sorted(folder.glob(f"data/{split}-*.parquet")):
            try:
                columns = [name for name in pq.read_schema(file).names if name != "image"]
                rows[split] += pq.read_table(file, columns=columns).to_pylist()
            except (OSError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise SpurbenchError(
                    f"{file} can't be read ({reason}); `spurbench verify {folder}` says more"
                ) from None
    return Snapshot(manifest["name"], manifest["version"], manifest["provenance"], rows)


@dataclass(frozen=True)
class Snapshot:
    """One version of a dataset, as far as a comparison needs it.

    Attributes:
        name: of the dataset.
        version: X.Y.Z.
        provenance: how it was made.
        rows: per split, in the columns of :data:`spurbench.dataset.rows.COLUMNS` but for ``image``.
    """

    name: str
    version: str
    provenance: Mapping[str, Any]
    rows: Mapping[str, Sequence[Row]]

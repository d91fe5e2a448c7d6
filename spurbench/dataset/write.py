"""The emitted dataset: parquet, card, metadata, provenance; written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from spurbench.build.store import file_sha256, fingerprint
from spurbench.core import atomic, markdown
from spurbench.core.errors import SpurbenchError
from spurbench.dataset import card, croissant
from spurbench.dataset.changelog import Entry
from spurbench.dataset.diff import Snapshot
from spurbench.dataset.rows import SPLITS, Row, features, parts

MANIFEST = "spurbench.json"
SCHEMA = "spurbench.dataset/1"
SHARD_BYTES = 500_000_000


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


def write_dataset(
    output: Path,
    rows: Mapping[str, Sequence[Row]],
    provenance: Mapping[str, Any],
    *,
    name: str,
    version: str,
    quality: Sequence[str],
    changelog: Sequence[Entry],
) -> bool:
    """Write the dataset folder; the folder that is there is replaced only when all is written.

    Identical rows give byte-identical parquet. The manifest, with every file's hash, is written
    last.

    Args:
        output: the folder.
        rows: of the splits ``real`` and ``generated``, in the columns of
            :func:`spurbench.dataset.rows.features` but for ``image``, the encoded bytes.
        provenance: how it was made, as JSON values.
        name: of the dataset.
        version: X.Y.Z.
        quality: image quality metrics among the columns.
        changelog: entries, the newest first.

    Returns:
        False if the folder held the very same dataset already; nothing is written then.
    """
    content = content_hash(rows, provenance)
    if (output / MANIFEST).is_file():
        held = read_manifest(output)
        wanted = {"name": name, "version": version, "content": content, "changelog": [*changelog]}
        if all(held.get(key) == value for key, value in wanted.items()) and all(
            (output / file).is_file() and file_sha256(output / file) == digest
            for file, digest in held["files"].items()
        ):
            return False
    kind = features(quality)
    with atomic.folder(output) as folder:
        edition = card.Edition(
            name=name,
            version=version,
            content=content,
            provenance=provenance,
            changelog=changelog,
            quality=quality,
            parts={
                part: _write_parquet(folder, part, chosen, kind)
                for part, chosen in parts(rows).items()
            },
        )
        card.sample_grid(rows).save(folder / card.SAMPLES, optimize=True)
        (folder / card.FILE).write_text(card.render(edition, rows, kind), encoding="utf-8")
        document = markdown.embedded_json(croissant.metadata(edition))
        (folder / croissant.FILE).write_text(document + "\n", encoding="utf-8")
        manifest = {
            "schema": SCHEMA,
            "name": name,
            "version": version,
            "content": content,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": {part: facts.rows for part, facts in edition.parts.items()},
            "quality": list(quality),
            "changelog": [*changelog],
            "provenance": provenance,
            "files": {
                path.relative_to(folder).as_posix(): file_sha256(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        }
        sealed = {**manifest, "manifest_sha256": fingerprint(manifest)}
        atomic.write_json(folder / MANIFEST, sealed)
    return True


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


def _write_parquet(
    folder: Path, part: str, rows: Sequence[Row], kind: datasets.Features
) -> card.Part:
    (folder / "data").mkdir(exist_ok=True)
    total = sum(len(row["image"]) for row in rows)
    shards = max(1, -(-total // SHARD_BYTES))
    data_bytes, files = 0, []
    for shard in range(shards):
        chosen = rows[len(rows) * shard // shards : len(rows) * (shard + 1) // shards]
        columns: dict[str, list[Any]] = {column: [row[column] for row in chosen] for column in kind}
        columns["image"] = [{"bytes": row["image"], "path": row["file_name"]} for row in chosen]
        table = datasets.Dataset.from_dict(columns, features=kind)
        files.append(folder / "data" / f"{part}-{shard:05d}-of-{shards:05d}.parquet")
        table.to_parquet(str(files[-1]))
        data_bytes += table.data.nbytes
    return card.Part(
        rows=len(rows),
        data_bytes=data_bytes,
        files={file.relative_to(folder).as_posix(): file_sha256(file) for file in files},
        file_bytes=sum(file.stat().st_size for file in files),
    )

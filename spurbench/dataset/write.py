"""The emitted dataset: parquet, card, metadata, provenance; written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import datasets

from spurbench.core import atomic, markdown
from spurbench.core.identity import file_sha256
from spurbench.dataset import card, croissant
from spurbench.dataset.manifest import (
    MANIFEST,
    SCHEMA,
    ChangelogEntry,
    Manifest,
    Provenance,
    content_hash,
)
from spurbench.dataset.rows import PartName, Row, Rows, features, parts

SHARD_BYTES = 500_000_000


def write_dataset(
    output: Path,
    rows: Rows,
    provenance: Provenance,
    *,
    name: str,
    version: str,
    quality: Sequence[str],
    changelog: Sequence[ChangelogEntry],
) -> bool:
    """Write the dataset folder; the folder that is there is replaced only when all is written.

    Identical rows give byte-identical parquet. The manifest, with every file's hash, is written
    last.

    Args:
        output: the folder.
        rows: with their images.
        provenance: how it was made.
        name: of the dataset.
        version: X.Y.Z.
        quality: image quality metrics among the columns.
        changelog: the newest version first.

    Returns:
        False if the folder held the very same dataset already; nothing is written then.
    """
    content = content_hash(rows, provenance)
    if (output / MANIFEST).is_file():
        held = Manifest.read(output)
        same = (held.name, held.version, held.content) == (name, version, content)
        if same and held.changelog == (*changelog,) and _is_whole(output, held):
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
        (folder / card.FILE).write_text(card.render(edition, rows), encoding="utf-8")
        card.write_licence(folder, provenance)
        document = markdown.embedded_json(croissant.metadata(edition))
        (folder / croissant.FILE).write_text(document + "\n", encoding="utf-8")
        Manifest(
            schema=SCHEMA,
            name=name,
            version=version,
            content=content,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            counts={part: facts.rows for part, facts in edition.parts.items()},
            quality=(*quality,),
            changelog=(*changelog,),
            provenance=provenance,
            files={
                path.relative_to(folder).as_posix(): file_sha256(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
        ).write(folder)
    return True


def _is_whole(folder: Path, manifest: Manifest) -> bool:
    return all(
        (folder / file).is_file() and file_sha256(folder / file) == digest
        for file, digest in manifest.files.items()
    )


def _write_parquet(
    folder: Path, part: PartName, rows: Sequence[Row], kind: datasets.Features
) -> card.Part:
    (folder / "data").mkdir(exist_ok=True)
    total = sum(len(row.image) for row in rows)
    shards = max(1, -(-total // SHARD_BYTES))
    data_bytes, files = 0, []
    for shard in range(shards):
        chosen = rows[len(rows) * shard // shards : len(rows) * (shard + 1) // shards]
        columns: dict[str, list[Any]] = {
            "image": [{"bytes": row.image, "path": row.file_name} for row in chosen]
        }
        values = [row.columns() for row in chosen]
        columns |= {name: [row[name] for row in values] for name in kind if name != "image"}
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

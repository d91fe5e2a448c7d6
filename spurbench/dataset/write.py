"""The emitted dataset: parquet, card, metadata, provenance; written whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import datasets

from spurbench.core import atomic, markdown
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256
from spurbench.dataset import card, croissant, parquet
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
"""Of encoded images in a parquet file, at most; a larger image has one to itself."""


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
        rows: their images are read as they are written, a row group at a time.
        provenance: how it was made.
        name: of the dataset.
        version: X.Y.Z.
        quality: image quality metrics among the columns.
        changelog: the newest version first.

    Returns:
        False if the folder held the very same dataset already; nothing is written then.

    Raises:
        SpurbenchError: if an image is not, or no longer, the one of its row's ``image_sha256``.
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
    folder: Path, part: PartName, rows: Sequence[Row], kinds: datasets.Features
) -> card.Part:
    (folder / "data").mkdir(exist_ok=True)
    files: list[Path] = []
    data_bytes = 0
    with ExitStack() as opened:
        writer: parquet.ParquetWriter | None = None
        for row in rows:
            image = _image(row)
            if writer is None or writer.image_bytes + len(image) > SHARD_BYTES:
                opened.close()
                data_bytes += writer.data_bytes if writer else 0
                files.append(folder / "data" / f"{part}-{len(files):05d}")
                writer = opened.enter_context(parquet.writing(files[-1], kinds))
            encoded = {"bytes": image, "path": row.file_name}
            writer.add({"image": encoded, **row.columns()}, image)
    assert writer is not None  # a part has rows
    data_bytes += writer.data_bytes
    # How many there are is known now, and is in the name of each.
    files = [file.rename(f"{file}-of-{len(files):05d}.parquet") for file in files]
    return card.Part(
        rows=len(rows),
        data_bytes=data_bytes,
        files={file.relative_to(folder).as_posix(): file_sha256(file) for file in files},
        file_bytes=sum(file.stat().st_size for file in files),
    )


def _image(row: Row) -> bytes:
    """A row's image, which may have changed since the row was made."""
    image = row.read()
    if hashlib.sha256(image).hexdigest() != row.image_sha256:
        raise SpurbenchError(
            f"{row.file_name} is not the image that was examined, for its sha256 is another; the "
            "same command examines it anew"
        )
    return image

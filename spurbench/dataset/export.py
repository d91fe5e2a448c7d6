"""A dataset's images in the layouts that other tools take; written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_wnids
from spurbench.dataset import card, parquet
from spurbench.dataset.manifest import Manifest, StoredRows
from spurbench.dataset.rows import Config, PartName, Row, features, place
from spurbench.images.records import Split
from spurbench.images.sources import IMAGE_SUFFIXES

Layout = Literal["imagefolder", "webdataset"]

SHARD_BYTES = 500_000_000
"""Of a webdataset's tar files, about; a larger image has one to itself."""


def export(
    folder: Path,
    output: Path,
    layout: Layout,
    *,
    config: Config = "default",
    split: Split | Literal["all"] = "all",
) -> dict[Split, int]:
    """Write the images of one config in another layout, with their bytes as they are.

    An ``imagefolder`` holds ``SPLIT/WNID/NUMBER.png`` and ``SPLIT/metadata.parquet``, every column
    but the image by ``file_name``; the row's own file name is ``original_name``. A ``webdataset``
    holds ``SPLIT-NUMBER.tar`` with, per image, the image, its other columns as ``.json`` and its
    class index as ``.cls``; the same rows give the same bytes. Both have a card that
    ``load_dataset`` reads splits and types from, and the licences.

    Args:
        folder: a finished dataset.
        output: a new folder, or an empty one.
        layout: which.
        config: whose images.
        split: of the config; ``all`` it has.

    Returns:
        The number of images by split.

    Raises:
        SpurbenchError: if the folder holds no dataset, has no such images, or is damaged; or if
            the output holds something.
    """
    manifest = Manifest.read(folder)
    chosen: dict[PartName, Split] = {}
    for part in manifest.counts:
        if place(part)[0] == config and split in ("all", place(part)[1]):
            chosen[part] = place(part)[1]
    if not chosen:
        there = ", ".join(f"{c} {s}" for c, s in map(place, manifest.counts))
        raise SpurbenchError(f"{folder} has no images in {config} {split}; it has {there}")
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise SpurbenchError(f"{output} is there and not empty; choose another --output")
    counts: dict[Split, int] = {}
    with atomic.folder(output) as target:
        types: dict[str, Any] = {}
        if layout == "imagefolder":
            paths = {name: f"{name}/**" for name in chosen.values()}
            for part, name in chosen.items():
                counts[name] = _write_folder(target / name, folder, part, manifest)
        else:
            paths = {name: f"{name}-*.tar" for name in chosen.values()}
            suffix = _common_suffix(folder, [*chosen])
            types = {"features": _webdataset_types(suffix, manifest.quality)}
            for part, name in chosen.items():
                counts[name] = _write_shards(target, name, suffix, folder, part)
        _write_card(target, manifest, config, paths, types)
    return counts


def _rows(folder: Path, part: PartName) -> Iterator[tuple[Row, bytes]]:
    """The rows of a part and their images, one after another, each what was published."""
    wnids = imagenet_wnids()
    for row in StoredRows(folder, part):
        image = row.read()
        known = 0 <= row.class_index < len(wnids) and row.wnid == wnids[row.class_index]
        if not known or hashlib.sha256(image).hexdigest() != row.image_sha256:
            raise SpurbenchError(
                f"{folder}, {part}: {row.file_name} is not what was published, for its "
                f"{'sha256' if known else 'class'} is another; `spurbench verify {folder}` says "
                "more"
            )
        yield row, image


def _suffix(row: Row, folder: Path) -> str:
    suffix = PurePosixPath(row.file_name).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise SpurbenchError(
            f"{folder}: {row.file_name} is named like no image; build the dataset again"
        )
    return ".jpg" if suffix == ".jpeg" else suffix


def _write_folder(target: Path, folder: Path, part: PartName, manifest: Manifest) -> int:
    import datasets

    columns = features(manifest.quality)
    types = {"file_name": datasets.Value("string")}
    types |= {
        "original_name" if name == "file_name" else name: kind
        for name, kind in columns.items()
        if name != "image"
    }
    number = 0
    target.mkdir()
    # Parquet, for JSON and CSV say nothing of the type of a column without values: splits of
    # which only one has prompts could not be loaded together.
    with parquet.writing(target / "metadata.parquet", datasets.Features(types)) as metadata:
        for number, (row, image) in enumerate(_rows(folder, part), start=1):
            file = target / row.wnid / f"{number - 1:06d}{_suffix(row, folder)}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(image)
            name = file.relative_to(target).as_posix()
            metadata.add({**row.columns(), "original_name": row.file_name, "file_name": name})
    return number


def _common_suffix(folder: Path, parts: list[PartName]) -> str:
    """What every image of a webdataset is called.

    Its readers make a column of each suffix, and may leave out those that the first images lack;
    decoders go by the bytes.
    """
    found = {_suffix(row, folder) for part in parts for row in StoredRows(folder, part)}
    return found.pop() if len(found) == 1 else ".jpg"


def _webdataset_types(suffix: str, quality: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of the columns that ``datasets`` makes of a sample's files, as a card has them."""
    import datasets

    columns = {name: kind for name, kind in features(quality).items() if name != "image"}
    columns["label"] = datasets.Value("int64")
    kinds = {
        suffix[1:]: datasets.Image(),
        "json": columns,
        "cls": datasets.Value("int64"),
        "__key__": datasets.Value("string"),
        "__url__": datasets.Value("string"),
    }
    types: list[dict[str, Any]] = datasets.Features(kinds)._to_yaml_list()
    return types


def _write_shards(target: Path, split: Split, suffix: str, folder: Path, part: PartName) -> int:
    number = shard = 0
    archive: tarfile.TarFile | None = None
    with ExitStack() as opened:
        for number, (row, image) in enumerate(_rows(folder, part), start=1):
            key = f"{number - 1:06d}"
            sample = {
                f"{key}{suffix}": image,
                f"{key}.json": json.dumps(row.columns(), ensure_ascii=False).encode(),
                f"{key}.cls": str(row.class_index).encode(),
            }
            size = sum(map(len, sample.values()))
            if archive is None or archive.offset + size > SHARD_BYTES:
                opened.close()
                path = target / f"{split}-{shard:05d}.tar"
                archive = opened.enter_context(tarfile.open(path, "w", format=tarfile.USTAR_FORMAT))
                shard += 1
            for name, data in sample.items():
                # A TarInfo is by itself of nobody and of 1970, so that no two exports differ.
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return number


def _write_card(
    target: Path,
    manifest: Manifest,
    config: Config,
    paths: Mapping[Split, str],
    types: Mapping[str, Any],
) -> None:
    """What loaders and people need; the loader's cache is keyed by it (:mod:`.card`)."""
    about = card.information(manifest.name, manifest.version, manifest.content, manifest.provenance)
    title = f"spurbench {manifest.name} {manifest.version}, {config}"
    front = {
        "pretty_name": title,
        **card.licence_fields(),
        "configs": [
            {
                "config_name": config,
                "version": manifest.version,
                "data_files": [{"split": s, "path": path} for s, path in paths.items()],
                "default": True,
            }
        ],
        "dataset_info": [{"config_name": config, **about, **types}],
    }
    body = (
        f"# {title}\n\nImages of spurious features, exported by `spurbench export`. Columns, "
        "limits and misuse are described on the\ncard of the dataset itself; the licences are in "
        f"[{card.LICENCE}]({card.LICENCE}).\n"
    )
    card.write_licence(target, manifest.provenance)
    (target / card.FILE).write_text(f"{card.front_matter_text(front)}\n{body}", encoding="utf-8")

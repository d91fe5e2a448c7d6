"""Reading images: Spurious ImageNet folders, built datasets, hub datasets, positives."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.images.decode import fault
from spurbench.images.records import (
    Damaged,
    DatasetInfo,
    ImageRecord,
    ImageSet,
    images_fingerprint,
)
from spurbench.recipe.classes import ClassRegistry, SpuriousClass

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
COLUMNS = ["image", "class_index", "source", "file_name", "class_name", "spurious_feature"]
"""What is read of a dataset's rows."""

LAYOUT = "folders named like spurious_class_094_hummingbird_component_2 with images in them"


def open_images(
    data: str, split: Literal["real", "generated", "all"] = "all", *, decode: bool = True
) -> ImageSet:
    """Open images to measure classifiers on.

    Args:
        data: a folder in the official Spurious ImageNet layout (or one that holds it as
            ``images``), a dataset that ``spurbench build`` made, or a hub dataset id. A
            ``classes.toml`` in a folder, as recipes have it, names its features.
        split: which images; a folder of photographs is all ``real``.
        decode: decode every image once now, so that damaged ones are known and left out; False
            leaves it to the caller to meet them.

    Raises:
        SpurbenchError: if there is no such data, split or layout, or every image is damaged.
    """
    path = Path(data)
    if path.is_dir():
        if (path / "spurbench.json").is_file():
            return _open_dataset(path, split, decode)
        if list(path.glob("data/*.parquet")):
            raise SpurbenchError(
                f"{path} holds parquet files but no spurbench.json; it is no finished dataset "
                "of spurbench build; run the build again"
            )
        return _open_folder(path, split, decode)
    if path.exists():
        raise SpurbenchError(f"{path} is a file; --data takes a folder or a hub dataset id")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", data) and not data.startswith((".", "out/")):
        return _open_hub(data, split, decode)
    raise SpurbenchError(
        f"no folder at {path}; --data takes a folder or a hub dataset id owner/name"
    )


def open_positives(folder: Path, *, decode: bool = True) -> ImageSet:
    """Images that truly show classes, in ImageNet's validation layout.

    Args:
        folder: holds one folder per class, named by WordNet id (``n01833805``) or class index.
        decode: see :func:`open_images`.

    Raises:
        SpurbenchError: if no such folder is in it, or every image is damaged.
    """
    if not folder.is_dir():
        raise SpurbenchError(f"no folder at {folder}; --positives takes one in ImageNet's layout")
    index_of = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    classes = {}
    for entry in _folders(folder):
        if entry.name in index_of:
            classes[entry] = index_of[entry.name]
        elif entry.name.isdigit() and int(entry.name) < len(index_of):
            classes[entry] = int(entry.name)
    if not classes:
        raise SpurbenchError(
            f"{folder} holds no class folders; positives need ImageNet's layout, folders named by "
            "WordNet id (n01833805) or class index"
        )
    return _collect(folder, classes, decode)


def _open_folder(path: Path, split: str, decode: bool) -> ImageSet:
    if split == "generated":
        raise SpurbenchError(f"{path} is a folder of photographs: it has split real, not generated")
    for root in (path, path / "images"):
        classes = {
            entry: index for entry in _folders(root) if (index := _class_of(entry.name)) is not None
        }
        if classes:
            name = path.name if root == path else f"{path.name}/images"
            return _collect(root, classes, decode, name=name)
    found = [entry.name for entry in sorted(path.iterdir())[:3]]
    shown = f"found {', '.join(found)}" if found else "it is empty"
    raise SpurbenchError(f"{path} is not in the Spurious ImageNet layout ({LAYOUT}): {shown}")


def _class_of(folder: str) -> int | None:
    """The class index in a folder's name, its third part; None for another kind of folder."""
    parts = folder.split("_")
    if len(parts) < 4 or not parts[2].isdigit() or not parts[-1].isdigit():
        return None
    index = int(parts[2])
    return index if index < len(imagenet_wnids()) else None


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (entry for entry in sorted(root.iterdir()) if entry.is_dir())


def _collect(
    root: Path, classes: dict[Path, int], decode: bool, name: str | None = None
) -> ImageSet:
    records, damaged = [], []
    known = _named_pairs(root)
    for folder, index in classes.items():
        pair = known.get(index)
        for file in sorted(folder.iterdir(), key=_natural):
            if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
                continue
            label = str(file.relative_to(root))
            reason = fault(file.read_bytes()) if decode else None
            if reason is not None:
                damaged.append(Damaged(path=label, reason=reason))
                continue
            records.append(
                ImageRecord.from_file(
                    file,
                    class_index=index,
                    source="real",
                    name=label,
                    class_name=pair.name if pair else imagenet_names()[index],
                    spurious_feature=pair.spurious_feature if pair else None,
                )
            )
    return _image_set(records, damaged, name=name or root.name, kind="folder", where=str(root))


def _named_pairs(root: Path) -> dict[int, SpuriousClass]:
    """The pairs by class index that a folder names, in a ``classes.toml`` as recipes have it."""
    file = root / "classes.toml"
    return ClassRegistry.read(file).by_index() if file.is_file() else {}


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _open_dataset(path: Path, split: str, decode: bool) -> ImageSet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = json.loads((path / "spurbench.json").read_text(encoding="utf-8"))
        dataset, version = manifest["name"], manifest["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SpurbenchError(
            f"{path / 'spurbench.json'} is damaged; run the build again, or fetch the dataset again"
        ) from None
    wanted = ["real", "generated"] if split == "all" else [split]
    records: list[ImageRecord] = []
    damaged: list[Damaged] = []
    for name in wanted:
        files = sorted(path.glob(f"data/{name}-*.parquet"))
        if not files:
            raise SpurbenchError(f"dataset {path} has no split {name}")
        for file in files:
            try:
                table = pq.read_table(file, columns=COLUMNS)
            except (pa.ArrowException, OSError):
                raise SpurbenchError(
                    f"{file} is damaged; `spurbench verify {path}` names every file that is"
                ) from None
            _add_rows(table.to_pylist(), records, damaged, decode)
    return _image_set(
        records,
        damaged,
        name=dataset,
        kind="dataset",
        where=str(path),
        version=version,
    )


def _open_hub(name: str, split: str, decode: bool) -> ImageSet:
    import datasets

    hub.use_cache_if_unreachable()
    wanted = ["real", "generated"] if split == "all" else [split]
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # hub, HTTP and parsing errors have no common ancestor
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise SpurbenchError(
            f"there is no folder {name}, and no dataset {name} can be had from the hub "
            f"({reason[:160]}); check the name and the network"
        ) from error
    records: list[ImageRecord] = []
    damaged: list[Damaged] = []
    for part in wanted:
        if part not in loaded:
            raise SpurbenchError(f"dataset {name} has no split {part}; it has {', '.join(loaded)}")
        rows = loaded[part].cast_column("image", datasets.Image(decode=False))
        missing = [column for column in COLUMNS if column not in rows.column_names]
        if missing:
            raise SpurbenchError(
                f"dataset {name} is not spurbench's: no column {', '.join(missing)}"
            )
        _add_rows(rows.select_columns(COLUMNS), records, damaged, decode)
    version = str(loaded[wanted[0]].info.version or "") or None
    return _image_set(records, damaged, name=name, kind="hub", where=name, version=version)


def _add_rows(rows: Any, records: list[ImageRecord], damaged: list[Damaged], decode: bool) -> None:
    for row in rows:
        data: bytes = row["image"]["bytes"]
        reason = fault(data) if decode else None
        if reason is not None:
            damaged.append(Damaged(path=row["file_name"], reason=reason))
            continue
        digest = hashlib.sha256(data).hexdigest()
        read = partial(bytes, data)
        records.append(
            ImageRecord(
                path=row["file_name"],
                class_index=row["class_index"],
                source=row["source"],
                sha256=digest,
                read=read,
                class_name=row["class_name"],
                spurious_feature=row["spurious_feature"],
            )
        )


def _image_set(
    records: Sequence[ImageRecord],
    damaged: Sequence[Damaged],
    *,
    name: str,
    kind: Literal["folder", "dataset", "hub"],
    where: str,
    version: str | None = None,
) -> ImageSet:
    if not records:
        if damaged:
            raise SpurbenchError(
                f"all {len(damaged)} images in {where} are damaged; the first: {damaged[0].path} "
                f"({damaged[0].reason})"
            )
        raise SpurbenchError(f"{where} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return ImageSet(
        records=tuple(records),
        damaged=tuple(damaged),
        info=DatasetInfo(
            name=name,
            version=version,
            kind=kind,
            fingerprint=images_fingerprint(records),
        ),
    )

"""Reading images: Spurious ImageNet folders, built datasets, hub datasets, positives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from spurbench.core import hub
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import file_sha256
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.text import label
from spurbench.images.decode import fault
from spurbench.images.records import (
    Damaged,
    DatasetInfo,
    ImageRecord,
    ImageSet,
    Split,
    images_fingerprint,
)
from spurbench.recipe.classes import ClassRegistry, SpuriousClass

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MANIFEST = "spurbench.json"

LAYOUT = "folders named like spurious_class_094_hummingbird_component_2 with images in them"


class _Manifest(Document):
    """What is read of a dataset's manifest."""

    model_config = ConfigDict(extra="ignore")

    schema_version: Literal["spurbench.dataset/1"] = Field(alias="schema")
    name: str
    version: str
    files: dict[str, str] = Field(description="path to hex sha256")


class _Image(Document):
    model_config = ConfigDict(extra="ignore")

    data: bytes = Field(alias="bytes")


class _Row(Document):
    """What is read of a dataset's rows."""

    image: _Image
    image_sha256: str
    class_index: int = Field(ge=0, le=999)
    source: Split
    file_name: str
    class_name: str
    spurious_feature: str | None


def open_images(
    data: str, split: Literal["real", "generated", "all"] = "all", *, decode: bool = True
) -> ImageSet:
    """Open images to measure classifiers on.

    Args:
        data: a folder in the official Spurious ImageNet layout (or one that holds it as
            ``images``), a folder as :func:`open_positives` takes it, a dataset that ``spurbench
            build`` made, or a hub dataset id. A ``classes.toml`` in a folder, as recipes have it,
            names its features.
        split: which images; a folder of photographs is all ``real``.
        decode: decode every image once now, so that damaged ones are known and left out; False
            leaves it to the caller to meet them.

    Raises:
        SpurbenchError: if there is no such data, split or layout, or every image is damaged.
    """
    path = _path(data)
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return _open_dataset(path, split, decode)
        if list(path.glob("data/*.parquet")):
            raise SpurbenchError(
                f"{path} holds parquet files but no {MANIFEST}; it is no finished dataset "
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
    if not _path(str(folder)).is_dir():
        raise SpurbenchError(f"no folder at {folder}; --positives takes one in ImageNet's layout")
    classes = _plain_classes(folder)
    if not classes:
        raise SpurbenchError(
            f"{folder} holds no class folders; positives need ImageNet's layout, folders named by "
            "WordNet id (n01833805) or class index"
        )
    return _collect(folder, classes, decode)


def _plain_classes(root: Path) -> dict[Path, int]:
    """The class folders in ImageNet's layout, named by WordNet id or class index."""
    index_of = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    classes = {}
    for entry in _folders(root):
        if entry.name in index_of:
            classes[entry] = index_of[entry.name]
        elif _is_number(entry.name) and int(entry.name) < len(index_of):
            classes[entry] = int(entry.name)
    return classes


def _open_folder(path: Path, split: str, decode: bool) -> ImageSet:
    if split == "generated":
        raise SpurbenchError(f"{path} is a folder of photographs: it has split real, not generated")
    for root in (path, path / "images"):
        classes = {
            entry: pair[0] for entry in _folders(root) if (pair := class_and_component(entry.name))
        }
        if classes:
            name = path.name if root == path else f"{path.name}/images"
            return _collect(root, classes, decode, name=name)
    if classes := _plain_classes(path):
        # What these are meant to show instead of their classes is the user's word.
        return _collect(path, classes, decode)
    found = [entry.name for entry in _listed(path)[:3]]
    shown = f"found {', '.join(found)}" if found else "it is empty"
    raise SpurbenchError(
        f"{path} is not in the Spurious ImageNet layout ({LAYOUT}), nor in ImageNet's (folders "
        f"named by WordNet id, n01833805, or class index): {shown}"
    )


def class_and_component(folder: str) -> tuple[int, int] | None:
    """The class index and the component in the name of a folder in the official layout.

    They are the third part and the last; None for another kind of folder.
    """
    parts = folder.split("_")
    if len(parts) < 4 or not _is_number(parts[2]) or not _is_number(parts[-1]):
        return None
    index = int(parts[2])
    return (index, int(parts[-1])) if index < len(imagenet_wnids()) else None


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield from (entry for entry in _listed(root) if entry.is_dir())


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SpurbenchError(f"{folder} can't be read: {error.strerror}") from None


def _path(text: str) -> Path:
    """A path that the system takes; it refuses some, such as those with NUL or far too long."""
    path = Path(text)
    try:
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise SpurbenchError(f"{text[:200]} can't be read: {reason(error)}") from None
    return path


def _is_number(text: str) -> bool:
    """Whether it is digits from 0 to 9; Unicode has many more, and of other meanings."""
    return re.fullmatch("[0-9]+", text) is not None


def _collect(
    root: Path, classes: dict[Path, int], decode: bool, name: str | None = None
) -> ImageSet:
    records, damaged = [], []
    known = _named_pairs(root)
    for folder, index in classes.items():
        pair = known.get(index)
        for file in sorted(_listed(folder), key=_natural):
            if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
                continue
            called = label(str(file.relative_to(root)))
            try:
                record = ImageRecord.from_file(
                    file,
                    class_index=index,
                    source="real",
                    name=called,
                    class_name=pair.name if pair else imagenet_names()[index],
                    spurious_feature=pair.spurious_feature if pair else None,
                )
                wrong = fault(record.read()) if decode else None
            except (FileNotFoundError, SpurbenchError):
                wrong = "no regular file that can be read"
            if wrong is None:
                records.append(record)
            else:
                damaged.append(Damaged(path=called, reason=wrong))
    return _image_set(records, damaged, name=name or root.name, kind="folder", where=str(root))


def _named_pairs(root: Path) -> dict[int, SpuriousClass]:
    """The pairs by class index that a folder names, in a ``classes.toml`` as recipes have it."""
    file = root / "classes.toml"
    return ClassRegistry.read(file).by_index() if file.is_file() else {}


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """2.png before 10.png."""
    # Every second part is a number, for the pattern is in the split.
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]


def _open_dataset(path: Path, split: str, decode: bool) -> ImageSet:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        manifest = validated(_Manifest, read_json(path / MANIFEST), MANIFEST)
    except SpurbenchError as error:
        raise SpurbenchError(
            f"{path / MANIFEST} is damaged ({error}); run the build again, or fetch the dataset "
            "again"
        ) from None
    rows = _Rows(str(path), decode)
    for part in _parts(split):
        files = sorted(path.glob(f"data/{part}-*.parquet"))
        if not files:
            raise SpurbenchError(f"dataset {path} has no split {part}")
        for file in files:
            if not file.is_file():
                raise SpurbenchError(f"{file} is not a regular file; fetch the dataset again")
            try:
                rows.require_columns(pq.read_schema(file).names, str(file))
                table = pq.read_table(file, columns=[*_Row.model_fields])
            except (pa.ArrowException, OSError):
                raise SpurbenchError(
                    f"{file} is damaged; `spurbench verify {path}` names every file that is"
                ) from None
            rows.add(table.to_pylist(), part, str(file))
        rows.require_some(part)
        for file in files:
            if file_sha256(file) != manifest.files.get(file.relative_to(path).as_posix()):
                raise SpurbenchError(
                    f"{file} is not the file that was published, for its sha256 is another; "
                    f"`spurbench verify {path}` names every such file"
                )
    return _image_set(
        rows.records,
        rows.damaged,
        name=manifest.name,
        kind="dataset",
        where=str(path),
        version=manifest.version,
    )


def _open_hub(name: str, split: str, decode: bool) -> ImageSet:
    import datasets

    hub.use_cache_if_unreachable()
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # hub, HTTP and parsing errors have no common ancestor
        raise SpurbenchError(
            f"there is no folder {name}, and no dataset {name} can be had from the hub "
            f"({reason(error)[:160]}); check the name and the network"
        ) from error
    rows = _Rows(name, decode)
    for part in _parts(split):
        if part not in loaded:
            raise SpurbenchError(f"dataset {name} has no split {part}; it has {', '.join(loaded)}")
        where = f"{name}, split {part}"
        rows.require_columns(loaded[part].column_names, where)
        encoded = loaded[part].cast_column("image", datasets.Image(decode=False))
        rows.add(encoded.select_columns([*_Row.model_fields]), part, where)
        rows.require_some(part)
    version = str(next(iter(loaded.values())).info.version or "") or None
    return _image_set(
        rows.records, rows.damaged, name=name, kind="hub", where=name, version=version
    )


def _parts(split: str) -> list[str]:
    return ["real", "generated"] if split == "all" else [split]


class _Rows:
    """Records out of a dataset's rows, each checked to be what was published."""

    def __init__(self, dataset: str, decode: bool) -> None:
        self.records: list[ImageRecord] = []
        self.damaged: list[Damaged] = []
        self._dataset = dataset
        self._decode = decode

    def require_columns(self, present: Sequence[str], where: str) -> None:
        missing = [column for column in _Row.model_fields if column not in present]
        if missing:
            raise SpurbenchError(f"{where} is not spurbench's: no column {', '.join(missing)}")

    def require_some(self, split: str) -> None:
        if not any(record.source == split for record in self.records) and not self.damaged:
            raise SpurbenchError(f"split {split} of {self._dataset} is empty; build it again")

    def add(self, rows: Iterable[Any], split: str, where: str) -> None:
        for number, values in enumerate(rows):
            row = validated(_Row, values, f"{where}, row {number}")
            data, called = row.image.data, label(row.file_name)
            if row.source != split:
                raise SpurbenchError(
                    f"{where}, row {number}: source is {row.source} in split {split}; "
                    f"`spurbench verify {self._dataset}` says more"
                )
            digest = hashlib.sha256(data).hexdigest()
            if digest != row.image_sha256:
                raise SpurbenchError(
                    f"{where}, row {number}: {called} is not the image that was published, for its "
                    f"sha256 is another; `spurbench verify {self._dataset}` names every such image"
                )
            wrong = fault(data) if self._decode else None
            if wrong is not None:
                self.damaged.append(Damaged(path=called, reason=wrong))
                continue
            self.records.append(
                ImageRecord(
                    path=called,
                    class_index=row.class_index,
                    source=row.source,
                    sha256=digest,
                    read=partial(bytes, data),
                    class_name=row.class_name,
                    spurious_feature=row.spurious_feature,
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
            name=label(name),
            version=version,
            kind=kind,
            fingerprint=images_fingerprint(records),
        ),
    )

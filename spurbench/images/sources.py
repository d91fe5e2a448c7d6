"""Reading images: Spurious ImageNet folders, published datasets, positives."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.imagenet import imagenet_names, imagenet_wnids
from spurbench.core.text import label
from spurbench.images.decode import fault
from spurbench.images.published import MANIFEST, open_dataset, open_hub
from spurbench.images.records import SPLITS, Config, Damaged, ImageRecord, ImageSet, Source
from spurbench.recipe.classes import ClassRegistry, SpuriousClass

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
LAYOUT = "folders named like spurious_class_094_hummingbird_component_2 with images in them"


def open_images(
    data: str,
    split: Literal["real", "generated", "all"] = "all",
    *,
    config: Config = "default",
    decode: bool = True,
    only: Collection[int] | None = None,
) -> ImageSet:
    """Open images to measure classifiers on.

    Args:
        data: a folder in the official Spurious ImageNet layout (or one that holds it as
            ``images``), a folder as :func:`open_positives` takes it, a dataset that ``spurbench
            build`` made, or a hub dataset id. A ``classes.toml`` in a folder, as recipes have it,
            names its features.
        split: which images; a folder of photographs is all ``real``.
        config: of a dataset: all its images, or those that fool its whole panel and show no object.
        decode: decode every image once now, so that damaged ones are known and left out; False
            leaves it to the caller to meet them.
        only: of a folder, the classes that are wanted, by index; None: all that are there.

    Raises:
        SpurbenchError: if there is no such data, split or layout, or every image is damaged.
    """
    path = _path(data)
    splits = SPLITS if split == "all" else (split,)
    if path.is_dir():
        if (path / MANIFEST).is_file():
            return open_dataset(path, splits, config, decode)
        if list(path.glob("data/*.parquet")):
            raise SpurbenchError(
                f"{path} holds parquet files but no {MANIFEST}; it is no finished dataset "
                "of spurbench build; run the build again"
            )
        if config != "default":
            raise SpurbenchError(f"{path} is a folder of photographs, without config {config}")
        return _open_folder(path, split, decode, only)
    if path.exists():
        raise SpurbenchError(f"{path} is a file; --data takes a folder or a hub dataset id")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", data) and not data.startswith((".", "out/")):
        return open_hub(data, splits, config, decode)
    raise SpurbenchError(
        f"no folder at {path}; --data takes a folder or a hub dataset id owner/name"
    )


def open_positives(
    folder: Path, *, only: Collection[int] | None = None, decode: bool = True
) -> ImageSet:
    """Images that truly show classes, in ImageNet's validation layout.

    Args:
        folder: holds one folder per class, named by WordNet id (``n01833805``) or class index.
        only: the classes that are wanted, by index; None: all that are there.
        decode: see :func:`open_images`.

    Raises:
        SpurbenchError: if no such folder is in it, or every image of those wanted is damaged.
    """
    if not _path(str(folder)).is_dir():
        raise SpurbenchError(f"no folder at {folder}; --positives takes one in ImageNet's layout")
    classes = class_folders(folder)
    if not classes:
        raise SpurbenchError(
            f"{folder} holds no class folders; positives need ImageNet's layout, folders named by "
            "WordNet id (n01833805) or class index"
        )
    return _collect(folder, _wanted(classes, only, folder), decode, source="positive")


def class_folders(root: Path) -> dict[Path, int]:
    """The class folders in ImageNet's layout, named by WordNet id or class index, to its index."""
    index_of = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    classes = {}
    for entry in _folders(root):
        if entry.name in index_of:
            classes[entry] = index_of[entry.name]
        elif _is_number(entry.name) and int(entry.name) < len(index_of):
            classes[entry] = int(entry.name)
    return classes


def _wanted(
    classes: Mapping[Path, int], only: Collection[int] | None, root: Path
) -> Mapping[Path, int]:
    """The folders of wanted classes, of which there must be one."""
    if only is None:
        return classes
    wanted = {entry: index for entry, index in classes.items() if index in only}
    if not wanted:
        names = ", ".join(f"{index} ({imagenet_names()[index]})" for index in sorted(only)[:5])
        raise SpurbenchError(f"{root} holds no folder of a class that is to be built: {names}")
    return wanted


def _open_folder(path: Path, split: str, decode: bool, only: Collection[int] | None) -> ImageSet:
    if split == "generated":
        raise SpurbenchError(f"{path} is a folder of photographs: it has split real, not generated")
    for root in (path, path / "images"):
        classes = {
            entry: pair[0] for entry in _folders(root) if (pair := class_and_component(entry.name))
        }
        if classes:
            name = path.name if root == path else f"{path.name}/images"
            return _collect(root, _wanted(classes, only, root), decode, name=name)
    if classes := class_folders(path):
        # What these are meant to show instead of their classes is the user's word.
        return _collect(path, _wanted(classes, only, path), decode)
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
    root: Path,
    classes: Mapping[Path, int],
    decode: bool,
    *,
    source: Source = "real",
    name: str | None = None,
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
                    source=source,
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
    if not records and not damaged:
        raise SpurbenchError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return ImageSet.of(records, damaged, name=name or root.name, kind="folder", where=str(root))


def _named_pairs(root: Path) -> dict[int, SpuriousClass]:
    """The pairs by class index that a folder names, in a ``classes.toml`` as recipes have it."""
    file = root / "classes.toml"
    return ClassRegistry.read(file).by_index() if file.is_file() else {}


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """2.png before 10.png."""
    # Every second part is a number, for the pattern is in the split.
    parts = re.split(r"([0-9]+)", path.name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]

"""Reading images: Spurious ImageNet folders, built datasets, hub datasets, positives."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.evaluation.results import Damaged, DatasetInfo, Split
from spurbench.recipe.classes import imagenet_wnids

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
LAYOUT = "folders named like spurious_class_094_hummingbird_component_2 with images in them"


class DamagedImageError(SpurbenchError):
    """An image that can't be decoded in full."""


@dataclass(frozen=True)
class ImageRecord:
    """One image: what is known of it, and how to get its bytes.

    Attributes:
        path: relative path or row, to name it in messages and tables.
        class_index: ImageNet-1k index of the class it is measured for.
        source: real or generated.
        sha256: of the encoded bytes.
        read: returns the encoded bytes.
    """

    path: str
    class_index: int
    source: Split
    sha256: str
    read: Callable[[], bytes] = field(repr=False, compare=False)

    @classmethod
    def from_file(
        cls, path: Path, *, class_index: int, source: Split, name: str | None = None
    ) -> ImageRecord:
        """A record of a file, called ``name`` in messages."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(name or path.name, class_index, source, digest, path.read_bytes)


@dataclass(frozen=True)
class ImageSet:
    """Images, the damaged ones that were found and left out, and the identity of it all."""

    records: tuple[ImageRecord, ...]
    damaged: tuple[Damaged, ...]
    info: DatasetInfo


def open_images(
    data: str, split: Literal["real", "generated", "all"] = "all", *, decode: bool = True
) -> ImageSet:
    """Open images to measure classifiers on.

    Args:
        data: a folder in the official Spurious ImageNet layout (or one that holds it as
            ``images``), a dataset that ``spurbench build`` made, or a hub dataset id.
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


def decode_rgb(data: bytes) -> Image.Image:
    """Decode an encoded image to RGB, in full and upright.

    EXIF orientation is applied; transparency is laid on white; 16-bit and float greys are scaled to
    8 bits, not clipped; CMYK, palette and one-bit images are converted; of an animation the first
    frame counts.

    Raises:
        DamagedImageError: if the bytes are not an image, or end too early.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        # Pillow only warns of images up to twice its limit. Turning its warning into an error is no
        # way out: warning filters belong to the process, and this runs in threads.
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except UnidentifiedImageError:
        raise DamagedImageError("not an image") from None
    except Image.DecompressionBombError:
        raise DamagedImageError("too large to be a photograph (decompression bomb?)") from None
    except Exception as error:  # what decoders raise on junk has no common ancestor
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DamagedImageError(reason) from None
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        grey = np.asarray(image).astype(np.float64) / 65535 * 255
        return Image.fromarray(np.clip(grey.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.asarray(image).astype(np.float64)
        scale = 255 if grey.max() <= 1 else 1
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def images_fingerprint(images: Iterable[ImageRecord]) -> str:
    """Identity of a set of images: hex sha256 over their hashes, classes and splits, sorted."""
    lines = sorted(f"{image.sha256} {image.class_index} {image.source}" for image in images)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _fault(data: bytes) -> str | None:
    """Why an encoded image can't be decoded; None if it can."""
    try:
        decode_rgb(data)
    except DamagedImageError as error:
        return str(error)
    return None


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
    for folder, index in classes.items():
        for file in sorted(folder.iterdir(), key=_natural):
            if file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
                continue
            label = str(file.relative_to(root))
            reason = _fault(file.read_bytes()) if decode else None
            if reason is not None:
                damaged.append(Damaged(path=label, reason=reason))
                continue
            records.append(
                ImageRecord.from_file(file, class_index=index, source="real", name=label)
            )
    return _image_set(records, damaged, name=name or root.name, kind="folder", where=str(root))


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
                table = pq.read_table(file, columns=["image", "class_index", "source", "file_name"])
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
        columns = ["image", "class_index", "source", "file_name"]
        missing = [column for column in columns if column not in rows.column_names]
        if missing:
            raise SpurbenchError(
                f"dataset {name} is not spurbench's: no column {', '.join(missing)}"
            )
        _add_rows(rows.select_columns(columns), records, damaged, decode)
    version = str(loaded[wanted[0]].info.version or "") or None
    return _image_set(records, damaged, name=name, kind="hub", where=name, version=version)


def _add_rows(rows: Any, records: list[ImageRecord], damaged: list[Damaged], decode: bool) -> None:
    for row in rows:
        data: bytes = row["image"]["bytes"]
        reason = _fault(data) if decode else None
        if reason is not None:
            damaged.append(Damaged(path=row["file_name"], reason=reason))
            continue
        digest = hashlib.sha256(data).hexdigest()
        read = partial(bytes, data)
        records.append(
            ImageRecord(row["file_name"], row["class_index"], row["source"], digest, read)
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

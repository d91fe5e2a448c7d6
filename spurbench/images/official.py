"""The official Spurious ImageNet (Neuhaus et al., ICCV 2023): where it is, and fetching it."""

from __future__ import annotations

import logging
import os
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from spurbench.core import atomic
from spurbench.core.documents import Document, read_bytes, read_json, validated
from spurbench.core.download import discard, download
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import file_sha256, fingerprint
from spurbench.core.resources import builders
from spurbench.images import archive
from spurbench.images.sources import IMAGE_SUFFIXES, class_and_component
from spurbench.recipe.classes import ClassRegistry

log = logging.getLogger(__name__)

URL = "https://nc.mlcloud.uni-tuebingen.de/index.php/s/xBtTG9jnACJDxSg/download/images_100_classes.zip"
"""Where the authors' setup script (github.com/YanNeu/spurious_imagenet) takes it from."""

IMAGES = 75
"""Photographs of each class."""

LARGEST = 10 * 2**30
"""Bytes that the archive may have."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

SCHEMA: Final = "spurbench.fetched/1"


class Fetched(Document):
    """What was fetched, from where: the JSON beside the folder.

    Attributes:
        schema_version: of this document.
        url: of the archive.
        bytes: of the archive.
        sha256: of the archive.
        images: of the folder: :func:`fingerprint` of its files' hashes by path.
        date: when, in ISO 8601.
    """

    schema_version: Literal["spurbench.fetched/1"] = Field(default=SCHEMA, alias="schema")
    url: str
    bytes: int
    sha256: Sha256
    images: Sha256
    date: str


@dataclass(frozen=True)
class Place:
    """Where the photographs are, what is known of them, and whether they were there already."""

    folder: Path
    fetched: Fetched
    is_new: bool


def default_folder() -> Path:
    """Where the photographs go: ``spurious-imagenet`` in ``SPURBENCH_HOME``.

    That is by default the folder ``spurbench`` among the user's data (``XDG_DATA_HOME``,
    ``~/.local/share``; ``LOCALAPPDATA`` on Windows).
    """
    home = os.environ.get("SPURBENCH_HOME")
    if home:
        return Path(home).resolve() / "spurious-imagenet"
    shared = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME")
    data = Path(shared) if shared else Path.home() / ".local" / "share"
    return data.resolve() / "spurbench" / "spurious-imagenet"


def fetch(folder: Path | None = None, *, url: str = URL, sha256: str | None = None) -> Place:
    """Fetch the authors' archive and unpack it; what is there already is verified instead.

    The same call goes on after a cut or a kill. No sha256 of the archive is published, so the one
    that it has is recorded in a JSON beside the folder, and asked for again the next time.

    Args:
        folder: where the class folders go; None: :func:`default_folder`.
        url: of the archive.
        sha256: hex, that the archive must have; None: that of the time before, if there was one.

    Raises:
        SpurbenchError: if the archive can't be had, is another than the one expected, is hostile or
            is not of 100 folders of 75 images; if there is no room; or if the folder holds
            something else, or is not any more what was fetched.
    """
    folder = (default_folder() if folder is None else folder).resolve()
    if not folder.name:
        raise SpurbenchError(f"{folder} can't be a folder of photographs alone; name a new one")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise SpurbenchError(f"--sha256 {sha256[:80]} is not a sha256: 64 hexadecimal digits")
    earlier = _recorded(folder)
    packed = folder.with_name(f".{folder.name}.zip")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        verified = _verified(folder, earlier, sha256)
        discard(packed)  # which a fetch left that was killed in its last moment
        return Place(folder, verified, is_new=False)
    expected = sha256 or (earlier.sha256 if earlier else None)
    with atomic.folder(folder) as temporary:
        log.info("fetching %s", url)
        # The images are about as large as the archive, and for a while both are there.
        download(url, packed, limit=LARGEST, room=2)
        try:
            record = _unpacked(packed, temporary, url, expected)
        except SpurbenchError:
            discard(packed)  # else the next try would find it again
            raise
        atomic.write_json(_record(folder), record.model_dump(mode="json", by_alias=True))
    discard(packed)
    return Place(folder, record, is_new=True)


def fetched_folder() -> Path | None:
    """The default folder, if the photographs were fetched there."""
    folder = default_folder()
    return folder if folder.is_dir() and _record(folder).is_file() else None


def _record(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _recorded(folder: Path) -> Fetched | None:
    path = _record(folder)
    if not path.exists():
        return None
    try:
        return validated(Fetched, read_json(path), str(path))
    except SpurbenchError as error:
        raise SpurbenchError(f"{error}; delete {path} to fetch anew") from None


def _verified(folder: Path, record: Fetched | None, sha256: str | None) -> Fetched:
    if record is None:
        raise SpurbenchError(
            f"{folder} is there and nothing says that it was fetched; name another folder with --to"
        )
    if sha256 not in (None, record.sha256):
        raise SpurbenchError(
            f"{folder} was fetched with sha256 {record.sha256}, not {sha256}; delete it to fetch "
            "anew"
        )
    if _contents(folder) != record.images:
        raise SpurbenchError(
            f"{folder} is not any more what was fetched on {record.date}; delete it, and fetch anew"
        )
    return record


def _unpacked(packed: Path, folder: Path, url: str, expected: str | None) -> Fetched:
    digest = file_sha256(packed)
    if expected not in (None, digest):
        raise SpurbenchError(
            f"{url} has sha256 {digest}, not {expected} as expected; if its authors changed it, "
            f"--sha256 {digest} takes it"
        )
    pairs = builders()["sd15"] / "classes.toml"
    with archive.opened(packed) as opened:
        files = _images(opened, ClassRegistry.read(pairs), url)
        archive.unpack(opened, files, folder)
    # The pairs' names travel with the images, as open_images reads them.
    (folder / "classes.toml").write_bytes(read_bytes(pairs))
    return Fetched(
        url=url,
        bytes=packed.stat().st_size,
        sha256=digest,
        images=_contents(folder),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _images(opened: zipfile.ZipFile, pairs: ClassRegistry, url: str) -> dict[str, zipfile.ZipInfo]:
    """The archive's images by their new path, ``CLASS FOLDER/NAME``; whatever else it holds stays.

    Raises:
        SpurbenchError: if they are not those of the 100 pairs, 75 each.
    """
    found: dict[tuple[int, int], dict[str, zipfile.ZipInfo]] = defaultdict(dict)
    for entry in opened.infolist():
        *above, name = entry.filename.split("/")
        pair = class_and_component(above[-1]) if above else None
        if pair and not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
            path = f"{above[-1]}/{name}"
            if path in found[pair]:
                raise SpurbenchError(f"{url} is not Spurious ImageNet: it has two of {path}")
            found[pair][path] = entry
    wanted = {(pair.index, pair.component): pair.folder for pair in pairs}
    for key, folder in wanted.items():
        if len(found.get(key, ())) != IMAGES:
            raise SpurbenchError(
                f"{url} is not Spurious ImageNet: {len(found.get(key, ()))} images of {folder}, "
                f"where {IMAGES} should be"
            )
    if unknown := sorted(found.keys() - wanted.keys()):
        raise SpurbenchError(
            f"{url} is not Spurious ImageNet: it has images of class {unknown[0][0]}, component "
            f"{unknown[0][1]}, too"
        )
    return {path: entry for files in found.values() for path, entry in files.items()}


def _contents(folder: Path) -> str:
    files = (file for file in folder.rglob("*") if file.is_file())
    return fingerprint({file.relative_to(folder).as_posix(): file_sha256(file) for file in files})

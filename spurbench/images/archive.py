"""Images out of a zip archive from outside, which may be hostile."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.text import label, printable

ENTRIES = 50_000
"""Files and folders that an archive may hold."""

UNPACKED = 10 * 2**30
"""Bytes that all of them may come to."""

RATIO = 20
"""How many times the archive's own size that may be; photographs hardly shrink at all."""

_KINDS = {0, stat.S_IFREG, stat.S_IFDIR}
"""What an entry may be, by the mode that Unix archives record; 0: nothing is recorded."""


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip archive of which every entry is harmless: nothing is unpacked yet.

    Raises:
        SpurbenchError: if it is no whole zip archive, or holds what no archive of images does: a
            path out of its folder, a link, a name twice, an encrypted file, or far more than its
            size lets expect. What goes wrong in the block is said in the same way.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _require_harmless(archive, path)
            yield archive
    # What damaged archives end in has no common ancestor.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise SpurbenchError(f"{path} is no whole zip archive: {reason(error)}") from None


def unpack(archive: zipfile.ZipFile, files: Mapping[str, zipfile.ZipInfo], folder: Path) -> None:
    """Write ``files``, path below ``folder`` to entry of an :func:`opened` archive.

    Raises:
        SpurbenchError: if they need more room than there is.
    """
    needed, free = sum(f.file_size for f in files.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise SpurbenchError(
            f"{folder.parent} has {free / 1e6:,.1f} MB free, and the images need "
            f"{needed / 1e6:,.1f} MB; make room there, or name another folder"
        )
    for path, entry in tqdm(files.items(), "unpacking", unit="img", leave=False, disable=None):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        # In blocks: an entry may hold more than it says, and is cut off there.
        with archive.open(entry) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


def _require_harmless(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > ENTRIES:
        raise _refused(path, f"{len(entries)} entries, more than {ENTRIES}")
    if total > UNPACKED or total > RATIO * path.stat().st_size:
        raise _refused(path, f"{total / 1e6:,.1f} MB in {path.stat().st_size / 1e6:,.1f} MB")
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        wrong = _fault(entry)
        # As file systems see it that don't tell A from a.
        if wrong is None and name.rstrip("/").casefold() in seen:
            wrong = "is there twice"
        if wrong is not None:
            raise _refused(path, f"{label(name)[:200]}, which {wrong}")
        seen.add(name.rstrip("/").casefold())


def _fault(entry: zipfile.ZipInfo) -> str | None:
    """What is wrong with an entry; None for a plain file or folder below the archive's root."""
    # orig_filename: zipfile cuts the other at the first NUL, and turns what separates here to /.
    name = entry.orig_filename
    if printable(name) != name or "\\" in name or ":" in name:
        return "no system could write safely"
    parts = name.removesuffix("/").split("/")
    if {"", ".", ".."} & set(parts):
        return "leads out of its folder"
    if stat.S_IFMT(entry.external_attr >> 16) not in _KINDS:
        return "is a link or a device"
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an unusual way"
    return None


def _refused(path: Path, held: str) -> SpurbenchError:
    return SpurbenchError(f"{path} is refused, for it holds {held}")

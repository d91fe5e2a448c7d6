"""An archive in the layout of the official Spurious ImageNet, of tiny pictures."""

from __future__ import annotations

import io
import zipfile
from functools import cache

from PIL import Image

from spurbench.core.resources import builders
from spurbench.recipe.classes import ClassRegistry


def pairs() -> ClassRegistry:
    return ClassRegistry.read(builders()["sd15"] / "classes.toml")


@cache
def official_archive(images: int = 75) -> bytes:
    """100 folders of pictures, no two the same, as the authors might have packed them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images/README.txt", "not an image")
        for number, pair in enumerate(pairs()):
            archive.writestr(f"__MACOSX/images/{pair.folder}/._0.jpg", "not an image either")
            for i in range(images):
                archive.writestr(f"images/{pair.folder}/{i}.png", _picture(number, i))
    return buffer.getvalue()


def with_entries(archive: bytes, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    """The archive and some entries more."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as opened:
        for entry, content in entries:
            opened.writestr(entry, content)
    return buffer.getvalue()


def without(archive: bytes, name: str) -> bytes:
    """The archive without entries whose names hold ``name``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            if name not in entry.filename:
                new.writestr(entry, old.read(entry))
    return buffer.getvalue()


def _picture(number: int, i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (number, i, 7)).save(buffer, "PNG")
    return buffer.getvalue()

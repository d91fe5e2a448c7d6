"""Making a survey's folder: images that look alike from outside, links, pages without a server."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from spurbench.core import atomic
from spurbench.core.errors import SpurbenchError
from spurbench.images.decode import DamagedImageError, decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.images.sources import open_images
from spurbench.studies.survey import pages
from spurbench.studies.survey.design import (
    GAP,
    IMAGES,
    LINKS,
    PAGES,
    SCHEMA,
    Attention,
    Item,
    Survey,
    choose,
    links_csv,
    new_token,
    orders,
)

log = logging.getLogger(__name__)

LARGEST = 512
"""Side in pixels above which images are made smaller."""

FAILING = 0.34
"""A rater fails if more than a third of the pairs of grades are too far apart."""

PACKAGES = "packages"
"""With ``zipped``: a zip for each rater."""


@dataclass(frozen=True)
class SurveyRequest:
    """What to make a survey of.

    Attributes:
        data: as :func:`spurbench.images.sources.open_images` takes it; with both splits.
        output: a new folder.
        raters: how many links.
        images_per_class: even; half of them real.
        classes: ``all``, or names and ImageNet indices, by comma.
        repeats: images that each rater sees twice; None: :func:`default_repeats`.
        apart: stars that the two grades of one may be apart.
        contact: who asks, which raters are told.
        address: of the server, as raters reach it.
        seed: of which images are drawn; their names, and links, are random whatever it is.
        zipped: also write a zip for each rater, with all that they need without a server.

    Raises:
        SpurbenchError: if the number of images is odd.
    """

    data: str
    output: Path
    raters: int = 10
    images_per_class: int = 10
    classes: str = "all"
    repeats: int | None = None
    apart: int = 1
    contact: str = ""
    address: str = "http://127.0.0.1:8000"
    seed: int = 0
    zipped: bool = False

    def __post_init__(self) -> None:
        if self.images_per_class % 2 or self.images_per_class < 2:
            raise SpurbenchError(
                f"--images {self.images_per_class} is not even: half of them are real"
            )


def default_repeats(items: int) -> int:
    """One image in ten, but five where there is room for as many: fewer tell little of a rater."""
    return min(max(5, items // 10), items - min(GAP, items // 4))


def make(request: SurveyRequest) -> Survey:
    """Write the folder of a survey: design, links, images, and pages that need no server.

    Raises:
        SpurbenchError: if the folder is there already, for it may hold answers; or the dataset has
            too few images of a split, or one that can't be decoded.
    """
    if request.output.exists():
        raise SpurbenchError(f"{request.output} exists and may hold answers; name another --output")
    opened = open_images(request.data, decode=False)
    chosen = choose(opened.records, request.images_per_class, request.classes, request.seed)
    repeats = default_repeats(len(chosen)) if request.repeats is None else request.repeats
    shown = orders(len(chosen), request.raters, repeats, request.seed)
    pictures = [_decoded(record) for record in chosen]
    side = min(LARGEST, *(min(picture.size) for picture in pictures))
    # By random names, so that neither they nor the files' times tell the order of drawing.
    named = sorted(zip((new_token() for _ in chosen), chosen, pictures, strict=True), key=_name)
    survey = Survey(
        schema=SCHEMA,
        id=new_token(),
        dataset=opened.info,
        images_per_class=request.images_per_class,
        side=side,
        seed=request.seed,
        attention=Attention(repeats=repeats, apart=request.apart, failing=FAILING),
        contact=request.contact,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        items=tuple(_item(name, record) for name, record, _ in named),
        orders=shown,
    )
    tokens = [new_token() for _ in shown]
    with atomic.folder(request.output) as folder:
        survey.write(folder)
        atomic.write_text(folder / LINKS, links_csv(tokens, request.address))
        (folder / LINKS).chmod(0o600)
        images = {f"{name}.jpg": alike(picture, side) for name, _, picture in named}
        (folder / PAGES / IMAGES).mkdir(parents=True)
        for name, data in images.items():
            (folder / PAGES / IMAGES / name).write_bytes(data)
        for name, text in pages.static(survey, tokens).items():
            (folder / PAGES / name).write_text(text, encoding="utf-8")
        if request.zipped:
            _write_packages(folder, tokens, images)
    return survey


def alike(picture: Image.Image, side: int) -> bytes:
    """The middle square of an image, at one size and in one encoding, without metadata.

    Size, file type, JPEG tables or EXIF would tell a photograph from a generated image; what
    remains is what the pixels show.

    Args:
        picture: RGB.
        side: pixels.
    """
    square = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
    # The pixels alone: ``save`` would keep comments and colour profiles of ``picture``.
    bare = Image.fromarray(np.asarray(square))
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def _name(named: tuple[str, ImageRecord, Image.Image]) -> str:
    return named[0]


def _item(name: str, record: ImageRecord) -> Item:
    return Item(
        image=name,
        sha256=record.sha256,
        class_index=record.class_index,
        class_name=record.class_name,
        spurious_feature=record.spurious_feature,
        source="real" if record.source == "real" else "generated",
    )


def _decoded(record: ImageRecord) -> Image.Image:
    try:
        return decode_rgb(record.read())
    except DamagedImageError as error:
        raise SpurbenchError(f"{record.path} can't be decoded: {error}") from None


def _write_packages(folder: Path, tokens: Sequence[str], images: dict[str, bytes]) -> None:
    (folder / PACKAGES).mkdir()
    for rater, token in enumerate(tokens, 1):
        path = folder / PACKAGES / f"rater-{rater:03d}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(folder / PAGES / f"{token}.html", "survey/start.html")
            for name in pages.PARTS:
                archive.write(folder / PAGES / name, f"survey/{name}")
            for name, data in images.items():
                archive.writestr(f"survey/{IMAGES}/{name}", data)

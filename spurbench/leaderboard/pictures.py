"""Which images a page embeds: as many as it has room for, and none that somebody picked."""

from __future__ import annotations

import base64
import io
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from spurbench.core.errors import SpurbenchError
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord, Source
from spurbench.images.sources import open_images
from spurbench.leaderboard.answers import images_digest
from spurbench.leaderboard.boards import Board

log = logging.getLogger(__name__)

THUMBNAIL = 128
"""Longest side of an image, pixels; smaller images are embedded as they are."""

Pictures = Mapping[tuple[Source, str], Mapping[int, str]]
"""Data URIs by source, the digest of a class's images, and the place among them."""


def choose(
    data: Sequence[str], made: Sequence[Board], count: int, room: int
) -> dict[tuple[Source, str], dict[int, str]]:
    """The first images of every class, round by round while there is room: with each generated
    image its twin, then a real one.

    Args:
        data: datasets.
        made: boards; only images that they were measured on are embedded.
        count: rounds at most.
        room: bytes.

    Raises:
        SpurbenchError: if nothing was measured on the images of one of ``data``.
    """
    measured = {
        (source, answers.images)
        for board in made
        for row in board.rows
        for source, classes in row.answers.items()
        for answers in classes
    }
    groups: list[_Group] = []
    for name in data:
        own = list(_groups(name, measured))
        if not own:
            raise SpurbenchError(f"no classifier here was measured on the images of {name}")
        groups += own
    chosen: dict[tuple[Source, str], dict[int, str]] = defaultdict(dict)
    wanted = [
        (place, group) for place in range(count) for group in groups if place < len(group[0][1])
    ]
    for i, ((place, _), uris) in enumerate(zip(wanted, _embedded(wanted), strict=True)):
        room -= sum(map(len, uris.values())) + 16 * len(uris)
        if room < 0:
            log.warning(
                "the page has room for the first %d of %d images and pairs; the others show their "
                "answers alone",
                i,
                len(wanted),
            )
            break
        for key, uri in uris.items():
            chosen[key][place] = uri
    return dict(chosen)


def _embedded(
    wanted: Sequence[tuple[int, _Group]], ahead: int = 64
) -> Iterator[dict[tuple[Source, str], str]]:
    """The data URIs of the images at each place, made on all cores, so many ahead of the taker."""

    def uris(chosen: tuple[int, _Group]) -> dict[tuple[Source, str], str]:
        place, group = chosen
        return {key: _data_uri(records[place].read()) for key, records in group}

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(wanted), ahead):
            yield from pool.map(uris, wanted[start : start + ahead])


_Group = list[tuple[tuple[Source, str], list[ImageRecord]]]
"""Images embedded together, place by place: generated ones and their twins, or real ones."""


def _groups(data: str, measured: set[tuple[Source, str]]) -> Iterator[_Group]:
    """The classes of a dataset that were measured, in the order of their answers."""
    images = open_images(data, decode=False)
    by_class: dict[tuple[int, Source], list[ImageRecord]] = defaultdict(list)
    for record in images.records:
        by_class[record.class_index, record.source].append(record)
    twins = (
        {record.twin_of: record for record in images.controls.records} if images.controls else {}
    )
    for (_, source), records in sorted(by_class.items(), key=lambda item: item[0]):
        digest = images_digest([record.sha256 for record in records])
        if (source, digest) not in measured:
            continue
        records = sorted(records, key=lambda record: (record.replicate, record.sha256))
        group: _Group = [((source, digest), records)]
        others = [twins[record.sha256] for record in records if record.sha256 in twins]
        digest = images_digest([record.sha256 for record in others])
        # Place by place only where every image has its twin.
        if len(others) == len(records) and ("control", digest) in measured:
            group.append((("control", digest), others))
        yield group


def _data_uri(encoded: bytes) -> str:
    image = decode_rgb(encoded)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=75, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"

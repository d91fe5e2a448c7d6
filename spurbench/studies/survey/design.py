"""What a survey shows to whom: the images, each rater's order, and what is asked of attention.

Pure functions of a seed. The folder of a survey holds the design as ``survey.json`` and the raters'
links apart from it as ``links.csv``, so that the first can be published without the second.
"""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from spurbench.core import atomic
from spurbench.core.documents import Document, read_json, read_text, validated
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import derive_seed
from spurbench.images.records import SPLITS, DatasetInfo, ImageRecord, Split

DESIGN, LINKS, PAGES = "survey.json", "links.csv", "static"
"""What the folder of a survey holds; ``static`` is all that raters may see."""

IMAGES = "images"
"""The folder of images in ``static``."""

SCHEMA: Literal["spurbench.survey/1"] = "spurbench.survey/1"

GRADES = (1, 2, 3, 4, 5)
"""Stars, from not natural at all to completely natural."""

GAP = 10
"""Other images between an image and its repetition, or a quarter of all where they are fewer."""

Grade = Annotated[int, Field(strict=True, ge=GRADES[0], le=GRADES[-1])]

Token = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Item(Document):
    """One image of a survey."""

    image: Token = Field(description="random name, which says nothing of the image")
    sha256: str = Field(description="of the dataset's image that it was made of")
    class_index: int
    class_name: str
    spurious_feature: str | None
    source: Split


class Attention(Document):
    """When a rater fails the attention checks, declared before anyone has answered."""

    repeats: int = Field(ge=0, description="images that each rater sees twice, drawn for each")
    apart: int = Field(ge=0, le=4, description="stars that the two grades of one may be apart")
    failing: float = Field(
        ge=0, lt=1, description="a rater fails if a larger share of the pairs is further apart"
    )


class Survey(Document):
    """The design of a survey: all that is known before anyone has answered."""

    schema_version: Literal["spurbench.survey/1"] = Field(alias="schema")
    id: Token = Field(description="random; answers name it")
    dataset: DatasetInfo
    images_per_class: int = Field(ge=2, description="half of them real")
    side: int = Field(ge=1, description="pixels of the square images")
    seed: int
    attention: Attention
    contact: str = Field(description="who asks, which raters are told")
    created: str = Field(description="when, in ISO 8601")
    items: tuple[Item, ...] = Field(min_length=1)
    orders: tuple[tuple[int, ...], ...] = Field(
        min_length=1, description="of each rater, the items' numbers; a second one is a repetition"
    )

    @model_validator(mode="after")
    def _orders_are_of_items(self) -> Survey:
        everything = set(range(len(self.items)))
        for order in self.orders:
            if set(order) != everything or len(order) - len(everything) > len(everything):
                raise ValueError("an order does not hold every item once or twice")
        return self

    @classmethod
    def read(cls, folder: Path) -> Survey:
        """The design in a survey's folder.

        Raises:
            SpurbenchError: if there is none, or it is damaged.
        """
        path = folder / DESIGN
        try:
            return validated(cls, read_json(path), str(path))
        except FileNotFoundError:
            raise SpurbenchError(
                f"{folder} is no survey: no {DESIGN} in it; `spurbench survey make` makes one"
            ) from None

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        atomic.write_json(folder / DESIGN, self.model_dump(mode="json", by_alias=True))


def choose(
    records: Sequence[ImageRecord], images_per_class: int, classes: str, seed: int
) -> list[ImageRecord]:
    """Draw the images of a survey: nobody picks them.

    Args:
        records: of both splits.
        images_per_class: even; half of them real.
        classes: ``all``, or names and ImageNet indices, by comma.
        seed: of the draw.

    Returns:
        By class and split; a class with several features is one.

    Raises:
        SpurbenchError: if a class is not there, or has too few images.
    """
    groups: dict[tuple[int, str], list[ImageRecord]] = {}
    for record in sorted(records, key=lambda record: record.sha256):
        groups.setdefault((record.class_index, record.source), []).append(record)
    half = images_per_class // 2
    chosen = []
    for index in _classes(records, classes):
        for split in SPLITS:
            group = groups.get((index, split), [])
            if len(group) < half:
                name = next(r.class_name for r in records if r.class_index == index)
                raise SpurbenchError(
                    f"class {index} ({name}) has {len(group)} {split} images, and "
                    f"--images {images_per_class} needs {half}; ask for fewer, or leave the class "
                    "out with --classes"
                )
            rng = np.random.default_rng(derive_seed(seed, "survey", index, split))
            chosen += [group[i] for i in rng.choice(len(group), half, replace=False)]
    return chosen


def _classes(records: Sequence[ImageRecord], wanted: str) -> list[int]:
    names = {record.class_index: record.class_name for record in records}
    if wanted == "all":
        return sorted(names)
    known = {text: i for i, name in names.items() for text in (str(i), name)}
    asked = [part.strip() for part in wanted.split(",") if part.strip()]
    for part in asked:
        if part not in known:
            raise SpurbenchError(
                f"no class {part!r} in the dataset; it has {', '.join(names.values())}"
            )
    if not asked:
        raise SpurbenchError("--classes names no class")
    return sorted({known[part] for part in asked})


def order(items: int, repeats: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One rater's order: every item once, and some of the early ones again later.

    Args:
        items: how many there are.
        repeats: of them to be shown twice; at least :data:`GAP` others, or a quarter of all, come
            in between.
        rng: whence it is drawn.

    Raises:
        SpurbenchError: if so many can't be repeated.
    """
    gap = min(GAP, items // 4)
    if repeats > items - gap:
        raise SpurbenchError(
            f"{repeats} of {items} images can't be shown again, with {gap} others in between; "
            f"--repeats {items - gap} is the most"
        )
    once = rng.permutation(items)
    placed = [(float(place), int(item)) for place, item in enumerate(once)]
    for place in rng.choice(items - gap, repeats, replace=False):
        # After the other at ``place + gap`` or a later one.
        later = rng.integers(place + gap, items)
        placed.append((later + rng.uniform(0.1, 0.9), int(once[place])))
    return tuple(item for _, item in sorted(placed))


def orders(items: int, raters: int, repeats: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """An :func:`order` for each rater, drawn independently."""
    seeds = (derive_seed(seed, "order", rater) for rater in range(raters))
    return tuple(order(items, repeats, np.random.default_rng(each)) for each in seeds)


def new_token() -> str:
    """A name of 128 random bits.

    In hexadecimal: mail programs cut off the punctuation that base64 may end a link with.
    """
    return secrets.token_hex(16)


def links_csv(tokens: Sequence[str], address: str) -> str:
    """The raters' links, for a mail merge: ``rater``, from 1 on, ``token``, ``link``, ``page``.

    Args:
        tokens: of each rater.
        address: of the server, as raters reach it.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["rater", "token", "link", "page"])
    for rater, token in enumerate(tokens, 1):
        link = f"{address.rstrip('/')}/r/{token}"
        writer.writerow([rater, token, link, f"{PAGES}/{token}.html"])
    return buffer.getvalue()


class _Link(Document):
    rater: int
    token: Token
    link: str
    page: str


def read_tokens(folder: Path, survey: Survey) -> dict[str, int]:
    """The number of the rater, from 0 on, that each token stands for.

    Raises:
        SpurbenchError: if ``links.csv`` is not there, or is not of this survey.
    """
    path = folder / LINKS
    try:
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(read_text(path))))
    except FileNotFoundError:
        raise SpurbenchError(f"{path} is not there: nobody knows whose answers are whose") from None
    links = [validated(_Link, row, str(path)) for row in rows]
    tokens = {link.token: link.rater - 1 for link in links}
    if sorted(tokens.values()) != list(range(len(survey.orders))):
        raise SpurbenchError(
            f"{path} has other raters than {DESIGN}; put back the one that was made with it"
        )
    return tokens

"""Which images to measure on when nobody names any: what is at hand."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError
from spurbench.images.official import fetched_folder
from spurbench.images.published import MANIFEST
from spurbench.images.records import Config

log = logging.getLogger(__name__)

_Age = tuple[tuple[int, ...], str]

BUILT = Path("out")
"""Where ``spurbench build`` puts datasets, from the current folder."""


@dataclass(frozen=True)
class AtHand:
    """Images that are at hand.

    Attributes:
        data: as :func:`spurbench.images.sources.open_images` takes it.
        why: how they come to be, in words; nothing where they were asked for.
    """

    data: str
    why: str = ""


class _Built(Document):
    """What is read of a dataset's manifest, to find the newest."""

    model_config = ConfigDict(extra="ignore")

    schema_version: Literal["spurbench.dataset/2"] = Field(alias="schema")
    name: str
    version: str = Field(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9}){2}$")
    created: str = Field(default="", description="when, in ISO 8601")

    @property
    def age(self) -> _Age:
        """Grows from version to version, and of one version from build to build."""
        return tuple(int(part) for part in self.version.split(".")), self.created


def at_hand(
    split: Literal["real", "generated", "all"] = "all", config: Config = "default"
) -> list[AtHand]:
    """The images to measure on where none are named.

    The first that there is of: what ``SPURBENCH_DATA`` names; the official Spurious ImageNet, where
    ``spurbench fetch`` put it, unless ``split`` or ``config`` ask for what a dataset alone has; the
    newest version of each dataset in ``out``.

    Raises:
        SpurbenchError: if there is none; it says how to get some.
    """
    if named := os.environ.get("SPURBENCH_DATA"):
        return [AtHand(named, "named by SPURBENCH_DATA")]
    folder = fetched_folder()
    if folder is not None and split != "generated" and config == "default":
        return [AtHand(str(folder), "the official Spurious ImageNet, as it was fetched")]
    newest: dict[str, tuple[_Age, Path]] = {}
    for path in sorted(BUILT.glob(f"*/{MANIFEST}")):
        try:
            built = validated(_Built, read_json(path), MANIFEST)
            found = built.age, path.parent
        except SpurbenchError as error:
            log.warning("%s is left out: %s", path.parent, error)
            continue
        newest[built.name] = max(found, newest.get(built.name, found))
    if not newest:
        raise SpurbenchError(
            "no images at hand; get the photographs with `spurbench fetch spurious-imagenet`, make "
            "some with `spurbench build --classes all`, or name what you have with --data"
        )
    return [
        AtHand(str(path), f"the newest {name} in {BUILT}, version {'.'.join(map(str, version))}")
        for name, ((version, _), path) in sorted(newest.items())
    ]


def one_at_hand() -> AtHand:
    """As :func:`at_hand`, where there is only one answer.

    Raises:
        SpurbenchError: if there is none, or several datasets are.
    """
    found = at_hand()
    if len(found) > 1:
        names = ", ".join(images.data for images in found)
        raise SpurbenchError(f"several datasets are at hand: {names}; name one of them as data")
    return found[0]

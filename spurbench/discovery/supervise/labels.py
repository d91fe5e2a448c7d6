"""What people say of components, in SQLite, and how far they agree."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from spurbench.core.documents import Document, Share
from spurbench.core.errors import SpurbenchError
from spurbench.recipe.classes import Line

FILE = "labels.sqlite"
"""In a discovery's folder."""

Said = Literal["yes", "no", "unsure"]
VERDICTS: tuple[Said, ...] = ("yes", "no", "unsure")

Person = Annotated[Line, Field(min_length=1, max_length=60)]


class Verdict(Document):
    """Whether a person calls a component spurious.

    Attributes:
        person: who says so.
        index: of the class.
        component: its number.
        verdict: whether it is a feature that is not the class.
        feature: what it shows, in words: red flower.
        noun: the generic kind of that, for prompts: flower.
    """

    person: Person
    index: int = Field(ge=0, le=999)
    component: int = Field(ge=1)
    verdict: Said
    feature: Line = Field(default="", max_length=200)
    noun: Line = Field(default="", max_length=60)


class Box(Document):
    """A rectangle in a picture, in shares of its width and height."""

    left: Share
    top: Share
    right: Share
    bottom: Share

    @model_validator(mode="after")
    def _has_an_inside(self) -> Box:
        if self.left >= self.right or self.top >= self.bottom:
            raise ValueError("a box ends where it begins, or before")
        return self


class Mark(Document):
    """Where a person sees the class's object in an image.

    Attributes:
        person: who does.
        index: of the class.
        sha256: of the image.
        boxes: around the object; none: it is not there. None: nothing is said.
    """

    person: Person
    index: int = Field(ge=0, le=999)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    boxes: tuple[Box, ...] | None = Field(max_length=50)


@dataclass(frozen=True)
class Agreement:
    """How far two people agree on the components that both labelled.

    Attributes:
        people: the two.
        components: that both labelled.
        same: share of those with the same verdict.
        kappa: Cohen's (1960), the agreement beyond chance; None where chance alone would make them
            agree, for both only ever gave one and the same verdict.
    """

    people: tuple[str, str]
    components: int
    same: float
    kappa: float | None


class Labels:
    """The labels of a discovery; several processes may read and write them."""

    def __init__(self, file: Path) -> None:
        """Open or make a file.

        Raises:
            SpurbenchError: if it can't be written, or is no such database.
        """
        self._file = file
        with self._opened() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS verdicts (person TEXT, class INTEGER, "
                "component INTEGER, verdict TEXT, feature TEXT, noun TEXT, "
                "PRIMARY KEY (person, class, component))"
            )
            database.execute(
                "CREATE TABLE IF NOT EXISTS marks (person TEXT, class INTEGER, sha256 TEXT, "
                "boxes TEXT, PRIMARY KEY (person, class, sha256))"
            )

    def say(self, verdict: Verdict) -> None:
        """Keep a verdict in place of the person's earlier one."""
        with self._opened() as database:
            database.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)",
                tuple(verdict.model_dump().values()),
            )

    def mark(self, mark: Mark) -> None:
        """Keep a mark in place of the person's earlier one; without boxes' None: forget that."""
        key = (mark.person, mark.index, mark.sha256)
        with self._opened() as database:
            if mark.boxes is None:
                database.execute(
                    "DELETE FROM marks WHERE person = ? AND class = ? AND sha256 = ?", key
                )
            else:
                boxes = json.dumps([box.model_dump() for box in mark.boxes])
                database.execute("INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", (*key, boxes))

    def verdicts(self) -> list[Verdict]:
        """All of them, by person, class and component."""
        with self._opened() as database:
            rows = database.execute(
                "SELECT person, class, component, verdict, feature, noun FROM verdicts "
                "ORDER BY person, class, component"
            )
            return [
                Verdict(person=p, index=i, component=c, verdict=v, feature=f, noun=n)
                for p, i, c, v, f, n in rows
            ]

    def marks(self) -> list[Mark]:
        """All of them, by person, class and image."""
        with self._opened() as database:
            rows = database.execute(
                "SELECT person, class, sha256, boxes FROM marks ORDER BY person, class, sha256"
            )
            return [
                Mark(person=p, index=i, sha256=s, boxes=tuple(json.loads(boxes)))
                for p, i, s, boxes in rows
            ]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A transaction: whole or not at all."""
        try:
            with closing(sqlite3.connect(self._file, timeout=10)) as database, database:
                yield database
        except sqlite3.Error as error:
            raise SpurbenchError(f"labels in {self._file} can't be kept: {error}") from None


def agreements(verdicts: Sequence[Verdict]) -> list[Agreement]:
    """Those of each two people who labelled a component in common, by name."""
    of: dict[str, dict[tuple[int, int], str]] = {}
    for verdict in verdicts:
        of.setdefault(verdict.person, {})[verdict.index, verdict.component] = verdict.verdict
    found = []
    for one, other in combinations(sorted(of), 2):
        common = sorted(of[one].keys() & of[other].keys())
        if common:
            pairs = [(of[one][key], of[other][key]) for key in common]
            same = sum(a == b for a, b in pairs) / len(pairs)
            found.append(Agreement((one, other), len(pairs), same, cohen_kappa(pairs)))
    return found


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa (1960) of two people's verdicts; None where chance agrees always."""
    count = len(pairs)
    observed = sum(a == b for a, b in pairs) / count
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    chance = sum(first.count(v) * second.count(v) for v in set(first)) / count**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def spurious_by_all(verdicts: Sequence[Verdict]) -> dict[tuple[int, int], list[Verdict]]:
    """The components, by class and number, that everyone who labelled them calls spurious."""
    by_component: dict[tuple[int, int], list[Verdict]] = {}
    for verdict in verdicts:
        by_component.setdefault((verdict.index, verdict.component), []).append(verdict)
    return {
        key: said
        for key, said in sorted(by_component.items())
        if all(verdict.verdict == "yes" for verdict in said)
    }

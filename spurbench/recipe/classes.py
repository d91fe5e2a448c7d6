"""The registry of (class, spurious feature) pairs."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, overload

from pydantic import AfterValidator, Field

from spurbench.core.documents import Document, read_toml, validated
from spurbench.core.errors import SpurbenchError


def _one_line(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise ValueError(f"holds {character!r}; one line without control characters is needed")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""Text that may stand in a message, a prompt or a path: no line ends, no control characters."""


class SpuriousClass(Document):
    """One (class, feature) pair: the feature is not the class but makes classifiers answer it."""

    index: int = Field(ge=0, le=999, description="ImageNet-1k class index")
    wnid: str = Field(pattern=r"^n\d{8}$", description="WordNet id of the class")
    # Names are parts of file names, which end at 255 bytes.
    name: Line = Field(min_length=1, max_length=100)
    spurious_feature: Line = Field(
        min_length=1, max_length=200, description="what the images show instead"
    )
    component: int = Field(
        ge=1, le=9999, description="neural PCA component, 1-based (Neuhaus et al. 2023)"
    )
    noun: Line = Field(
        min_length=1, max_length=60, description='generic kind in "a photo of a [V] NOUN"'
    )
    noun_reason: Line | None = Field(
        default=None, max_length=300, description="why this noun, where it is in doubt"
    )
    object_query: Line | None = Field(
        default=None,
        max_length=100,
        description='what a detector by text looks for after "a photo of"; none: the name',
    )
    feature_query: Line | None = Field(
        default=None, max_length=100, description="the same for the feature; none: spurious_feature"
    )
    kappa: float | None = Field(
        default=None, ge=0, le=1e6, allow_inf_nan=False, description="SFSL weight of this class"
    )
    paper: bool = Field(default=False, description="one of the six classes of arXiv 2402.08200")

    @property
    def slug(self) -> str:
        """A file name for the class, unique by its index: ``094_hummingbird``."""
        return f"{self.index:03d}_{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}"

    @property
    def prior_subject(self) -> str:
        """The folder of the prior that classes of one noun share: ``prior/flower``."""
        return "prior/" + re.sub(r"[^\w -]", "-", self.noun)

    @property
    def folder(self) -> str:
        """The class's folder in the official Spurious ImageNet layout."""
        return f"spurious_class_{self.slug}_component_{self.component}"


class ClassRegistry(Sequence[SpuriousClass]):
    """The pairs of one dataset, in the order of their class indices."""

    def __init__(self, classes: Sequence[SpuriousClass]) -> None:
        for field, keys in (
            ("index", [c.index for c in classes]),
            ("name", [_key(c.name) for c in classes]),
        ):
            twice = [key for key, count in Counter(keys).items() if count > 1]
            if twice:
                raise SpurbenchError(f"class registry lists {field} {twice[0]!r} twice; keep one")
        self._classes = tuple(sorted(classes, key=lambda c: c.index))

    @classmethod
    def read(cls, path: Path) -> ClassRegistry:
        """Read a ``classes.toml``: an array ``[[classes]]`` of :class:`SpuriousClass`.

        Raises:
            SpurbenchError: if the file is missing, not TOML or without classes, or an entry is
                wrong or repeated.
        """
        try:
            entries = read_toml(path).get("classes")
        except FileNotFoundError:
            raise SpurbenchError(f"no class registry at {path}; a recipe needs one") from None
        if not isinstance(entries, list) or not entries:
            raise SpurbenchError(f"{path} lists no classes; each is a table [[classes]]")
        classes = [
            validated(SpuriousClass, entry, f"{path}, class {position}", SpuriousClass.model_fields)
            for position, entry in enumerate(entries, start=1)
        ]
        try:
            return cls(classes)
        except SpurbenchError as error:
            raise SpurbenchError(f"{path}: {error}") from None

    @overload
    def __getitem__(self, position: int) -> SpuriousClass: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[SpuriousClass, ...]: ...
    def __getitem__(self, position: int | slice) -> SpuriousClass | tuple[SpuriousClass, ...]:
        return self._classes[position]

    def __len__(self) -> int:
        return len(self._classes)

    def __iter__(self) -> Iterator[SpuriousClass]:
        return iter(self._classes)

    def by_index(self) -> dict[int, SpuriousClass]:
        """The pairs by ImageNet-1k class index."""
        return {c.index: c for c in self._classes}

    def after(self, spurious_class: SpuriousClass) -> SpuriousClass:
        """The next class by index; after the last one the first.

        Raises:
            SpurbenchError: if there is no other.
        """
        if len(self._classes) < 2:
            raise SpurbenchError(
                f"{spurious_class.name} is the only class of classes.toml; sfsl.weights=other "
                "needs another, take class or ones"
            )
        following = self._classes.index(spurious_class) + 1
        return self._classes[following % len(self._classes)]

    def select(self, wanted: str) -> tuple[SpuriousClass, ...]:
        """The pairs that a ``--classes`` value names.

        Args:
            wanted: ``all``, ``paper``, or class names and indices separated by commas. Case,
                ``_`` and ``-`` don't matter in names.

        Raises:
            SpurbenchError: for an unknown class (with the nearest names) or an empty selection.
        """
        if wanted == "all":
            return self._classes
        if wanted == "paper":
            of_paper = tuple(c for c in self._classes if c.paper)
            if not of_paper:
                raise SpurbenchError("no class here is of the paper's six; try --classes all")
            return of_paper
        by_index = self.by_index()
        names = {c.index: c.name for c in self._classes}
        named = choose(wanted, names, "`spurbench classes` lists them")
        return tuple(by_index[index] for index in named)


def choose(wanted: str, names: Mapping[int, str], listed: str) -> list[int]:
    """The class indices that a ``--classes`` value names, in order.

    Args:
        wanted: class names and indices separated by commas. Case, ``_`` and ``-`` don't matter in
            names.
        names: of the classes that there are, by index.
        listed: where they are listed, for messages.

    Raises:
        SpurbenchError: for an unknown class (with the nearest names) or an empty selection.
    """
    by_key = {_key(name): index for index, name in names.items()}
    by_key |= {str(index): index for index in names}
    chosen = set()
    for item in filter(None, (part.strip() for part in wanted.split(","))):
        number = item.isascii() and item.isdecimal()
        key = (item.lstrip("0") or "0") if number else _key(item)
        if key not in by_key:
            near = difflib.get_close_matches(key, by_key, n=3)
            hint = f"nearest: {', '.join(near)}" if near else listed
            raise SpurbenchError(f"unknown class {item!r} in --classes; {hint}")
        chosen.add(by_key[key])
    if not chosen:
        raise SpurbenchError("--classes names no class; try all, or hummingbird,koala")
    return sorted(chosen)


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().lower())

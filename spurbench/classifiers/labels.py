"""The labels of a classifier's own outputs, read as ImageNet's classes."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from spurbench.core.documents import read_json, read_text
from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_lemmas, imagenet_names, imagenet_wnids

log = logging.getLogger(__name__)


class UnknownClassError(SpurbenchError):
    """A classifier's outputs lack a class that it is asked about."""


SHOWN = 10
"""Labels that a message lists; the rest it counts."""


def read_labels(path: Path) -> tuple[str | int, ...]:
    """The labels of a classifier's outputs, in their order.

    Args:
        path: a text file with a label a line; or JSON (``.json``): a list, a table from the number
            of an output to its label, or from its label to the number. A label that is a list, as
            in Keras's ``imagenet_class_index.json``, is its first entry.

    Returns:
        Labels as :func:`wnids_of` takes them; digits alone are an index of ImageNet-1k.

    Raises:
        SpurbenchError: if there is no such file, or an output has no label.
    """
    try:
        found = (
            _of_json(read_json(path))
            if path.suffix == ".json"
            else [line.strip() for line in read_text(path).strip("\n").split("\n")]
        )
    except FileNotFoundError:
        raise SpurbenchError(f"no labels at {path}") from None
    labels = [_label(entry) for entry in found or ()]
    if not labels or None in labels:
        where = f"output {labels.index(None)} has none" if labels else "there are none"
        raise SpurbenchError(
            f"{path} is no list of labels: {where}; give each output one, a line each in a text "
            "file, or a JSON list or table"
        )
    return tuple(label for label in labels if label is not None)


def _of_json(value: Any) -> list[Any] | None:
    """Labels by output; None if it is neither a list nor a table."""
    if not isinstance(value, Mapping):
        return value if isinstance(value, list) else None
    if not all(key.isdecimal() for key in value):
        value = {str(number): label for label, number in value.items()}
    return [value.get(str(i)) for i in range(len(value))]


def _label(entry: Any) -> str | int | None:
    if isinstance(entry, list) and entry:
        entry = entry[0]
    if isinstance(entry, str) and entry.strip():
        return int(entry) if re.fullmatch(r"[0-9]{1,4}", entry.strip()) else entry.strip()
    return entry if type(entry) is int else None


def wnids_of(labels: Sequence[str | int], classifier: str) -> tuple[str, ...]:
    """The WordNet id that each label stands for.

    Args:
        labels: each a WordNet id, an ImageNet-1k index, or a name: as
            :func:`~spurbench.core.imagenet.imagenet_names` has it, or one or more of WordNet's
            names for the class, separated by commas, where case and underscores don't matter. A
            name that several classes have (crane) is that of the class in whose place it stands,
            among 1,000, or of none.
        classifier: what to call it in messages.

    Returns:
        WordNet ids; a label that stands for no class of ImageNet's stays as it is, which is said.

    Raises:
        SpurbenchError: if no label is a class of ImageNet-1k, or two are the same.
    """
    whole = len(labels) == len(imagenet_wnids())
    found = [_wnid(label, i if whole else None) for i, label in enumerate(labels)]
    known = set(imagenet_wnids())
    if not known & set(found):
        some = ", ".join(str(label) for label in labels[:5])
        raise SpurbenchError(
            f"no label of {classifier}'s {len(labels)} outputs is a class of ImageNet-1k (they "
            f"begin {some}); labels are WordNet ids, ImageNet's names or indices"
        )
    strange = [str(label) for label, wnid in zip(labels, found, strict=True) if wnid is None]
    if strange:
        log.warning(
            "%s: %d of %d labels are no class of ImageNet's: %s",
            classifier,
            len(strange),
            len(labels),
            ", ".join(strange[:SHOWN]) + (", ..." if len(strange) > SHOWN else ""),
        )
    wnids = tuple(wnid or str(label) for label, wnid in zip(labels, found, strict=True))
    twice = [wnid for wnid, count in Counter(wnids).items() if count > 1]
    if twice:
        raise SpurbenchError(
            f"{classifier} has two outputs for {twice[0]}; give each its own label"
        )
    return wnids


def _wnid(label: str | int, place: int | None) -> str | None:
    wnids = imagenet_wnids()
    if not isinstance(label, str):
        return wnids[label] if 0 <= label < len(wnids) else None
    if re.fullmatch(r"n[0-9]{8}", label):
        return label
    names = imagenet_names()
    if label in names:
        return wnids[names.index(label)]
    called = [_by_name()[_plain(name)] for name in label.split(",") if _plain(name) in _by_name()]
    meant = set.intersection(*called) if called else set()
    if place in meant:
        return wnids[place]
    return wnids[meant.pop()] if len(meant) == 1 else None


@cache
def _by_name() -> dict[str, set[int]]:
    """The classes that have a name, in any spelling."""
    classes = defaultdict[str, set[int]](set)
    for i, lemmas in enumerate(imagenet_lemmas()):
        for lemma in lemmas:
            classes[_plain(lemma)].add(i)
    return dict(classes)


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()

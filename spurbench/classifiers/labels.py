"""The labels of a classifier's own outputs, read as ImageNet's classes."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from spurbench.core.errors import SpurbenchError
from spurbench.core.imagenet import imagenet_lemmas, imagenet_names, imagenet_wnids

log = logging.getLogger(__name__)


class UnknownClassError(SpurbenchError):
    """A classifier's outputs lack a class that it is asked about."""


def wnids_of(labels: Sequence[str | int], classifier: str) -> tuple[str, ...]:
    """The WordNet id that each label stands for.

    Args:
        labels: each a WordNet id, an ImageNet-1k index, or a name: as
            :func:`~spurbench.core.imagenet.imagenet_names` has it, or any of WordNet's names for
            the class that no other class has, where case and underscores don't matter.
        classifier: what to call it in messages.

    Returns:
        WordNet ids; a label that stands for no class of ImageNet's stays as it is, which is said.

    Raises:
        SpurbenchError: if no label is a class of ImageNet-1k, or two are the same.
    """
    found = [_wnid(label) for label in labels]
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
            ", ".join(strange),
        )
    wnids = tuple(wnid or str(label) for label, wnid in zip(labels, found, strict=True))
    twice = [wnid for wnid, count in Counter(wnids).items() if count > 1]
    if twice:
        raise SpurbenchError(
            f"{classifier} has two outputs for {twice[0]}; give each its own label"
        )
    return wnids


def _wnid(label: str | int) -> str | None:
    if not isinstance(label, str):
        wnids = imagenet_wnids()
        return wnids[label] if 0 <= label < len(wnids) else None
    if re.fullmatch(r"n[0-9]{8}", label):
        return label
    names = imagenet_names()
    return imagenet_wnids()[names.index(label)] if label in names else _by_name().get(_plain(label))


@cache
def _by_name() -> dict[str, str]:
    """Every name that only one class has, in any spelling."""
    pairs = [
        (name, wnid)
        for wnid, lemmas in zip(imagenet_wnids(), imagenet_lemmas(), strict=True)
        for name in {_plain(lemma) for lemma in lemmas}
    ]
    counts = Counter(name for name, _ in pairs)
    return {name: wnid for name, wnid in pairs if counts[name] == 1}


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()

"""ImageNet's classes: WordNet ids and names, by the column of a classifier's head."""

from __future__ import annotations

from collections import Counter
from functools import cache


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1,000 WordNet ids of ImageNet-1k in class-index order (from timm's tables)."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1,000 ImageNet-1k class names in class-index order, made unique.

    The first lemma of timm's table; the two pairs of classes that share one (crane, maillot) carry
    their WordNet id as well.
    """
    from timm.data import ImageNetInfo

    lemmas = [d.split(",")[0] for d in ImageNetInfo("imagenet-1k").label_descriptions()]
    counts = Counter(lemmas)
    return tuple(
        f"{lemma} ({wnid})" if counts[lemma] > 1 else lemma
        for lemma, wnid in zip(lemmas, imagenet_wnids(), strict=True)
    )


@cache
def head_wnids(head: str) -> tuple[str, ...]:
    """WordNet ids of a head's columns in order, from timm's tables."""
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(head).label_names())

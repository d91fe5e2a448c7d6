"""ImageNet's classes: WordNet ids and names, by the column of a classifier's head.

The tables are timm's files, read without importing timm: that would take seconds.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from functools import cache
from pathlib import Path

HEADS = {1000: "imagenet-1k", 11821: "imagenet-12k", 21841: "imagenet-22k", 21843: "imagenet-21k"}
"""Widths of ImageNet heads, and timm's names of their tables."""

_FILES = {
    "imagenet-1k": "imagenet_synsets.txt",
    "imagenet-12k": "imagenet12k_synsets.txt",
    "imagenet-22k": "imagenet22k_synsets.txt",
    "imagenet-21k": "imagenet21k_goog_synsets.txt",
}


def imagenet_wnids() -> tuple[str, ...]:
    """The 1,000 WordNet ids of ImageNet-1k in class-index order."""
    return head_wnids("imagenet-1k")


@cache
def imagenet_lemmas() -> tuple[tuple[str, ...], ...]:
    """Every name that WordNet has for each of the 1,000 classes, in class-index order."""
    named = dict(line.split("\t", 1) for line in _lines("imagenet_synset_to_lemma.txt"))
    return tuple(tuple(named[wnid].split(", ")) for wnid in imagenet_wnids())


@cache
def imagenet_names() -> tuple[str, ...]:
    """The 1,000 ImageNet-1k class names in class-index order, made unique.

    The first lemma of timm's table; the two pairs of classes that share one (crane, maillot) carry
    their WordNet id as well.
    """
    first = [lemmas[0] for lemmas in imagenet_lemmas()]
    counts = Counter(first)
    return tuple(
        f"{lemma} ({wnid})" if counts[lemma] > 1 else lemma
        for lemma, wnid in zip(first, imagenet_wnids(), strict=True)
    )


@cache
def head_wnids(head: str) -> tuple[str, ...]:
    """WordNet ids of a head's columns in order; see :data:`HEADS`."""
    return tuple(_lines(_FILES[head]))


def _lines(file: str) -> list[str]:
    package = importlib.util.find_spec("timm")
    assert package is not None and package.submodule_search_locations, "a dependency"
    folder = Path(package.submodule_search_locations[0]) / "data" / "_info"
    return (folder / file).read_text(encoding="utf-8").splitlines()

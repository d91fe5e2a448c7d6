"""What a build is asked for, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.schema import Recipe


@dataclass(frozen=True)
class BuildRequest:
    """What to build.

    Attributes:
        recipe: every number.
        classes: for which pairs.
        data: folder of real images in the Spurious ImageNet layout; None: the recipe's own.
        output: the dataset's folder.
        work: the stage store's folder.
        version: of the dataset, X.Y.Z.
        seed: global seed.
        device: where the models run.
        force: make every stage again.
        previous: folder of the version before, whose changelog goes on; None: this is the first.
        note: for the changelog, what is new.
    """

    recipe: Recipe
    classes: Sequence[SpuriousClass]
    data: Path | None
    output: Path
    work: Path
    version: str
    seed: int
    device: torch.device
    force: bool = False
    previous: Path | None = None
    note: str | None = None


@dataclass
class Built:
    """What a build did.

    Attributes:
        output: the dataset's folder.
        complete: whether the dataset is there, with every class that did not fail.
        written: False if the dataset there was already this one.
        failed: class name to error.
        seconds: (class name or noun, stage) to its seconds, and whether a stored stage served.
    """

    output: Path
    complete: bool = False
    written: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    seconds: dict[tuple[str, str], tuple[float, bool]] = field(default_factory=dict)

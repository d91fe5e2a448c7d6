"""What a source of classifiers is. Nothing heavy is imported until one is asked to load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spurbench.classifiers.info import SourceName
from spurbench.core.hub import HubFile, TorchFile

if TYPE_CHECKING:
    from spurbench.classifiers.classifier import Classifier, Loaded


@dataclass(frozen=True)
class OwnWeights:
    """Local weights for an architecture.

    Attributes:
        file: where they lie.
        outputs: of the head; None: as many as the architecture's own.
    """

    file: Path
    outputs: int | None = None


@dataclass(frozen=True)
class Source:
    """A place that classifiers come from.

    Attributes:
        name: what stands before the colon of a SPEC.
        load: loads the classifier that is named after the colon, with local weights if they are
            given. Gives its network, or a classifier where that is not one network on pixels.
        check: raises a ``SpurbenchError`` for a name that can't be right, without loading anything.
        files: the local files that a classifier is read from; None if it is fetched.
        published: the file that its weights would be fetched as, or several of which the first that
            is there serves; none where that is not known before it is loaded.
        takes_checkpoint: whether local weights can be given.
        takes_labels: whether its outputs are labelled.
    """

    name: SourceName
    load: Callable[[str, OwnWeights | None], Loaded | Classifier]
    check: Callable[[str], None] = lambda name: None
    files: Callable[[str], Sequence[Path] | None] = lambda name: None
    published: Callable[[str], Sequence[HubFile | TorchFile]] = lambda name: ()
    takes_checkpoint: bool = False
    takes_labels: bool = True


def registry(*sources: Source) -> dict[str, Source]:
    """Sources by name.

    Raises:
        ValueError: if two have the same name.
    """
    by_name: dict[str, Source] = {source.name: source for source in sources}
    if len(by_name) != len(sources):
        raise ValueError(f"two sources have one name: {', '.join(s.name for s in sources)}")
    return by_name

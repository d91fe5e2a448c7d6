"""Answers to some of the images, kept by several workers for the one that writes the result."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from spurbench.core import atomic
from spurbench.core.documents import Document, read_bytes
from spurbench.core.errors import SpurbenchError


class Answers(Document):
    """What a classifier answers to images in order; those that are damaged are in no list.

    Attributes:
        columns: of its head, that it answers with.
        probability: of the image's class, over the whole head.
        rank: of the image's class, 1 is the answer.
        damaged: position among the images to reason, of those that can't be decoded.
    """

    columns: list[int]
    probability: list[float]
    rank: list[int]
    damaged: dict[int, str]


@dataclass(frozen=True)
class Shares:
    """A store of answers by all that they depend on.

    A share is whole batches: each image is computed beside the same others as in one process, so
    the numbers are the same to the last bit.

    Attributes:
        folder: of the store.
        count: into how many shares images are divided.
    """

    folder: Path
    count: int
    _used: set[Path] = field(default_factory=set, compare=False)

    def parts(self, images: int, batch_size: int) -> list[range]:
        """Positions of each share's images; of few images, some are empty."""
        batches = -(-images // batch_size)
        cuts = [batches * i // self.count * batch_size for i in range(self.count)]
        return [
            range(start, min(end, images))
            for start, end in zip(cuts, [*cuts[1:], images], strict=True)
        ]

    def recall(self, key: str) -> Answers | None:
        """The answers kept under a key, if they are there and whole."""
        try:
            return Answers.model_validate_json(read_bytes(self._path(key)))
        except (OSError, SpurbenchError, ValidationError):
            return None

    def keep(self, key: str, answers: Answers) -> None:
        """Keep answers, until :meth:`remove`."""
        atomic.write_text(self._path(key), answers.model_dump_json())

    def remove(self) -> None:
        """Remove all answers that were asked for here: they are in a result."""
        for path in self._used:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # it holds other classifiers' answers, or never was
            self.folder.rmdir()

    def _path(self, key: str) -> Path:
        path = self.folder / f"{key}.json"
        self._used.add(path)
        return path

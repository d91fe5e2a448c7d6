"""A build as units of work: priors, and the classes that take them from the store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spurbench import __version__
from spurbench.build.request import BuildRequest, Built
from spurbench.build.store import MARKER
from spurbench.core import atomic
from spurbench.core.documents import Document, read_json, validated
from spurbench.core.errors import SpurbenchError
from spurbench.core.identity import fingerprint
from spurbench.engines.work import Unit
from spurbench.recipe.classes import SpuriousClass

FOLDER = ".units"
"""In the stage store."""


class Made(Document):
    """A stage of a unit.

    Attributes:
        subject: whose it is.
        label: what people read of it.
        folder: below the store.
        reused: whether it was there before the unit.
    """

    subject: str
    label: str
    folder: str
    reused: bool


class Record(Document):
    """What a worker writes when it has done a unit: the stages that it then found in the store.

    Attributes:
        run: of the forced run that did it.
        stages: in their order.
    """

    run: str | None
    stages: tuple[Made, ...]


@dataclass(frozen=True)
class BuildWork:
    """The units of a build; see :class:`spurbench.engines.work.Work`.

    Attributes:
        request: what to build, with absolute paths.
        images: hash of the names, sizes and times of the files that were given; workers don't
            ask for them.
        run: name of a forced run; see :class:`spurbench.build.store.StageStore`.
    """

    request: BuildRequest
    images: str
    run: str | None = None

    @classmethod
    def of(cls, request: BuildRequest, run: str | None = None) -> BuildWork:
        """The work of a request; the folders of photographs are gone through."""
        given = [folder and sorted(_files(folder)) for folder in (request.data, request.positives)]
        return cls(request.absolute(), fingerprint(given), run)

    @cached_property
    def units(self) -> Sequence[Unit]:
        """The priors that are needed, then the classes."""
        recipe, classes = self.request.recipe, self.request.classes
        if recipe.finetune.method == "base":
            return [Unit(c.slug) for c in classes]
        priors = dict.fromkeys(c.prior_subject for c in classes)
        return [
            *map(Unit, priors),
            *(Unit(c.slug, needs=(c.prior_subject,), weight=2.0) for c in classes),
        ]

    def done(self, unit: Unit) -> bool:
        """Whether a worker recorded the unit and its stages are there; their files aren't read."""
        try:
            record = self.record(unit)
        except (OSError, SpurbenchError):
            return False
        return record.run == self.run and all(
            (self.request.work / made.folder / MARKER).is_file() for made in record.stages
        )

    def open(self) -> Callable[[Unit], None]:
        """Load the models; a class's images are read when it is at hand."""
        import torch

        from spurbench.build.sampling import draw_prior
        from spurbench.build.stages import build_class
        from spurbench.build.workshop import read_class, workshop

        request = self.request
        if request.device.type == "cpu":
            torch.set_num_threads(1)
        shop = workshop(request, *read_class(request), run=self.run, built=Built(request.output))

        def do(unit: Unit) -> None:
            own = replace(shop, built=Built(request.output))
            spurious_class = self._class_of(unit)
            if unit.name == spurious_class.slug:
                build_class(own, spurious_class)
            else:
                draw_prior(own, spurious_class)
            self._write(unit, own.built)

        return do

    def record(self, unit: Unit) -> Record:
        """What the worker wrote that did it.

        Raises:
            FileNotFoundError: if none did.
            SpurbenchError: if it is damaged.
        """
        path = self._path(unit)
        return validated(Record, read_json(path), path.name)

    def forget(self, unit: Unit) -> None:
        """Have it done again: a stage that it made is not what is asked for."""
        self._path(unit).unlink(missing_ok=True)

    def _write(self, unit: Unit, built: Built) -> None:
        made = [
            Made(
                subject=subject,
                label=label,
                folder=stage.folder.relative_to(self.request.work).as_posix(),
                reused=stage.reused,
            )
            for (subject, label), stage in built.stages.items()
        ]
        record = Record(run=self.run, stages=tuple(made))
        atomic.write_json(self._path(unit), record.model_dump())

    def _class_of(self, unit: Unit) -> SpuriousClass:
        """The class that the unit is, or the first that takes the prior."""
        return next(c for c in self.request.classes if unit.name in (c.slug, c.prior_subject))

    def _path(self, unit: Unit) -> Path:
        """Named by all that the unit's stages follow from, as far as it is known without a model.

        What is not known of (a model that is another under the same name) is noticed by the build
        that comes after, which looks for the stages themselves.
        """
        request, spurious_class = self.request, self._class_of(unit)
        of_class = unit.name == spurious_class.slug
        known: dict[str, Any] = {
            "spurbench": __version__,
            "recipe": request.recipe.model_dump(mode="json"),
            "seed": request.seed,
            "unit": unit.name,
            "class": spurious_class.model_dump(mode="json") if of_class else spurious_class.noun,
            "replicates": request.replicates if of_class else None,
            "images": self.images if of_class else None,
        }
        name = unit.name.replace("/", "-")
        return request.work / FOLDER / f"{name}-{fingerprint(known)[:16]}.json"


def _files(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            status = path.lstat()
            found.append((path.relative_to(folder).as_posix(), status.st_size, status.st_mtime_ns))
    return found

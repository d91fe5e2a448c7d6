"""`spurbench build`: every class through its stages, then the dataset."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace

import torch

from spurbench.build.request import BuildRequest, Built
from spurbench.build.stages import build_class
from spurbench.build.store import NotStoredError
from spurbench.build.units import BuildWork
from spurbench.build.workshop import Workshop, given_positives, of_class, workshop
from spurbench.core.environment import one_thread, package_versions
from spurbench.core.errors import described
from spurbench.dataset import changelog
from spurbench.dataset.manifest import (
    ChangelogEntry,
    Provenance,
    Snapshot,
    read_snapshot,
    require_writable,
)
from spurbench.dataset.rows import OWN_PARTS, PartName, Row, Rows
from spurbench.dataset.write import write_dataset
from spurbench.engines.work import Engine
from spurbench.images.records import ImageSet
from spurbench.images.sources import open_images
from spurbench.recipe.classes import SpuriousClass

log = logging.getLogger(__name__)


def build(request: BuildRequest, engine: Engine | None = None) -> Built:
    """Make the dataset, class by class; finished stages are taken from the store.

    A class that fails is recorded and the others go on; the dataset then holds the others, and says
    so in its provenance.

    Args:
        request: what to build.
        engine: has the stages made, for a build that then finds all of them in the store; None:
            they are made in this process, on a processor with one thread. The bytes are the same.

    Raises:
        SpurbenchError: before any work, if the output holds something else, the previous version
            is not one, or a model or the images can't be had.
    """
    require_writable(request.output, name=request.recipe.name, version=request.version)
    previous = None
    if request.previous is not None:
        previous = read_snapshot(request.previous)  # now: a damaged one must not cost the night
        changelog.require_successor(
            (previous.name, previous.version), (request.recipe.name, request.version)
        )
    images = open_images(request.images, "real")
    positives = given_positives(request)
    built = Built(output=request.output)
    run = secrets.token_hex(8) if request.force else None
    crew = None if engine is None else _Crew(engine, request, run, built)
    if crew is not None:
        crew.make(request.classes)
    with one_thread():
        shop = workshop(
            request,
            of_class(images),
            of_class(positives) if positives else None,
            built=built,
            run=run,
            complete=crew is not None,
        )
        rows = _rows(shop, crew)
    if rows["generated"]:
        provenance = _provenance(shop, images, positives)
        built.written = write_dataset(
            request.output,
            rows,
            provenance,
            name=request.recipe.name,
            version=request.version,
            quality=request.recipe.check.quality,
            changelog=_changelog(request, previous, rows, provenance),
        )
        built.complete = True
    return built


class _Crew:
    """An engine at a build's work, and what came of it."""

    def __init__(
        self, engine: Engine, request: BuildRequest, run: str | None, built: Built
    ) -> None:
        # Workers may be elsewhere, each with its own GPU as the only one that it sees.
        device = torch.device(request.device.type)
        self._engine, self._built = engine, built
        self._work = BuildWork.of(replace(request, device=device), run)
        self.fresh: set[tuple[str, str]] = set()
        """Subject and label of each stage that was made, not found."""

    def make(self, classes: Sequence[SpuriousClass]) -> None:
        """Have the stages of classes made; those that fail are noted."""
        work = replace(self._work, request=replace(self._work.request, classes=classes))
        waiting = [unit for unit in work.units if not work.done(unit)]
        failed = self._engine.run(work)
        for spurious_class in classes:
            if (why := failed.get(spurious_class.slug)) is not None:
                _note_failure(self._built, spurious_class, why)
        for unit in waiting:
            if unit.name not in failed:
                made = work.record(unit).stages
                self.fresh |= {(m.subject, m.label) for m in made if not m.reused}

    def forget(self, spurious_class: SpuriousClass) -> None:
        """Have a class made again that was taken for done."""
        for unit in self._work.units:
            if unit.name in (spurious_class.slug, spurious_class.prior_subject):
                self._work.forget(unit)


def _rows(shop: Workshop, crew: _Crew | None) -> dict[PartName, list[Row]]:
    """The rows of every class that does not fail."""
    built, classes = shop.built, shop.request.classes
    finished: dict[int, dict[PartName, list[Row]]] = {}

    def go_through(wanted: Sequence[SpuriousClass]) -> list[SpuriousClass]:
        """Those that lack a stage, in a complete store."""
        lacking = []
        for spurious_class in wanted:
            try:
                finished[spurious_class.index] = build_class(shop, spurious_class)
            except NotStoredError:
                lacking.append(spurious_class)
            except Exception as error:  # one class's failure must not cost the night's others
                log.debug("class %s failed", spurious_class.name, exc_info=True)
                _note_failure(built, spurious_class, described(error))
        return lacking

    lacking = go_through([c for c in classes if c.name not in built.failed])
    if crew is not None and lacking:
        log.info("%d classes are made again: something they depend on changed", len(lacking))
        for spurious_class in lacking:
            crew.forget(spurious_class)
        crew.make(lacking)
        for spurious_class in go_through([c for c in lacking if c.name not in built.failed]):
            why = f"what it is made from changes while it is made; see {shop.store.root}"
            _note_failure(built, spurious_class, why)
    if crew is not None:
        for key in crew.fresh & built.stages.keys():
            built.stages[key] = replace(built.stages[key], reused=False)
    rows: dict[PartName, list[Row]] = {part: [] for part in OWN_PARTS}
    for spurious_class in classes:
        for part, more in finished.get(spurious_class.index, {}).items():
            rows[part] += more
    return rows


def _note_failure(built: Built, spurious_class: SpuriousClass, why: str) -> None:
    built.failed[spurious_class.name] = why
    log.error("%s failed: %s", spurious_class.name, why)


def _changelog(
    request: BuildRequest,
    previous: Snapshot | None,
    rows: Rows,
    provenance: Provenance,
) -> tuple[ChangelogEntry, ...]:
    """The previous version's changelog and an entry for this one."""
    if previous is None:
        return changelog.first(request.version, request.note)
    new = Snapshot(request.recipe.name, request.version, provenance, rows)
    return changelog.extended(previous, new, request.note)


def _provenance(shop: Workshop, images: ImageSet, positives: ImageSet | None) -> Provenance:
    """How the dataset was made, for its card and ``spurbench.json``."""
    request, built = shop.request, shop.built
    devices = {stage.device or str(request.device) for stage in built.stages.values()}
    return Provenance.model_validate(
        {
            "recipe": json.loads(request.recipe.model_dump_json()),
            "seed": request.seed,
            "device": ", ".join(sorted(devices)),
            "threads": 1 if request.device.type == "cpu" else None,
            "base_model": {"name": shop.base.name, "fingerprint": shop.base.fingerprint},
            "panel": [classifier.info.model_dump(mode="json") for classifier in shop.panel],
            "phi": shop.phi.info.model_dump(mode="json"),
            "object_detector": shop.detector.name if shop.detector else None,
            "real_images": images.info.model_dump(mode="json"),
            "positive_images": positives.info.model_dump(mode="json") if positives else None,
            "positives": {
                name: counts.model_dump() for name, counts in sorted(built.positives.items())
            },
            "replicates": request.replicates,
            "damaged": [
                entry.model_dump(mode="json")
                for given in (images, positives)
                if given
                for entry in given.damaged
            ],
            "failed_classes": built.failed,
            "versions": package_versions(),
            "licences": {
                "images": request.recipe.data.licence,
                "weights": request.recipe.base.licence,
            },
        }
    )

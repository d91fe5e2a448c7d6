"""`spurbench build`: every class through its stages, then the dataset."""

from __future__ import annotations

import json
import logging

from spurbench.build.request import BuildRequest, Built
from spurbench.build.stages import build_class
from spurbench.build.store import StageStore
from spurbench.build.workshop import Workshop
from spurbench.classifiers.detectors import load_detector
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError, reason
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
from spurbench.diffusion.base import load_base, load_decoder
from spurbench.evaluation import panel
from spurbench.images.sources import open_images, open_positives

log = logging.getLogger(__name__)


def build(request: BuildRequest) -> Built:
    """Make the dataset, class by class; finished stages are taken from the store.

    A class that fails is recorded and the others go on; the dataset then holds the others, and says
    so in its provenance.

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
    built = Built(output=request.output)
    workshop = _open(request, built)
    rows: dict[PartName, list[Row]] = {part: [] for part in OWN_PARTS}
    for spurious_class in request.classes:
        try:
            of_class = build_class(workshop, spurious_class)
        except Exception as error:  # one class's failure must not cost the night's other classes
            log.debug("class %s failed", spurious_class.name, exc_info=True)
            said = reason(error)
            if not isinstance(error, SpurbenchError):
                said = f"{type(error).__name__}: {said}"
            built.failed[spurious_class.name] = said
            log.error("%s failed: %s", spurious_class.name, said)
            continue
        for part, more in of_class.items():
            rows[part] += more
    if rows["generated"]:
        provenance = _provenance(workshop, built)
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


def _open(request: BuildRequest, built: Built) -> Workshop:
    recipe, device = request.recipe, request.device
    if request.data is None and recipe.data.images is None:
        raise SpurbenchError(
            f"recipe {recipe.name!r} has no images of its own; give the official Spurious ImageNet "
            "folder with --data"
        )
    data = str(request.data or recipe.locate(str(recipe.data.images)))
    positives = None
    if request.positives is not None:
        positives = open_positives(request.positives, only={c.index for c in request.classes})
    members = panel.load_panel(recipe.panel.classifiers, relative_to=recipe.folder, device=device)
    detector = recipe.check.object_detector
    return Workshop(
        request=request,
        base=load_base(
            recipe.locate(recipe.base.model), revision=recipe.base.revision, device=device
        ),
        panel=members,
        phi=panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=device),
        decoder=load_decoder(recipe.locate(recipe.sfsl.decoder), device=device)
        if recipe.sfsl.decoder
        else None,
        detector=load_detector(recipe.locate(detector), device=device) if detector else None,
        images=open_images(data, "real"),
        positives=positives,
        store=StageStore(request.work, force=request.force),
        built=built,
    )


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


def _provenance(shop: Workshop, built: Built) -> Provenance:
    """How the dataset was made, for its card and ``spurbench.json``."""
    request, positives = shop.request, shop.positives
    return Provenance.model_validate(
        {
            "recipe": json.loads(request.recipe.model_dump_json()),
            "seed": request.seed,
            "device": str(request.device),
            "base_model": {"name": shop.base.name, "fingerprint": shop.base.fingerprint},
            "panel": [classifier.info.model_dump(mode="json") for classifier in shop.panel],
            "phi": shop.phi.info.model_dump(mode="json"),
            "object_detector": shop.detector.name if shop.detector else None,
            "real_images": shop.images.info.model_dump(mode="json"),
            "positive_images": positives.info.model_dump(mode="json") if positives else None,
            "positives": {
                name: counts.model_dump() for name, counts in sorted(built.positives.items())
            },
            "replicates": request.replicates,
            "damaged": [
                entry.model_dump(mode="json")
                for images in (shop.images, positives)
                if images
                for entry in images.damaged
            ],
            "failed_classes": built.failed,
            "versions": package_versions(),
            "licences": {
                "images": request.recipe.data.licence,
                "weights": request.recipe.base.licence,
            },
        }
    )

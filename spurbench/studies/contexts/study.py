"""What a report shows of a dataset's contexts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from spurbench.classifiers.detectors import ObjectDetector, load_detector
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import Manifest
from spurbench.dataset.rows import PartName, Row
from spurbench.images.decode import decode_rgb
from spurbench.recipe.load import read_recipe
from spurbench.studies.contexts import tables
from spurbench.studies.contexts.measure import Contexts, Seen, look, origin
from spurbench.studies.report.pictures import AGREES, DIFFERS, write_below
from spurbench.studies.report.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def study(
    manifest: Manifest,
    rows: Mapping[PartName, Sequence[Row]],
    *,
    detector: str | None,
    device: torch.device,
) -> tuple[list[Table], Figure | None]:
    """The tables and the picture of a dataset; none if it has no images in contexts that count.

    Args:
        manifest: of the dataset.
        rows: its rows, by part.
        detector: who says whether a context is visible, as ``check.object_detector`` names one;
            None: the recipe's, if it can be had.
        device: where it runs.

    Raises:
        SpurbenchError: if the detector that was asked for can't be had.
    """
    contexts = Contexts.of(rows, manifest.provenance.contexts)
    if not contexts.placed:
        return [], None
    told = tables.accuracy(contexts)
    try:
        looking = _detector(manifest, detector, device)
        threshold = float(manifest.provenance.recipe["contexts"]["threshold"])
        if not (seen := look(contexts, looking, threshold)):
            raise SpurbenchError(f"detector {looking.name} knows none of the contexts")
    except SpurbenchError as error:
        if detector is not None:
            raise
        told = replace(told, notes=[*told.notes, f"Which contexts show is not known: {error}."])
        return [told], picture(contexts, {})
    visible = tables.visibility(contexts, seen, looking.name, threshold)
    return [told, visible], picture(contexts, seen)


def _detector(manifest: Manifest, asked: str | None, device: torch.device) -> ObjectDetector:
    """The detector that is asked for, or the one of the dataset's recipe."""
    recipe = manifest.provenance.recipe
    spec = asked or recipe["check"]["object_detector"]
    if spec is None:
        raise SpurbenchError("the recipe has no detector; name one with --detector")
    if asked is None:
        # A recipe of the package's has its folder here; of another a hub's id is known at most.
        with suppress(SpurbenchError):
            spec = read_recipe(recipe["name"]).locate(spec)
    return load_detector(spec, device=device)


def picture(contexts: Contexts, seen: Seen) -> Figure:
    """Of each class the first noise, without a context and in each (Fig. 5)."""
    from matplotlib.figure import Figure

    first: dict[int, tuple[int, int, int | None]] = {}
    for row in (*contexts.plain, *(row for rows in contexts.placed.values() for row in rows)):
        first.setdefault(row.class_index, origin(row))
    columns = {tables.NONE: contexts.plain, **contexts.placed}
    figure = Figure(figsize=(1.75 * len(columns), 2.1 * len(first)), layout="constrained")
    axes = figure.subplots(len(first), len(columns), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for j, (context, rows) in enumerate(columns.items()):
        axes[0, j].set_title(context, fontsize=8)
        by_origin = {origin(row): row for row in rows}
        for axis, noise in zip(axes[:, j], first.values(), strict=True):
            if (image := by_origin.get(noise)) is None:
                continue
            axis.imshow(decode_rgb(image.read()))
            fooled = sum(answer.rank == 1 for answer in image.panel)
            words = [f"{image.class_name}: {fooled} of {len(image.panel)}"]
            if (shows := seen.get((image.image_sha256, context))) is not None:
                words.append("context visible" if shows else "context not visible")
            colour = AGREES if image.consistently_spurious else DIFFERS
            write_below(axis, [(line, colour) for line in words])
    return figure

"""The stages of a class in order: select, prior, fine-tune, sample, check, controls, contexts,
positives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spurbench.build.examine import Examined, examine, measure_quality
from spurbench.build.sampling import (
    context_seeds,
    draw_context,
    draw_controls,
    draw_positives,
    draw_prior,
    draw_sample,
    image_files,
    numbered,
    positive_seeds,
    sample_seeds,
)
from spurbench.build.store import Stage
from spurbench.build.tuning import tune
from spurbench.build.workshop import Workshop
from spurbench.core.errors import SpurbenchError
from spurbench.core.text import slug
from spurbench.dataset.manifest import PositiveCounts
from spurbench.dataset.rows import PartName, Row
from spurbench.evaluation import panel
from spurbench.images.records import Answer, ImageRecord
from spurbench.recipe.classes import SpuriousClass

log = logging.getLogger(__name__)

FEW = 5
"""Fewer positives of a class than these are warned about: they say little of recognition."""


def build_class(shop: Workshop, spurious_class: SpuriousClass) -> dict[PartName, list[Row]]:
    """The rows of one class's images, by part."""
    recipe = shop.request.recipe
    photographs = shop.photographs(spurious_class)
    if not photographs:
        raise SpurbenchError(
            f"no images of class {spurious_class.index} ({spurious_class.name}) in "
            f"{shop.request.images}; expected a folder like {spurious_class.folder}"
        )
    examined = examine(shop, spurious_class, photographs, "select")
    chosen = select_references(
        spurious_class, [entry.panel for entry in examined], recipe.select.references
    )
    references = [photographs[i] for i in chosen]
    prior = draw_prior(shop, spurious_class) if recipe.finetune.method != "base" else None
    rows: dict[PartName, list[Row]] = {
        part: []
        for part in (
            "real",
            "generated",
            "controls-generated",
            "controls-finetuned-generated",
            "contexts-generated",
        )
    }
    for replicate in range(shop.request.replicates):
        tuned = tune(shop, spurious_class, references, prior, replicate) if prior else None
        generated = _generated_rows(shop, spurious_class, tuned, replicate)
        rows["generated"] += generated
        if recipe.controls.enabled and "base" in recipe.controls.makers:
            rows["controls-generated"] += _control_rows(
                shop, spurious_class, None, generated, replicate
            )
        if recipe.controls.enabled and "finetuned" in recipe.controls.makers:
            rows["controls-finetuned-generated"] += _control_rows(
                shop, spurious_class, tuned, generated, replicate
            )
        if tuned is not None:
            for context in recipe.contexts.phrases:
                rows["contexts-generated"] += _context_rows(
                    shop, spurious_class, tuned, context, replicate
                )
    scores = measure_quality(shop, spurious_class, photographs, "quality of real")
    rows["real"] = [
        _row(
            spurious_class,
            record,
            entry,
            quality,
            made=_photographed(),
            is_reference=position in chosen,
        )
        for position, (record, entry, quality) in enumerate(
            zip(photographs, examined, scores, strict=True)
        )
    ]
    return rows | _positive_rows(shop, spurious_class)


def _generated_rows(
    shop: Workshop, spurious_class: SpuriousClass, tuned: Stage | None, replicate: int
) -> list[Row]:
    """One generator's images."""
    recipe = shop.request.recipe
    sampled = draw_sample(shop, spurious_class, tuned, replicate)
    records = _records(sampled, spurious_class, replicate)
    examined = examine(shop, spurious_class, records, numbered("check", replicate))
    label = numbered("quality of generated", replicate)
    scores = measure_quality(shop, spurious_class, records, label)
    seeds = sample_seeds(shop, spurious_class, replicate)
    return [
        _row(
            spurious_class,
            record,
            entry,
            quality,
            made=_drawn(shop, recipe.instance_prompt(spurious_class), seed),
            kappa=recipe.kappa_of(spurious_class),
            replicate=replicate,
        )
        for record, seed, entry, quality in zip(records, seeds, examined, scores, strict=True)
    ]


def _control_rows(
    shop: Workshop,
    spurious_class: SpuriousClass,
    tuned: Stage | None,
    images: Sequence[Row],
    replicate: int,
) -> list[Row]:
    """The twins of one generator's images, under the images' names; see :func:`draw_controls`."""
    recipe = shop.request.recipe
    stage = draw_controls(shop, spurious_class, tuned, replicate)
    records = _records(stage, spurious_class, replicate)
    label = numbered("check fine-tuned controls" if tuned else "check controls", replicate)
    examined = examine(shop, spurious_class, records, label)
    prompt = recipe.prior_prompt(spurious_class)
    return [
        _row(
            spurious_class,
            record,
            entry,
            _unscored(shop),
            made=_drawn(shop, prompt, image.seed),
            kappa=recipe.kappa_of(spurious_class) if tuned else None,
            replicate=replicate,
            twin_of=image.image_sha256,
        )
        for record, image, entry in zip(records, images, examined, strict=True)
    ]


def _context_rows(
    shop: Workshop, spurious_class: SpuriousClass, tuned: Stage, context: str, replicate: int
) -> list[Row]:
    """One generator's images in one context, whose name each image's begins with."""
    recipe = shop.request.recipe
    stage = draw_context(shop, spurious_class, tuned, context, replicate)
    named = f"{slug(context)}-"
    records = [
        replace(record, path=named + record.path)
        for record in _records(stage, spurious_class, replicate)
    ]
    label = numbered(f"check contexts: {context}", replicate)
    examined = examine(shop, spurious_class, records, label)
    prompt = recipe.context_prompt(spurious_class, context)
    seeds = context_seeds(shop, spurious_class, replicate)
    return [
        _row(
            spurious_class,
            record,
            entry,
            _unscored(shop),
            made=_drawn(shop, prompt, seed),
            kappa=recipe.kappa_of(spurious_class),
            replicate=replicate,
        )
        for record, seed, entry in zip(records, seeds, examined, strict=True)
    ]


def _positive_rows(shop: Workshop, spurious_class: SpuriousClass) -> dict[PartName, list[Row]]:
    """Images that show the class: the given ones, else the base's in which the detector sees it."""
    recipe = shop.request.recipe
    part: PartName
    if shop.positives is not None:
        part = "positives-real"
        records = list(shop.positives(spurious_class))
        made = [_photographed() for _ in records]
    elif recipe.positives.images:
        part = "positives-generated"
        records = _records(draw_positives(shop, spurious_class), spurious_class)
        prompt = recipe.positive_prompt(spurious_class)
        made = [_drawn(shop, prompt, seed) for seed in positive_seeds(shop, spurious_class)]
    else:
        return {}
    examined = examine(shop, spurious_class, records, "check positives") if records else []
    rows = [
        _row(spurious_class, record, entry, _unscored(shop), made=columns)
        for record, entry, columns in zip(records, examined, made, strict=True)
    ]
    asked, name = len(rows), spurious_class.name
    if part == "positives-generated":
        if any(row.object_absent is None for row in rows):
            log.warning("%s: no detector looks for it; all its positives are kept", name)
        rows = [row for row in rows if not row.object_absent]
    shop.built.positives[name] = PositiveCounts(asked=asked, kept=len(rows))
    checked = shop.built.stages.get((spurious_class.slug, "check positives"))
    if checked is None or not checked.reused:  # else it was said when they were checked
        level = logging.WARNING if len(rows) < FEW else logging.INFO
        log.log(level, "%s: %d of %d positives kept", name, len(rows), asked)
    return {part: rows}


def _records(stage: Stage, spurious_class: SpuriousClass, replicate: int = 0) -> list[ImageRecord]:
    """A stage's images; those of later generators under names that the first's don't have."""
    return [
        ImageRecord.from_file(
            path,
            class_index=spurious_class.index,
            source="generated",
            name=f"replicate-{replicate}-{path.name}" if replicate else path.name,
            class_name=spurious_class.name,
            spurious_feature=spurious_class.spurious_feature,
        )
        for path in image_files(stage)
    ]


def _photographed() -> dict[str, Any]:
    """How a real image came about, in columns."""
    return {
        "source": "real",
        "prompt": None,
        "seed": None,
        "guidance_scale": None,
        "num_inference_steps": None,
        "base_model": None,
    }


def _drawn(shop: Workshop, prompt: str, seed: int | None) -> dict[str, Any]:
    """How a generated image came about, in columns."""
    return {
        "source": "generated",
        "prompt": prompt,
        "seed": seed,
        "guidance_scale": shop.request.recipe.sample.guidance_scale,
        "num_inference_steps": shop.request.recipe.sample.steps,
        "base_model": shop.base.name,
    }


def _unscored(shop: Workshop) -> dict[str, float | None]:
    """Quality columns of images whose quality is not measured."""
    return dict.fromkeys(shop.request.recipe.check.quality)


def _row(
    spurious_class: SpuriousClass,
    record: ImageRecord,
    examined: Examined,
    scores: Mapping[str, float | None],
    *,
    made: Mapping[str, Any],
    kappa: float | None = None,
    is_reference: bool = False,
    replicate: int = 0,
    twin_of: str | None = None,
) -> Row:
    """A row of the dataset; ``made`` are the columns that say how the image came about."""
    return Row(
        read=record.read,
        label=spurious_class.index,
        class_index=spurious_class.index,
        class_name=spurious_class.name,
        wnid=spurious_class.wnid,
        spurious_feature=spurious_class.spurious_feature,
        component=spurious_class.component,
        kappa=kappa,
        is_reference=is_reference,
        replicate=replicate,
        consistently_spurious=examined.consistently_spurious,
        object_absent=examined.object_absent,
        object_score=examined.object_score,
        feature_present=examined.feature_present,
        feature_score=examined.feature_score,
        panel=examined.panel,
        file_name=f"{spurious_class.folder}/{Path(record.path).name}",
        image_sha256=examined.image_sha256,
        twin_of=twin_of,
        quality=scores,
        **made,
    )


def select_references(
    spurious_class: SpuriousClass, answers: Sequence[Sequence[Answer]], count: int
) -> list[int]:
    """Stage 1: the images that every classifier calls the class, the surest first.

    Args:
        spurious_class: for the message.
        answers: the panel's, for each image.
        count: how many references are needed.

    Returns:
        ``count`` positions in ``answers``, by falling :func:`spurbench.evaluation.panel.agreement`.

    Raises:
        SpurbenchError: if there are fewer consistently spurious images.
    """
    spurious = [i for i, entry in enumerate(answers) if panel.consistently_spurious(entry)]
    if len(spurious) < count:
        raise SpurbenchError(
            f"class {spurious_class.name}: {len(spurious)} of {len(answers)} real images are "
            f"consistently spurious and {count} references are needed; lower select.references or "
            "change the panel"
        )
    return sorted(spurious, key=lambda i: (-panel.agreement(answers[i]), i))[:count]

"""`spurbench ablate`: variations of one recipe, built over several seeds, and measured.

Every variation and seed is an ordinary build, whose dataset stays to be looked at; stages that are
shared are made once, and a stopped ablation goes on where it was. What is measured comes from the
datasets alone, so it can be measured anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spurbench.build.build import build
from spurbench.build.request import BuildRequest, Built
from spurbench.classifiers.classifier import Classifier, transform
from spurbench.core import atomic
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import read_rows
from spurbench.dataset.rows import Row
from spurbench.engines.work import Engine
from spurbench.evaluation import copies, metrics, panel
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe
from spurbench.studies.ablation.plan import AblationRequest, Variation
from spurbench.studies.ablation.report import render_markdown, render_plot, render_sheet
from spurbench.studies.ablation.results import (
    Ablation,
    BuildMeasures,
    Measures,
    Part,
    RealResult,
)
from spurbench.studies.ablation.summary import BuildResult, by_part, mean_measures, summarise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classifiers:
    """Who is asked about the images.

    Attributes:
        phi: its features are the space of distances.
        unseen: those that had no part in the images.
        parts: by label, the panel's in its order and then the unseen: the part each had.
    """

    phi: Classifier
    unseen: Sequence[Classifier]
    parts: Mapping[str, Part]


def ablate(request: AblationRequest, engine: Engine | None = None) -> Ablation:
    """Build and measure every variation for every seed; write ``ablation.json``, ``.md``, pictures.

    Results are written after each seed, so that an early look is possible.

    Args:
        request: what to compare.
        engine: has the stages made, see :func:`spurbench.build.build.build`.

    Returns:
        The content of ``ablation.json``.

    Raises:
        SpurbenchError: if a class of a variation can't be built, where what is finished is kept; a
            variation has another panel than the baseline; or an unseen classifier can't be loaded,
            or is of the panel.
    """
    recipes = _recipes(request)
    variations = request.plan.variations
    classifiers = _load_classifiers(request, recipes[request.plan.baseline])
    results: dict[str, dict[int, BuildResult]] = {v.name: {} for v in variations}
    real: RealResult | None = None
    references: dict[str, list[bytes]] = {}
    samples: dict[tuple[str, str], list[bytes]] = {}
    for seed in request.seeds:
        for position, variation in enumerate(variations, 1):
            log.info("seed %d, row %d of %d: %s", seed, position, len(variations), variation.name)
            built = _build(request, recipes[variation.name], variation, seed, engine)
            splits = read_rows(built.output)
            features = _features(classifiers.phi, [*splits["real"], *splits["generated"]])
            measured = {}
            for c in request.classes:
                generated = [r for r in splits["generated"] if r.class_index == c.index]
                photographs = [r for r in splits["real"] if r.class_index == c.index]
                measures = measure(generated, photographs, features)
                seconds = _seconds(built, c)
                measured[c.name] = BuildMeasures(**measures.model_dump(), seconds=seconds)
                if seed == request.seeds[0]:
                    samples[variation.name, c.name] = [r.read() for r in generated]
                    references[c.name] = [r.read() for r in photographs if r.is_reference]
            fooled = fooled_classifiers(
                splits["generated"], classifiers.unseen, list(classifiers.parts)
            )
            results[variation.name][seed] = BuildResult(measured, fooled)
            real = real or _real_result(request.classes, splits["real"], features, classifiers)
        assert real is not None  # a plan has at least its baseline
        ablation = _ablation(request, classifiers, real, results)
        atomic.write_json(request.output / "ablation.json", ablation.as_json())
        atomic.write_text(request.output / "ablation.md", render_markdown(ablation))
        atomic.write_bytes(request.output / "ablation.png", render_plot(ablation))
        sheet = render_sheet(variations, request.classes, references, samples)
        atomic.write_bytes(request.output / "samples.png", sheet)
    return ablation


def measure(
    rows: Sequence[Row],
    photographs: Sequence[Row],
    features: Mapping[str, NDArray[np.float32]],
) -> Measures:
    """The measures of one class's images.

    Args:
        rows: of a dataset, all of one class.
        photographs: the class's real rows, those that were trained on and those that were not.
        features: phi of each image, by its hash.
    """
    ranks = np.array([[answer.rank for answer in row.panel] for row in rows])
    return Measures(
        spurious_accuracy=float((ranks == 1).mean()),
        consistently_spurious=_share([row.consistently_spurious for row in rows]),
        object_absent=_share([row.object_absent for row in rows]),
        feature_present=_share([row.feature_present for row in rows]),
        novelty=_novelty(rows, photographs),
        diversity=metrics.mean_pairwise_distance(
            np.stack([features[row.image_sha256] for row in rows])
        ),
    )


def fooled_classifiers(
    rows: Sequence[Row], unseen: Sequence[Classifier], labels: Sequence[str]
) -> dict[str, float]:
    """Each classifier's spurious accuracy, the mean over the classes of the rows.

    Args:
        rows: of one split of a dataset; they hold the panel's answers.
        unseen: classifiers that are asked now.
        labels: of the panel, in its order, and then of the unseen.
    """
    images = [
        ImageRecord(
            row.file_name,
            row.class_index,
            row.source,
            row.image_sha256,
            row.read,
            row.class_name,
            row.spurious_feature,
        )
        for row in rows
    ]
    right: dict[str, dict[int, list[bool]]] = {}
    for row, answers in zip(rows, panel.ask(unseen, images), strict=True):
        ranks = [answer.rank for answer in row.panel] + [answer.rank for answer in answers]
        for label, rank in zip(labels, ranks, strict=True):
            right.setdefault(label, {}).setdefault(row.class_index, []).append(rank == 1)
    return {
        label: metrics.macro_mean([np.array(those) for those in classes.values()])
        for label, classes in right.items()
    }


def labels_of(classifiers: Sequence[Classifier]) -> list[str]:
    """What tables call classifiers: name and checkpoint, and their hash where those are shared."""
    infos = [classifier.info for classifier in classifiers]
    labels = [f"{i.name} + {i.checkpoint}" if i.checkpoint else i.name for i in infos]
    return [
        f"{label} @{info.weights_sha256[:8]}" if labels.count(label) > 1 else label
        for label, info in zip(labels, infos, strict=True)
    ]


def _recipes(request: AblationRequest) -> dict[str, Recipe]:
    """By variation, all with the panel of the baseline."""
    # No measure needs image quality, whose weights would be asked for at every build, nor controls
    # and positives.
    without = ("check.quality=[]", "controls.enabled=false", "positives.images=0")
    recipes = {
        variation.name: read_recipe(
            request.recipe, (*request.overrides, *variation.overrides, *without)
        )
        for variation in request.plan.variations
    }
    baseline = request.plan.baseline
    for name, recipe in recipes.items():
        if recipe.panel.classifiers != recipes[baseline].panel.classifiers:
            raise SpurbenchError(
                f"row {name} has another panel than the baseline, {baseline}; their numbers can't "
                "be compared"
            )
    return recipes


def _load_classifiers(request: AblationRequest, recipe: Recipe) -> Classifiers:
    device = request.device
    phi = panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=device)
    members = panel.load_panel(recipe.panel.classifiers, relative_to=recipe.folder, device=device)
    unseen = panel.load_panel(request.unseen, relative_to=Path(), device=device)
    involved = {classifier.info.weights_sha256 for classifier in (phi, *members)}
    for classifier in unseen:
        if classifier.info.weights_sha256 in involved:
            raise SpurbenchError(
                f"{classifier.info.name} is of the recipe's panel; --unseen takes classifiers that "
                "had no part in the images"
            )
    parts: list[Part] = [
        "phi" if member.info.weights_sha256 == phi.info.weights_sha256 else "panel"
        for member in members
    ]
    parts += ["unseen"] * len(unseen)
    return Classifiers(phi, unseen, dict(zip(labels_of((*members, *unseen)), parts, strict=True)))


def _real_result(
    classes: Sequence[SpuriousClass],
    rows: Sequence[Row],
    features: Mapping[str, NDArray[np.float32]],
    classifiers: Classifiers,
) -> RealResult:
    measured = {}
    for c in classes:
        photographs = [row for row in rows if row.class_index == c.index]
        # The limit of copies is set by these very images.
        measured[c.name] = measure(photographs, photographs, features).model_copy(
            update={"novelty": None}
        )
    fooled = fooled_classifiers(rows, classifiers.unseen, list(classifiers.parts))
    return RealResult(
        classes=measured,
        mean=mean_measures(list(measured.values())),
        classifiers=fooled,
        parts=by_part(fooled, classifiers.parts),
    )


def _novelty(rows: Sequence[Row], photographs: Sequence[Row]) -> float | None:
    """The share that are no copies; None where too few photographs were not trained on."""
    trained, others = (
        [decode_rgb(row.read()) for row in photographs if row.is_reference is of_training]
        for of_training in (True, False)
    )
    if len(others) < copies.LEAST_UNSEEN:
        return None
    return copies.calibrate(trained, others).novelty([decode_rgb(row.read()) for row in rows])


def _build(
    request: AblationRequest,
    recipe: Recipe,
    variation: Variation,
    seed: int,
    engine: Engine | None,
) -> Built:
    built = build(
        BuildRequest(
            recipe=recipe,
            classes=request.classes,
            data=request.data,
            output=request.output / "datasets" / f"{variation.name}-seed{seed}",
            work=request.output / ".stages",
            version="1.0.0",
            seed=seed,
            device=request.device,
        ),
        engine,
    )
    if built.failed:
        name, reason = next(iter(built.failed.items()))
        raise SpurbenchError(
            f"row {variation.name}, seed {seed}: class {name} failed: {reason}; the same command "
            "goes on from here"
        )
    return built


def _seconds(built: Built, spurious_class: SpuriousClass) -> float:
    """What a class costs, shared priors counted in full."""
    subjects = (spurious_class.slug, spurious_class.prior_subject)
    return sum(
        seconds
        for (subject, stage), (seconds, _) in built.seconds.items()
        if subject in subjects and stage in ("prior", "fine-tune", "sample")
    )


@torch.inference_mode()
def _features(phi: Classifier, rows: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
    prepare = transform(phi.preprocessing("whole"))
    images = {row.image_sha256: row.read for row in rows}
    pixels = [prepare(decode_rgb(read())) for read in images.values()]
    parts = [
        phi.features(torch.stack(pixels[i : i + 64]).to(phi.device).float() / 255).cpu().numpy()
        for i in range(0, len(pixels), 64)
    ]
    return dict(zip(images, np.concatenate(parts), strict=True))


def _share(values: Sequence[bool | None]) -> float | None:
    return None if None in values else float(np.mean([bool(value) for value in values]))


def _ablation(
    request: AblationRequest,
    classifiers: Classifiers,
    real: RealResult,
    results: Mapping[str, Mapping[int, BuildResult]],
) -> Ablation:
    parts = classifiers.parts
    baseline = list(results[request.plan.baseline].values())
    labels = list(parts)[len(parts) - len(classifiers.unseen) :]
    known = panel.fingerprint(classifiers.unseen)
    return Ablation(
        recipe=request.recipe,
        overrides=request.overrides,
        baseline=request.plan.baseline,
        seeds=tuple(request.seeds),
        device=str(request.device),
        feature_space=f"penultimate features of {classifiers.phi.info.name}, cosine distance",
        classifiers=dict(parts),
        unseen=tuple(of | {"name": label} for of, label in zip(known, labels, strict=True)),
        versions=package_versions(),
        real=real,
        rows=tuple(
            summarise(variation, results[variation.name], baseline, parts)
            for variation in request.plan.variations
        ),
    )

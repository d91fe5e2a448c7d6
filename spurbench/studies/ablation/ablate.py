"""`spurbench ablate`: one recipe varied row by row, built over several seeds, and measured.

Every row and seed is an ordinary build, whose dataset stays to be looked at; stages that rows share
are made once, and a stopped ablation goes on where it was. What is measured comes from the datasets
alone, so it can be measured anew.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spurbench.build.build import BuildRequest, Built, build
from spurbench.classifiers.classifier import Classifier, transform
from spurbench.core import atomic
from spurbench.core.environment import package_versions
from spurbench.core.errors import SpurbenchError
from spurbench.dataset.manifest import read_rows
from spurbench.dataset.rows import Row
from spurbench.evaluation import metrics, panel
from spurbench.images.decode import decode_rgb
from spurbench.images.records import ImageRecord
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.load import read_recipe
from spurbench.recipe.schema import Recipe
from spurbench.studies.ablation.plan import MEASURES, PARTS, AblationRequest, Measured, Variation
from spurbench.studies.ablation.report import SHEET_IMAGES, _sheet, render_markdown, render_plot

log = logging.getLogger(__name__)

SCHEMA = "spurbench.ablation/1"


def ablate(request: AblationRequest) -> dict[str, Any]:
    """Build and measure every row for every seed; write ``ablation.json``, ``.md`` and pictures.

    Results are written after each seed, so that an early look is possible.

    Returns:
        The content of ``ablation.json``.

    Raises:
        SpurbenchError: if a class of a row can't be built, where what is finished is kept; a row
            has another panel than the baseline; or an unseen classifier can't be loaded, or is of
            the panel.
    """
    # No measure needs image quality, and its weights would be asked for at every build.
    variants = {
        row.name: read_recipe(
            request.recipe, (*request.overrides, *row.overrides, "check.quality=[]")
        )
        for row in request.plan.rows
    }
    recipe = variants[request.plan.baseline]
    for name, variant in variants.items():
        if variant.panel.classifiers != recipe.panel.classifiers:
            raise SpurbenchError(
                f"row {name} has another panel than the baseline, {request.plan.baseline}; their "
                "numbers can't be compared"
            )
    phi = panel.load_member(recipe.panel.phi, relative_to=recipe.folder, device=request.device)
    unseen = _load_unseen(request, recipe, phi)
    fooled: dict[str, dict[int, dict[str, float]]] = {row.name: {} for row in request.plan.rows}
    fooled_by_real: dict[str, float] = {}
    runs: dict[str, dict[int, dict[str, Measured]]] = {row.name: {} for row in request.plan.rows}
    real: dict[str, Measured] = {}
    pictures: dict[tuple[str, str], list[bytes]] = {}
    document: dict[str, Any] = {}
    for seed in request.seeds:
        for position, row in enumerate(request.plan.rows, 1):
            log.info("seed %d, row %d of %d: %s", seed, position, len(request.plan.rows), row.name)
            built = _build(request, variants[row.name], row, seed)
            splits = read_rows(built.output)
            features = _features(phi, [r for rows in splits.values() for r in rows])
            fooled[row.name][seed] = fooled_classifiers(splits["generated"], unseen)
            if not fooled_by_real:
                fooled_by_real = fooled_classifiers(splits["real"], unseen)
            for c in request.classes:
                photographs, generated = (
                    [r for r in splits[split] if r.class_index == c.index]
                    for split in ("real", "generated")
                )
                references = [r for r in photographs if r.is_reference]
                others = [r for r in photographs if not r.is_reference]
                measured = measure(generated, references, others, features)
                measured["seconds"] = _seconds(built, c)
                runs[row.name].setdefault(seed, {})[c.name] = measured
                real[c.name] = measure(photographs, references, others, features)
                # A reference is its own nearest; by definition no unseen image is a near copy.
                real[c.name]["copying"] = metrics.copying(
                    _of(others, features), _of(references, features)
                )
                real[c.name]["near_copies"] = None
                if seed == request.seeds[0]:
                    pictures[row.name, c.name] = [r.image for r in generated[:SHEET_IMAGES]]
                    pictures["", c.name] = [r.image for r in references[:SHEET_IMAGES]]
        document = _document(request, phi, unseen, runs, fooled, real, fooled_by_real)
        atomic.write_json(request.output / "ablation.json", document)
        atomic.write_text(request.output / "ablation.md", render_markdown(document))
        atomic.write_bytes(request.output / "ablation.png", render_plot(document))
        sheet = _sheet(request, pictures)
        atomic.write_bytes(request.output / "samples.png", sheet)
    return document


def measure(
    rows: Sequence[Row],
    references: Sequence[Row],
    others: Sequence[Row],
    features: Mapping[str, NDArray[np.float32]],
) -> Measured:
    """The measures of one class's images, but for the seconds.

    Args:
        rows: of a dataset, all of one class.
        references: the rows that were trained on.
        others: the real rows of the class that were not.
        features: phi of each image, by its hash.

    Returns:
        By the names of :data:`MEASURES`; None where nothing in the dataset tells.
    """
    own, trained, untrained = (_of(group, features) for group in (rows, references, others))
    ranks = np.array([[answer.rank for answer in row.panel] for row in rows])
    return {
        "spurious_accuracy": float((ranks == 1).mean()),
        "consistently_spurious": _share([row.consistently_spurious for row in rows]),
        "object_absent": _share([row.object_absent for row in rows]),
        "feature_present": _share([row.feature_present for row in rows]),
        "copying": metrics.copying(own, trained),
        "near_copies": metrics.near_copies(own, trained, untrained),
        "diversity": metrics.mean_pairwise_distance(own),
    }


def fooled_classifiers(rows: Sequence[Row], unseen: Sequence[Classifier]) -> dict[str, float]:
    """Each classifier's spurious accuracy, the mean over the classes of the rows.

    Args:
        rows: of one split of a dataset; they hold the panel's answers.
        unseen: classifiers that are asked now.

    Returns:
        By the classifiers' names, the panel first.
    """
    images = [
        ImageRecord(
            row.file_name,
            row.class_index,
            row.source,
            row.image_sha256,
            partial(bytes, row.image),
            row.class_name,
            row.spurious_feature,
        )
        for row in rows
    ]
    right: dict[str, dict[int, list[bool]]] = {}
    for row, answers in zip(rows, panel.ask(unseen, images), strict=True):
        ranks = {answer.classifier: answer.rank for answer in row.panel}
        ranks |= {answer.classifier: answer.rank for answer in answers}
        for name, rank in ranks.items():
            right.setdefault(name, {}).setdefault(row.class_index, []).append(rank == 1)
    return {
        name: metrics.macro_mean([np.array(those) for those in classes.values()])
        for name, classes in right.items()
    }


def _load_unseen(
    request: AblationRequest, recipe: Recipe, phi: Classifier
) -> tuple[Classifier, ...]:
    unseen = panel.load_panel(request.unseen, relative_to=Path(), device=request.device)
    if not unseen:
        return ()
    members = panel.load_panel(
        recipe.panel.classifiers, relative_to=recipe.folder, device=request.device
    )
    taken = {classifier.info.name for classifier in (phi, *members)}
    weights = {classifier.info.weights_sha256 for classifier in (phi, *members)}
    for classifier in unseen:
        name = classifier.info.name
        if classifier.info.weights_sha256 in weights:
            raise SpurbenchError(
                f"{name} is of the recipe's panel; --unseen takes classifiers that had no part in "
                "the images"
            )
        if name in taken:
            raise SpurbenchError(f"two classifiers are called {name}; rename the folder of one")
        taken.add(name)
    return unseen


def _of(rows: Sequence[Row], features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack([features[row.image_sha256] for row in rows])


def _build(request: AblationRequest, recipe: Recipe, row: Variation, seed: int) -> Built:
    built = build(
        BuildRequest(
            recipe=recipe,
            classes=request.classes,
            data=request.data,
            output=request.output / "datasets" / f"{row.name}-seed{seed}",
            work=request.output / ".stages",
            version="1.0.0",
            seed=seed,
            device=request.device,
        )
    )
    if built.failed:
        name, reason = next(iter(built.failed.items()))
        raise SpurbenchError(
            f"row {row.name}, seed {seed}: class {name} failed: {reason}; the same command goes on "
            "from here"
        )
    return built


def _seconds(built: Built, spurious_class: SpuriousClass) -> float:
    """What a class costs, shared priors counted in full."""
    subjects = (spurious_class.slug, f"prior/{spurious_class.noun}")
    return sum(
        seconds
        for (subject, stage), (seconds, _) in built.seconds.items()
        if subject in subjects and stage in ("prior", "fine-tune", "sample")
    )


@torch.inference_mode()
def _features(phi: Classifier, rows: Sequence[Row]) -> dict[str, NDArray[np.float32]]:
    prepare = transform(phi.preprocessing("whole"))
    images = {row.image_sha256: row.image for row in rows}
    pixels = [prepare(decode_rgb(data)) for data in images.values()]
    parts = [
        phi.features(torch.stack(pixels[i : i + 64]).to(phi.device).float() / 255).cpu().numpy()
        for i in range(0, len(pixels), 64)
    ]
    return dict(zip(images, np.concatenate(parts), strict=True))


def _share(values: Sequence[bool | None]) -> float | None:
    return None if None in values else float(np.mean([bool(value) for value in values]))


def _document(
    request: AblationRequest,
    phi: Classifier,
    unseen: Sequence[Classifier],
    runs: Mapping[str, Mapping[int, Mapping[str, Measured]]],
    fooled: Mapping[str, Mapping[int, Mapping[str, float]]],
    real: Mapping[str, Measured],
    fooled_by_real: Mapping[str, float],
) -> dict[str, Any]:
    unseen_names = {classifier.info.name for classifier in unseen}
    part_of = {
        name: "phi" if name == phi.info.name else "unseen" if name in unseen_names else "panel"
        for name in fooled_by_real
    }
    fooled_baseline = list(fooled[request.plan.baseline].values())
    baseline = [_mean(classes) for classes in runs[request.plan.baseline].values()]
    rows = []
    for row in request.plan.rows:
        by_seed = [_mean(classes) for classes in runs[row.name].values()]
        by_class = {
            c.name: _mean({str(seed): classes[c.name] for seed, classes in runs[row.name].items()})
            for c in request.classes
        }
        fooled_by_seed = list(fooled[row.name].values())
        rows.append(
            {
                **row.model_dump(mode="json"),
                "summary": {name: _summary([m[name] for m in by_seed]) for name in MEASURES},
                "against_baseline": {
                    name: _summary(
                        [
                            None if a[name] is None or b[name] is None else a[name] - b[name]
                            for a, b in zip(by_seed, baseline, strict=False)
                        ]
                    )
                    for name in MEASURES
                },
                "classifiers": _against(fooled_by_seed, fooled_baseline),
                "parts": _against(
                    [_by_part(shares, part_of) for shares in fooled_by_seed],
                    [_by_part(shares, part_of) for shares in fooled_baseline],
                ),
                "classes": by_class,
                "seeds": {str(seed): classes for seed, classes in runs[row.name].items()},
            }
        )
    return {
        "schema": SCHEMA,
        "recipe": request.recipe,
        "overrides": list(request.overrides),
        "baseline": request.plan.baseline,
        "seeds": list(request.seeds),
        "device": str(request.device),
        "feature_space": f"penultimate features of {phi.info.name}, cosine distance",
        "classifiers": part_of,
        "unseen": panel.fingerprint(unseen),
        "versions": package_versions(),
        "real": {
            "classes": dict(real),
            "mean": _mean(real),
            "classifiers": dict(fooled_by_real),
            "parts": _by_part(fooled_by_real, part_of),
        },
        "rows": rows,
    }


def _by_part(shares: Mapping[str, float], part_of: Mapping[str, str]) -> dict[str, float]:
    """Means over the classifiers of each part that has any."""
    groups = {
        part: [share for name, share in shares.items() if part_of[name] == part] for part in PARTS
    }
    return {part: float(np.mean(group)) for part, group in groups.items() if group}


def _against(
    by_seed: Sequence[Mapping[str, float]], baseline: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Spurious accuracy of a row, and its difference to the baseline, by the mappings' names."""
    return {
        name: {
            "seeds": [shares[name] for shares in by_seed],
            "spurious_accuracy": _summary([shares[name] for shares in by_seed]),
            "against_baseline": _summary(
                [a[name] - b[name] for a, b in zip(by_seed, baseline, strict=False)]
            ),
        }
        for name in by_seed[0]
    }


def _mean(groups: Mapping[str, Measured]) -> dict[str, Any]:
    """Each measure's mean over groups; None where a group has none."""
    names = next(iter(groups.values())).keys()
    return {
        name: None
        if any(group[name] is None for group in groups.values())
        else float(np.mean([group[name] for group in groups.values()]))
        for name in names
    }


def _summary(values: Sequence[float | None]) -> dict[str, float | None] | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    low, high = metrics.t_interval(known) or (None, None)
    return {"mean": float(np.mean(known)), "low": low, "high": high}

"""The stages of a class, in order: select, prior, fine-tune, sample, check."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from spurbench.build.request import BuildRequest
from spurbench.build.store import Stage, remove
from spurbench.build.workshop import Workshop
from spurbench.core import atomic
from spurbench.core.documents import read_bytes
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import derive_seed, fingerprint
from spurbench.dataset import quality
from spurbench.dataset.rows import Row
from spurbench.diffusion.base import TRAINED, TextToImage
from spurbench.diffusion.finetune import finetune
from spurbench.diffusion.objective import Subject
from spurbench.diffusion.sample import sample
from spurbench.evaluation import panel
from spurbench.images.decode import decode_rgb
from spurbench.images.records import Answer, ImageRecord
from spurbench.recipe.classes import SpuriousClass

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Examined:
    """What the panel and the detector say of one image; None where there is no detector."""

    image_sha256: str
    panel: tuple[Answer, ...]
    consistently_spurious: bool
    object_score: float | None
    object_absent: bool | None
    feature_score: float | None
    feature_present: bool | None


def build_class(shop: Workshop, spurious_class: SpuriousClass) -> tuple[list[Row], list[Row]]:
    """The rows of one class's real and generated images."""
    recipe = shop.request.recipe
    photographs = [r for r in shop.images.records if r.class_index == spurious_class.index]
    if not photographs:
        raise SpurbenchError(
            f"no images of class {spurious_class.index} ({spurious_class.name}) in "
            f"{shop.images.info.name}; expected a folder like {spurious_class.folder}"
        )
    examined = _examine(shop, spurious_class, photographs, "select")
    chosen = select_references(
        spurious_class, [entry.panel for entry in examined], recipe.select.references
    )
    tuned = None
    if recipe.finetune.method != "base":
        prior = _prior(shop, spurious_class)
        tuned = _finetune(shop, spurious_class, [photographs[i] for i in chosen], prior)
    sampled = _sample(shop, spurious_class, tuned)
    generated = _generated_records(sampled, spurious_class)
    generated_examined = _examine(shop, spurious_class, generated, "check")

    real_quality = _quality(shop, spurious_class, photographs, "quality of real")
    generated_quality = _quality(shop, spurious_class, generated, "quality of generated")
    real_rows = [
        _row(
            spurious_class,
            record,
            entry,
            scores,
            prompt=None,
            seed=None,
            guidance_scale=None,
            num_inference_steps=None,
            kappa=None,
            base_model=None,
            is_reference=position in chosen,
        )
        for position, (record, entry, scores) in enumerate(
            zip(photographs, examined, real_quality, strict=True)
        )
    ]
    generated_rows = [
        _row(
            spurious_class,
            record,
            entry,
            scores,
            prompt=recipe.instance_prompt(spurious_class),
            seed=seed,
            guidance_scale=recipe.sample.guidance_scale,
            num_inference_steps=recipe.sample.steps,
            kappa=recipe.kappa_of(spurious_class),
            base_model=shop.base.name,
            is_reference=False,
        )
        for record, seed, entry, scores in zip(
            generated,
            _sample_seeds(shop.request, spurious_class),
            generated_examined,
            generated_quality,
            strict=True,
        )
    ]
    return real_rows, generated_rows


def _row(
    spurious_class: SpuriousClass,
    record: ImageRecord,
    examined: Examined,
    scores: Mapping[str, float | None],
    **made: Any,
) -> Row:
    """A row of the dataset; ``made`` are the columns that say how the image came about."""
    return Row(
        image=record.read(),
        label=spurious_class.index,
        class_index=spurious_class.index,
        class_name=spurious_class.name,
        wnid=spurious_class.wnid,
        spurious_feature=spurious_class.spurious_feature,
        component=spurious_class.component,
        source="real" if record.source == "real" else "generated",
        consistently_spurious=examined.consistently_spurious,
        object_absent=examined.object_absent,
        object_score=examined.object_score,
        feature_present=examined.feature_present,
        feature_score=examined.feature_score,
        panel=examined.panel,
        file_name=f"{spurious_class.folder}/{Path(record.path).name}",
        image_sha256=examined.image_sha256,
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


def _examine(
    shop: Workshop, spurious_class: SpuriousClass, records: Sequence[ImageRecord], label: str
) -> list[Examined]:
    """Stages 1 and 6: the panel's answers and the object's presence, for each image."""
    check = shop.request.recipe.check

    def make(folder: Path) -> None:
        answers = panel.ask(shop.panel, records)
        objects: Sequence[float | None] = [None] * len(records)
        features: Sequence[float | None] = [None] * len(records)
        if shop.detector is not None:
            images = [decode_rgb(record.read()) for record in records]
            objects = shop.detector.scores(images, spurious_class, "object")
            features = shop.detector.scores(images, spurious_class, "feature")
        entries = [
            Examined(
                image_sha256=record.sha256,
                panel=tuple(entry),
                consistently_spurious=panel.consistently_spurious(entry),
                object_score=thing,
                object_absent=None if thing is None else thing < check.object_threshold,
                feature_score=feature,
                feature_present=None if feature is None else feature >= check.feature_threshold,
            )
            for record, entry, thing, feature in zip(
                records, answers, objects, features, strict=True
            )
        ]
        atomic.write_json(folder / "examined.json", [asdict(entry) for entry in entries])

    inputs = {
        "class": spurious_class.index,
        "images": [record.sha256 for record in records],
        "panel": panel.fingerprint(shop.panel),
        "detector": shop.detector.name if shop.detector else None,
        "thresholds": [check.object_threshold, check.feature_threshold],
    }
    stage = shop.run(spurious_class.slug, label, "examine", inputs, make)
    return [
        Examined(**{**entry, "panel": tuple(Answer(**answer) for answer in entry["panel"])})
        for entry in stage.json("examined.json")
    ]


def _prior(shop: Workshop, spurious_class: SpuriousClass) -> Stage:
    """Stage 2, shared by the classes whose features are of one kind."""
    recipe, request = shop.request.recipe, shop.request
    prompt = recipe.prior_prompt(spurious_class)
    seeds = [derive_seed(request.seed, "prior", prompt, i) for i in range(recipe.prior.images)]

    def make(folder: Path) -> None:
        shop.base.restore()
        _sample_into(
            folder,
            shop.base,
            prompt,
            seeds,
            resolution=recipe.base.resolution,
            steps=recipe.prior.steps,
            guidance_scale=recipe.prior.guidance_scale,
            batch_size=recipe.prior.batch_size,
            precision=recipe.prior.precision,
        )

    inputs = {
        "base": shop.base.fingerprint,
        "resolution": recipe.base.resolution,
        "prompt": prompt,
        "seeds": fingerprint(seeds),
        **recipe.prior.model_dump(mode="json"),
    }
    return shop.run(spurious_class.prior_subject, "prior", "prior", inputs, make)


def _finetune(
    shop: Workshop,
    spurious_class: SpuriousClass,
    references: Sequence[ImageRecord],
    prior: Stage,
) -> Stage:
    """Stage 3."""
    recipe = shop.request.recipe
    kappa = recipe.kappa_of(spurious_class)

    def make(folder: Path) -> None:
        shop.base.restore()
        priors = _image_files(prior)
        subject = Subject(
            index=spurious_class.index,
            references=[decode_rgb(record.read()) for record in references],
            priors=[Image.open(path) for path in priors],
            reference_names=[Path(record.path).name for record in references],
            prior_names=[path.name for path in priors],
            instance_prompt=recipe.instance_prompt(spurious_class),
            prior_prompt=recipe.prior_prompt(spurious_class),
            noun=spurious_class.noun,
            resolution=recipe.base.resolution,
            kappa=kappa,
            phi=shop.phi.features,
            phi_input=shop.phi.input_size,
            class_weight=shop.phi.head_weight[shop.phi.columns([spurious_class.wnid])[0]],
        )
        weights, losses = finetune(
            shop.base,
            subject,
            recipe.finetune,
            recipe.sfsl,
            shop.request.seed,
            folder,
            shop.decoder,
        )
        dtype = getattr(torch, recipe.finetune.weights_dtype)
        for name in TRAINED:
            tensors = {
                key: value.to(dtype).contiguous() if value.is_floating_point() else value
                for key, value in weights[name].items()
            }
            save_file(tensors, folder / f"{name}.safetensors")
        atomic.write_json(folder / "losses.json", losses)

    inputs = {
        "base": shop.base.fingerprint,
        "resolution": recipe.base.resolution,
        "class": spurious_class.index,
        "prompts": [recipe.instance_prompt(spurious_class), recipe.prior_prompt(spurious_class)],
        "references": [record.sha256 for record in references],
        "prior": prior.fingerprint,
        "phi": panel.fingerprint([shop.phi]),
        "kappa": kappa,
        "seed": shop.request.seed,
        "finetune": recipe.finetune.model_dump(mode="json", exclude={"checkpoint_every"}),
        # Without the loss its settings change nothing; so ablations share what they have in common.
        "sfsl": recipe.sfsl.model_dump(mode="json", exclude={"kappa", "default_kappa"})
        if kappa
        else None,
        "decoder": shop.decoder.fingerprint if shop.decoder else None,
    }
    return shop.run(spurious_class.slug, "fine-tune", "finetune", inputs, make)


def _sample(shop: Workshop, spurious_class: SpuriousClass, tuned: Stage | None) -> Stage:
    """Stage 5, from the fine-tuned weights, or from the base's without any."""
    recipe = shop.request.recipe
    seeds = _sample_seeds(shop.request, spurious_class)

    def make(folder: Path) -> None:
        if tuned is None:
            shop.base.restore()
        else:
            folders = {name: tuned.folder / f"{name}.safetensors" for name in TRAINED}
            shop.base.load({name: load_file(path) for name, path in folders.items()})
        _sample_into(
            folder,
            shop.base,
            recipe.instance_prompt(spurious_class),
            seeds,
            resolution=recipe.base.resolution,
            steps=recipe.sample.steps,
            guidance_scale=recipe.sample.guidance_scale,
            batch_size=recipe.sample.batch_size,
            precision=recipe.sample.precision,
        )

    inputs = {
        "weights": tuned.fingerprint if tuned else shop.base.fingerprint,
        "prompt": recipe.instance_prompt(spurious_class),
        "resolution": recipe.base.resolution,
        "seeds": fingerprint(seeds),
        **recipe.sample.model_dump(mode="json"),
    }
    return shop.run(spurious_class.slug, "sample", "sample", inputs, make)


def _sample_seeds(request: BuildRequest, spurious_class: SpuriousClass) -> list[int]:
    return [
        derive_seed(request.seed, "sample", spurious_class.index, i)
        for i in range(request.recipe.sample.images)
    ]


def _sample_into(
    folder: Path,
    base: TextToImage,
    prompt: str,
    seeds: Sequence[int],
    *,
    batch_size: int,
    **options: Any,
) -> None:
    """Write images as 0000.png, 0001.png, ..., going on after those an earlier run left."""
    # Whole batches only, so that an image is always sampled in the same company: floating point
    # results may differ in the last bit between batch sizes.
    there = _keep_whole_images(folder, len(seeds))
    start = there - there % batch_size if there < len(seeds) else there
    images = sample(base, prompt, seeds[start:], batch_size=batch_size, **options)
    for position, image in enumerate(images, start):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        atomic.write_bytes(folder / f"{position:04d}.png", buffer.getvalue())


def _keep_whole_images(folder: Path, count: int) -> int:
    """How many of ``count`` images, from the first on, are there and whole; others are removed."""
    whole: list[Path] = []
    for path in (folder / f"{position:04d}.png" for position in range(count)):
        try:
            decode_rgb(read_bytes(path))
        except FileNotFoundError:
            break
        except SpurbenchError as error:
            log.warning("%s is damaged (%s); sampling it again", path, reason(error))
            break
        whole.append(path)
    for path in set(folder.glob("[0-9]*.png")).difference(whole):
        remove(path)
    return len(whole)


def _image_files(stage: Stage) -> list[Path]:
    return sorted(stage.folder.glob("[0-9]*.png"))


def _generated_records(sampled: Stage, spurious_class: SpuriousClass) -> list[ImageRecord]:
    return [
        ImageRecord.from_file(
            path,
            class_index=spurious_class.index,
            source="generated",
            class_name=spurious_class.name,
            spurious_feature=spurious_class.spurious_feature,
        )
        for path in _image_files(sampled)
    ]


def _quality(
    shop: Workshop, spurious_class: SpuriousClass, records: Sequence[ImageRecord], label: str
) -> list[dict[str, float | None]]:
    """Stage 6's image quality; null for a metric whose weights can't be had here."""
    metrics = shop.request.recipe.check.quality
    available = quality.available(metrics, shop.request.device)
    columns: dict[str, list[float | None]] = {}
    for metric in metrics:
        if metric not in available:
            columns[metric] = [None] * len(records)
            continue

        def make(folder: Path, metric: str = metric) -> None:
            images = [decode_rgb(record.read()) for record in records]
            scores = quality.score(images, metric, shop.request.device)
            atomic.write_json(folder / "scores.json", scores)

        inputs = {"images": [record.sha256 for record in records], "metric": metric}
        stage = shop.run(spurious_class.slug, f"{label}: {metric}", "quality", inputs, make)
        columns[metric] = stage.json("scores.json")
    return [{m: scores[i] for m, scores in columns.items()} for i in range(len(records))]

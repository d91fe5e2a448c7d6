"""`spurbench build --dry-run`: what a build will do and cost, without touching a weight.

What the networks cost per sample is known of the embedded recipes, and counted of others
(:mod:`spurbench.build.costs`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spurbench.build.costs import known_or_counted, read_configs
from spurbench.core import hub
from spurbench.core.documents import read_json
from spurbench.core.errors import SpurbenchError
from spurbench.diffusion.cost import Costs, step_operations
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.schema import Recipe
from spurbench.recipe.sections import Prior, Sample

log = logging.getLogger(__name__)

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class PlannedStage:
    """A stage over all classes.

    Attributes:
        name: as the build prints it.
        runs: how often it runs.
        work: what one run does, in words.
        operations: floating point operations of all runs.
        disk: bytes that all runs leave.
    """

    name: str
    runs: int
    work: str
    operations: float
    disk: float


@dataclass(frozen=True)
class Plan:
    """What a build will do.

    Attributes:
        architecture: where the networks' configurations were found.
        stages: in order; selection and checking are left out of the operations, they are small.
        costs: per sample.
        memory: bytes at the peak of fine-tuning: weights, gradients, optimiser, kept activations.
            What a checkpointed block recomputes, the allocator and the device's context come on
            top.
        checkpoint: bytes of the largest checkpoint, there only while a class is fine-tuned.
    """

    architecture: str
    stages: tuple[PlannedStage, ...]
    costs: Costs
    memory: float
    checkpoint: float


def plan(
    recipe: Recipe,
    classes: Sequence[SpuriousClass],
    *,
    replicates: int = 1,
    make_positives: bool = True,
    fetch: bool = True,
) -> Plan:
    """Plan a build.

    Args:
        recipe: every number.
        classes: for which pairs.
        replicates: generators of each class.
        make_positives: whether they are not given as photographs.
        fetch: whether the base's configurations may be fetched; else only cached ones are read.

    Raises:
        SpurbenchError: if the base's configurations are nowhere to be had.
    """
    configs, architecture = _configurations(recipe, fetch)
    costs = known_or_counted(configs, recipe)
    tuning, batch = recipe.finetune, recipe.finetune.batch_size
    tuned = tuning.method != "base"
    nouns = {c.noun for c in classes} if tuned else set()
    side, image_bytes = recipe.base.resolution, 1.5 * recipe.base.resolution**2

    def sampling(
        name: str, runs: int, images: int, settings: Prior | Sample, *, steered: bool = False
    ) -> PlannedStage:
        # PNDM, which a base's own is taken to be, calls the network once more than it has steps.
        once_more = recipe.base.scheduler in (None, "PNDMScheduler")
        predictions = settings.steps + once_more
        each = (2 if settings.guidance_scale > 1 else 1) * costs.unet.forward
        if steered:  # without weight gradients a backward pass costs about one forward
            each = 2 * each + costs.decode.training
        return PlannedStage(
            name,
            runs,
            f"{images} images of {side} px, {settings.steps} steps",
            runs * images * (predictions * each + costs.decode.forward),
            runs * images * image_bytes,
        )

    generators = len(classes) * replicates
    stages = []
    if tuned:
        stages.append(sampling("prior", len(nouns), recipe.prior.images, recipe.prior))
        stored = costs.unet.parameters + costs.text_encoder.parameters
        stages.append(
            PlannedStage(
                "fine-tune",
                generators,
                f"{tuning.steps} steps of {batch} + {batch} samples, {tuning.method}",
                replicates * sum(_finetuning(recipe, costs, recipe.kappa_of(c)) for c in classes),
                generators * stored * (2 if tuning.weights_dtype == "float16" else 4),
            )
        )
    images = recipe.sample.images
    positives = recipe.positives.images if make_positives else 0
    steered = recipe.sample.phi_guidance > 0
    stages.append(sampling("sample", generators, images, recipe.sample, steered=steered))
    makers = len(recipe.controls.makers) if recipe.controls.enabled else 0
    if makers:
        stages.append(sampling("controls", makers * generators, images, recipe.sample))
    places = len(recipe.contexts.phrases)
    if places:
        each, runs = recipe.contexts.images, places * generators
        stages.append(sampling("contexts", runs, each, recipe.sample, steered=steered))
    if positives:
        stages.append(sampling("positives", len(classes), positives, recipe.sample))
    checked = replicates * (images * (1 + makers) + places * recipe.contexts.images) + positives
    stages.append(
        PlannedStage(
            "check",
            len(classes),
            f"{checked} images, {len(recipe.panel.classifiers)} classifiers",
            0,
            0,
        )
    )
    trained = _trained_parameters(recipe, costs)
    return Plan(
        architecture=architecture,
        stages=tuple(stages),
        costs=costs,
        memory=_peak_memory(recipe, costs, trained, max(recipe.kappa_of(c) for c in classes)),
        checkpoint=_state_bytes(recipe) * trained if tuned else 0,
    )


def _configurations(recipe: Recipe, fetch: bool) -> tuple[dict[str, dict[str, Any]], str]:
    """The networks' configurations, and where they are from: the base itself if it can be had."""
    own = Path(recipe.locate(recipe.base.model))
    if own.is_dir():
        return read_configs(own), str(own)
    from huggingface_hub import hf_hub_download

    if fetch:
        hub.use_cache_if_unreachable()
    try:
        paths = {
            name: hf_hub_download(
                recipe.base.model,
                f"{name}/config.json",
                revision=recipe.base.revision,
                local_files_only=not fetch,
            )
            for name in ("unet", "vae", "text_encoder")
        }
    except (OSError, ValueError) as error:
        if recipe.base.architecture is None:
            raise SpurbenchError(
                f"base model {recipe.base.model} can't be reached for its configuration; give a "
                "local folder in diffusers' layout with --base, or check the network"
            ) from error
        kept = recipe.find(recipe.base.architecture)
        return read_configs(kept), f"{kept} (the base itself can't be reached)"
    return {name: read_json(Path(path)) for name, path in paths.items()}, recipe.base.model


def _finetuning(recipe: Recipe, costs: Costs, kappa: float) -> float:
    """Floating point operations of one class's fine-tuning."""
    encoded = recipe.select.references + recipe.prior.images
    return recipe.finetune.steps * step_operations(recipe, costs, kappa) + encoded * costs.encode


def _trained_parameters(recipe: Recipe, costs: Costs) -> int:
    """Upper bound: adapters and an embedding are counted as nothing beside the networks."""
    if recipe.finetune.method != "full":
        return 0
    text = costs.text_encoder.parameters if recipe.finetune.train_text_encoder else 0
    return costs.unet.parameters + text


def _state_bytes(recipe: Recipe) -> int:
    """Of a trained weight's checkpoint: itself, AdamW's two moments, the average if any."""
    return 16 if recipe.finetune.ema_decay else 12


def _peak_memory(recipe: Recipe, costs: Costs, trained: int, kappa: float) -> float:
    parameters = costs.unet.parameters + costs.text_encoder.parameters + costs.vae_parameters
    half = recipe.finetune.precision != "float32"
    weights = parameters * (4 + (2 if half else 0))  # autocast keeps a copy for the backward pass
    # Gradient, two moments, the average if any: as much as a checkpoint, whose weights are above.
    optimiser = _state_bytes(recipe) * trained
    batch = recipe.finetune.batch_size
    kept = 2 * batch * costs.unet.kept + 2 * costs.text_encoder.kept
    if kappa and not recipe.sfsl.decoder:
        side = (recipe.sfsl.decode_resolution or recipe.base.resolution) / recipe.base.resolution
        kept += batch * (2 if recipe.sfsl.gradient == "both" else 1) * side**2 * costs.decode.kept
    return weights + optimiser + kept

"""`spurbench build --dry-run`: what a build will do and cost, without touching a weight.

The networks are made from their configurations of tensors that have shapes and no content; floating
point operations and what is kept for the backward pass are counted on those.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spurbench.core import hub
from spurbench.core.errors import SpurbenchError
from spurbench.recipe.classes import SpuriousClass
from spurbench.recipe.schema import Recipe

log = logging.getLogger(__name__)

TERA, GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Cost:
    """Of one network on one sample.

    Attributes:
        forward: floating point operations, a multiplication and an addition being two.
        training: of the forward and the backward pass.
        kept: bytes of activations kept for the backward pass.
        parameters: number of them.
    """

    forward: float
    training: float
    kept: float
    parameters: int


@dataclass(frozen=True)
class Costs:
    """Of a base model at a recipe's resolution and precision.

    Attributes:
        unet: one noise prediction.
        text_encoder: one prompt.
        decode: one image out of latents, the decoder frozen.
        encode: floating point operations of one image into latents.
        vae_parameters: number of them.
    """

    unet: Cost
    text_encoder: Cost
    decode: Cost
    encode: float
    vae_parameters: int


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


def plan(recipe: Recipe, folder: Path, classes: Sequence[SpuriousClass]) -> Plan:
    """Plan a build.

    Args:
        recipe: every number.
        folder: where its relative paths start.
        classes: for which pairs.

    Raises:
        SpurbenchError: if the base's configurations are nowhere to be had.
    """
    configs, architecture = _configurations(recipe, folder)
    costs = count(configs, recipe)
    tuning, batch = recipe.finetune, recipe.finetune.batch_size
    tuned = tuning.method != "base"
    nouns = {c.noun for c in classes} if tuned else set()
    side, image_bytes = recipe.base.resolution, 1.5 * recipe.base.resolution**2

    def sampling(images: int, steps: int, guidance: float) -> float:
        # PNDM calls the network once more than it has steps, twice a step under guidance.
        calls = (steps + 1) * (2 if guidance > 1 else 1)
        return images * (calls * costs.unet.forward + costs.decode.forward)

    stages = []
    if tuned:
        prior = recipe.prior
        stages.append(
            PlannedStage(
                "prior",
                len(nouns),
                f"{prior.images} images of {side} px, {prior.steps} steps",
                len(nouns) * sampling(prior.images, prior.steps, prior.guidance_scale),
                len(nouns) * prior.images * image_bytes,
            )
        )
        stored = costs.unet.parameters + costs.text_encoder.parameters
        stages.append(
            PlannedStage(
                "fine-tune",
                len(classes),
                f"{tuning.steps} steps of {batch} + {batch} samples, {tuning.method}",
                sum(_finetuning(recipe, costs, recipe.kappa_of(c)) for c in classes),
                len(classes) * stored * (2 if tuning.weights_dtype == "float16" else 4),
            )
        )
    images = recipe.sample.images
    stages.append(
        PlannedStage(
            "sample",
            len(classes),
            f"{images} images of {side} px, {recipe.sample.steps} steps",
            len(classes) * sampling(images, recipe.sample.steps, recipe.sample.guidance_scale),
            len(classes) * images * image_bytes,
        )
    )
    stages.append(
        PlannedStage(
            "check",
            len(classes),
            f"{images} images, {len(recipe.panel.classifiers)} classifiers",
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
        checkpoint=12 * trained if tuned else 0,
    )


def count(configs: dict[str, dict[str, Any]], recipe: Recipe) -> Costs:
    """Count operations and kept activations per sample.

    Args:
        configs: ``unet``, ``vae`` and ``text_encoder``, as their ``config.json`` hold them.
        recipe: for resolution, precision and gradient checkpointing.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.device("meta"):
        cases, encode = _cases(configs, recipe)
        parameters = {
            name: sum(p.numel() for p in net.parameters()) for name, (net, _) in cases.items()
        }
        operations = {name: _training_operations(run) for name, (_, run) in cases.items()}
        encoding = _operations(encode)
    # Fake tensors pass through the same kernels as a device's, fused attention among them, which
    # keeps no attention matrix; on meta it would be written out.
    with FakeTensorMode():
        cases, _ = _cases(configs, recipe)
        kept = {name: _kept(net, run) for name, (net, run) in cases.items()}
    costs = {name: Cost(*operations[name], kept[name], parameters[name]) for name in cases}
    return Costs(
        unet=costs["unet"],
        text_encoder=costs["text_encoder"],
        decode=costs["vae"],
        encode=encoding,
        vae_parameters=parameters["vae"],
    )


def _cases(
    configs: dict[str, dict[str, Any]], recipe: Recipe
) -> tuple[dict[str, tuple[nn.Module, Callable[[], Tensor]]], Callable[[], Any]]:
    """The networks as they are trained, each with a forward pass of one sample; and an encoding."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    dtype = getattr(torch, recipe.finetune.precision)
    with _default_dtype(dtype):  # a network of fake tensors can't be converted afterwards
        unet = UNet2DConditionModel.from_config(configs["unet"])
        vae = AutoencoderKL.from_config(configs["vae"]).requires_grad_(False)
        text_encoder = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
    if recipe.finetune.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        text_encoder.gradient_checkpointing_enable()
    if recipe.finetune.gradient_checkpointing or recipe.sfsl.checkpoint_decoder:
        vae.enable_gradient_checkpointing()
    unet.train()
    text_encoder.train()
    resolution = recipe.base.resolution
    side = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    tokens = text_encoder.config.max_position_embeddings
    latents = torch.empty(1, unet.config.in_channels, side, side, dtype=dtype, requires_grad=True)
    prompt = torch.empty(1, tokens, unet.config.cross_attention_dim, dtype=dtype)
    time, ids = (torch.empty(1, *shape, dtype=torch.int64) for shape in ((), (tokens,)))
    pixels = torch.empty(1, 3, resolution, resolution, dtype=dtype)
    return {
        "unet": (unet, lambda: unet(latents.detach(), time, prompt).sample),
        "text_encoder": (text_encoder, lambda: text_encoder(ids)[0]),
        "vae": (vae, lambda: vae.decode(latents).sample),
    }, lambda: vae.encode(pixels)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _configurations(recipe: Recipe, folder: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """The networks' configurations, and where they are from: the base itself if it can be had."""
    own = folder / recipe.base.model
    if own.is_dir():
        return _read_configs(own), str(own)
    from huggingface_hub import hf_hub_download

    hub.use_cache_if_unreachable()
    try:
        paths = {
            name: hf_hub_download(
                recipe.base.model, f"{name}/config.json", revision=recipe.base.revision
            )
            for name in ("unet", "vae", "text_encoder")
        }
    except (OSError, ValueError) as error:
        if recipe.base.architecture is None:
            raise SpurbenchError(
                f"base model {recipe.base.model} can't be reached for its configuration; give a "
                "local folder in diffusers' layout with --base, or check the network"
            ) from error
        kept = folder / recipe.base.architecture
        return _read_configs(kept), f"{kept} (the base itself can't be reached)"
    configs = {name: json.loads(Path(path).read_text()) for name, path in paths.items()}
    return configs, recipe.base.model


def _read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    names = ("unet", "vae", "text_encoder")
    try:
        return {name: json.loads((folder / name / "config.json").read_text()) for name in names}
    except (OSError, ValueError) as error:
        raise SpurbenchError(
            f"{folder} is not a base model in diffusers' layout: {error}"
        ) from None


def _training_operations(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Floating point operations of a forward pass, and of it with its backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        output = run()
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward, counter.get_total_flops()


@torch.no_grad()
def _operations(run: Callable[[], Any]) -> float:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _kept(network: nn.Module, run: Callable[[], Tensor]) -> float:
    """Bytes of what a forward pass keeps for the backward pass, the weights left out."""
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = run()
    del output  # the graph holds what was noted until here, so that no address is counted twice
    return sum(kept.values())


def step_operations(recipe: Recipe, costs: Costs, kappa: float) -> float:
    """Floating point operations of one fine-tuning step, the mean over steps.

    Args:
        recipe: every number.
        costs: per sample; those of a recipe without checkpointing leave recomputation out.
        kappa: weight of the similarity loss; 0 turns it off.
    """
    tuning = recipe.finetune
    # Without weight gradients (adapters, an embedding) a backward pass costs about one forward.
    unet = costs.unet.training if tuning.method == "full" else 2 * costs.unet.forward
    text = costs.text_encoder
    step = 2 * tuning.batch_size * unet
    step += 2 * (text.training if tuning.train_text_encoder else text.forward)
    if kappa:
        decoded = tuning.batch_size * (2 if recipe.sfsl.gradient == "both" else 1)
        step += decoded * _decoding(recipe) * costs.decode.training / recipe.sfsl.every
    return step


def _finetuning(recipe: Recipe, costs: Costs, kappa: float) -> float:
    """Floating point operations of one class's fine-tuning."""
    encoded = recipe.select.references + recipe.prior.images
    return recipe.finetune.steps * step_operations(recipe, costs, kappa) + encoded * costs.encode


def _decoding(recipe: Recipe) -> float:
    """What the similarity loss's decoding costs, of a full one of every sample.

    A tiny decoder is counted as nothing.
    """
    if recipe.sfsl.decoder:
        return 0
    side = (recipe.sfsl.decode_resolution or recipe.base.resolution) / recipe.base.resolution
    return side**2 * recipe.sfsl.max_timestep


def _trained_parameters(recipe: Recipe, costs: Costs) -> int:
    """Upper bound: adapters and an embedding are counted as nothing beside the networks."""
    if recipe.finetune.method != "full":
        return 0
    text = costs.text_encoder.parameters if recipe.finetune.train_text_encoder else 0
    return costs.unet.parameters + text


def _peak_memory(recipe: Recipe, costs: Costs, trained: int, kappa: float) -> float:
    parameters = costs.unet.parameters + costs.text_encoder.parameters + costs.vae_parameters
    half = recipe.finetune.precision != "float32"
    weights = parameters * (4 + (2 if half else 0))  # autocast keeps a copy for the backward pass
    optimiser = 12 * trained  # gradient and two moments
    batch = recipe.finetune.batch_size
    kept = 2 * batch * costs.unet.kept + 2 * costs.text_encoder.kept
    if kappa and not recipe.sfsl.decoder:
        side = (recipe.sfsl.decode_resolution or recipe.base.resolution) / recipe.base.resolution
        kept += batch * (2 if recipe.sfsl.gradient == "both" else 1) * side**2 * costs.decode.kept
    return weights + optimiser + kept

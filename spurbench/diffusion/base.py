"""The text-to-image model that is fine-tuned: loading, fingerprint, restoring."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spurbench.core import hub
from spurbench.core.errors import SpurbenchError, reason
from spurbench.core.identity import update_with_values
from spurbench.recipe.sections import Scheduler

log = logging.getLogger(__name__)

TRAINED = ("unet", "text_encoder")


@dataclass
class TextToImage:
    """A Stable Diffusion pipeline in float32 whose U-Net and text encoder can be put back.

    Attributes:
        pipeline: diffusers' ``StableDiffusionPipeline``, without a safety checker.
        name: the hub id, or the folder's name.
        fingerprint: sha256 over the weights of the U-Net, the text encoder and the VAE, the
            scheduler (its configuration; its kind too, where it is not the base's own) and the
            tokenizer's vocabulary.
    """

    pipeline: Any
    name: str
    fingerprint: str
    _initial: dict[str, dict[str, Tensor]] = field(repr=False)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        device: torch.device = self.pipeline.unet.device
        return device

    @cached_property
    def compiled_unet(self) -> Any:
        """The U-Net through ``torch.compile``: the same weights, compiled at the first call.

        What was compiled serves every later class, because their weights are put back in place.
        Shapes are compiled as they are: training has one, and sampling does not come here.
        """
        return torch.compile(self.pipeline.unet, dynamic=False)

    def restore(self) -> None:
        """Put the base weights back in place, so that the next class starts from them."""
        self.load(self._initial)

    def load(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy weights into the U-Net and the text encoder in place.

        Args:
            weights: a state dict for each of :data:`TRAINED`, of any float dtype.
        """
        for name in TRAINED:
            getattr(self.pipeline, name).load_state_dict(weights[name])


@dataclass(frozen=True)
class Decoder:
    """What the similarity loss decodes with instead of the VAE.

    Attributes:
        network: an ``AutoencoderTiny``, float32 and frozen.
        fingerprint: sha256 over its weights.
    """

    network: Any
    fingerprint: str


def load_base(
    model: str,
    *,
    revision: str | None,
    device: torch.device,
    scheduler: Scheduler | None = None,
) -> TextToImage:
    """Load a Stable Diffusion 1.x or 2.x base in float32.

    Args:
        model: a folder in diffusers' layout, else a hub id.
        revision: of a hub id.
        device: where to put it.
        scheduler: of diffusers, which samples instead of the base's own, over the same noise
            schedule.

    Raises:
        SpurbenchError: if it can't be had, or is another kind of pipeline (SDXL has two text
            encoders and a refiner, which the joint fine-tuning here does not know).
    """
    from diffusers import StableDiffusionPipeline

    folder = Path(model)
    if not folder.is_dir():
        hub.use_cache_if_unreachable()
    options = {} if folder.is_dir() or revision is None else {"revision": revision}
    _require_stable_diffusion(model, options)
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            model,
            dtype=torch.float32,
            safety_checker=None,
            requires_safety_checker=False,
            **options,
        )
    except (OSError, ValueError) as error:
        raise SpurbenchError(_unavailable(model, error)) from error
    if scheduler is not None:
        import diffusers

        kind = getattr(diffusers, scheduler)
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    for name in ("unet", "text_encoder", "vae"):
        network = getattr(pipeline, name).requires_grad_(False).eval()
        if device.type == "cuda":
            # Tensor cores convolve channels-last; other layouts are turned around at every layer.
            network.to(memory_format=torch.channels_last)
    return TextToImage(
        pipeline=pipeline,
        name=folder.name if folder.is_dir() else model,
        fingerprint=_fingerprint(pipeline, scheduler),
        # On the host: on the device it would take 4 bytes a weight of the memory that fine-tuning
        # is short of, to save a second a class.
        _initial={
            name: {
                key: value.detach().cpu().clone()
                for key, value in getattr(pipeline, name).state_dict().items()
            }
            for name in TRAINED
        },
    )


def load_decoder(model: str, *, device: torch.device) -> Decoder:
    """Load an ``AutoencoderTiny`` (TAESD) for the similarity loss, in float32 and frozen.

    Args:
        model: a folder in diffusers' layout, else a hub id.
        device: where to put it.

    Raises:
        SpurbenchError: if it can't be had, or is another kind of model.
    """
    from diffusers import AutoencoderTiny

    if not Path(model).is_dir():
        hub.use_cache_if_unreachable()
    try:
        kind = AutoencoderTiny.load_config(model).get("_class_name")
        if kind != "AutoencoderTiny":
            raise SpurbenchError(f"sfsl.decoder {model} is a {kind}, not an AutoencoderTiny")
        decoder = AutoencoderTiny.from_pretrained(model, torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise SpurbenchError(
            f"sfsl.decoder {model} can't be loaded ({reason(error)}); give a local folder in "
            "diffusers' layout, or check the network"
        ) from error
    decoder.to(device).requires_grad_(False).eval()
    digest = hashlib.sha256()
    _update(digest, "decoder", decoder)
    return Decoder(decoder, digest.hexdigest())


def _require_stable_diffusion(source: str, options: Mapping[str, str]) -> None:
    from diffusers import DiffusionPipeline

    try:
        config = DiffusionPipeline.load_config(source, **options)
    except (OSError, ValueError) as error:
        raise SpurbenchError(_unavailable(source, error)) from error
    kind = config.get("_class_name")
    if kind != "StableDiffusionPipeline":
        raise SpurbenchError(
            f"base model {source} is a {kind}; only Stable Diffusion 1.x and 2.x bases "
            "(StableDiffusionPipeline) can be fine-tuned here"
        )


def _unavailable(source: str, error: Exception) -> str:
    return (
        f"base model {source} can't be loaded ({reason(error)}); give a local folder in diffusers' "
        "layout with --base, or check the network"
    )


def _fingerprint(pipeline: Any, scheduler: Scheduler | None) -> str:
    digest = hashlib.sha256()
    for name in ("unet", "text_encoder", "vae"):
        _update(digest, name, getattr(pipeline, name))
    settings = {k: v for k, v in pipeline.scheduler.config.items() if not k.startswith("_")}
    digest.update(repr(sorted(settings.items())).encode())
    if scheduler is not None:
        digest.update(scheduler.encode())
    digest.update(repr(sorted(pipeline.tokenizer.get_vocab().items())).encode())
    return digest.hexdigest()


def _update(digest: hashlib._Hash, name: str, module: nn.Module) -> None:
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{name}.{key} {tuple(value.shape)}".encode())
        update_with_values(digest, value)

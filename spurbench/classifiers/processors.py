"""What an image processor of transformers does, said as resize, centre crop and normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from spurbench.classifiers.info import Interpolation, Preprocessing
from spurbench.core.errors import SpurbenchError, reason

TOLERANCE = 0.1
"""Levels of 255, on average, by which libraries' resampling of one image may differ.

Measured: below 0.01. Any other size or crop, or another interpolation, differs by more than 1.
"""

_INTERPOLATIONS: dict[int, Interpolation] = {
    0: "nearest",
    1: "lanczos",
    2: "bilinear",
    3: "bicubic",
}


def evaluation_of(file: Path, name: str) -> Preprocessing:
    """What the image processor that a ``preprocessor_config.json`` describes does.

    The classes of processors each read their settings in a way of their own, so what these are
    taken to mean is compared with what the processor makes of two images.

    Args:
        file: read by transformers, whose own classes only are made.
        name: what to call the classifier in messages.

    Raises:
        SpurbenchError: if there is no such processor, or what it does is not resize, centre crop
            and normalisation.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            str(file.parent), local_files_only=True, trust_remote_code=False
        )
        probes = [
            (image, processor(image, return_tensors="pt")["pixel_values"][0]) for image in _probes()
        ]
    except Exception as error:  # what processors raise on odd settings has no common ancestor
        raise SpurbenchError(
            f"{file} describes no image processor of transformers: {reason(error)}"
        ) from None
    if all(made.dim() == 3 and made.shape == probes[0][1].shape for _, made in probes):
        for own in _readings(processor, *probes[0][1].shape[1:]):
            if all(_agrees(own, image, made) for image, made in probes):
                return own
    raise SpurbenchError(
        f"{name}: its image processor, {type(processor).__name__}, does more than resize, crop in "
        "the centre and normalise; load the network yourself and give it with a transform "
        "(Python API)"
    )


def _readings(processor: Any, height: int, width: int) -> Iterator[Preprocessing]:
    """What its settings may mean, for an output of a size."""
    size = dict(processor.size or {})
    short = size.get("shortest_edge") or size.get("height") or height
    shares = [1.0, getattr(processor, "crop_pct", None) or 1.0, 224 / 256]
    sizes = [(height, width), *((int(short / share),) for share in shares)]
    if "height" in size:
        sizes.append((size["height"], size["width"]))
    mean, std = _normalisation(processor)
    interpolation = _INTERPOLATIONS.get(processor.resample)
    if interpolation is None:
        return
    for resize in sizes:
        yield Preprocessing(
            mode="model",
            resize=resize,
            crop=(height, width),
            interpolation=interpolation,
            mean=mean,
            std=std,
        )


def _normalisation(
    processor: Any,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of pixels in [0, 1]; processors may scale and shift them first."""
    scale = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    shift = 1.0 if getattr(processor, "rescale_offset", False) else 0.0
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.do_normalize:
        mean, std = list(processor.image_mean), list(processor.image_std)
        if getattr(processor, "include_top", False):  # EfficientNet's divide by it twice
            std = [value * value for value in std]
    red, green, blue = ((m + shift) / scale for m in mean)
    return (red, green, blue), (std[0] / scale, std[1] / scale, std[2] / scale)


def _probes() -> Iterator[Image.Image]:
    """Smooth noise, wide and high, in which a shift by one pixel shows."""
    values = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    noise = Image.fromarray(values)
    for size in ((400, 300), (300, 360)):
        yield noise.resize(size, Image.Resampling.BICUBIC)


def _agrees(own: Preprocessing, image: Image.Image, made: Tensor) -> bool:
    """Whether the processor made of an image what its settings are taken to mean."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import pil_to_tensor, resize

    assert own.interpolation and own.crop, "as in any reading"
    resized = pil_to_tensor(resize(image, list(own.resize), InterpolationMode(own.interpolation)))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (own.mean, own.std))
    levels = (made * std + mean) * 255
    spare = [have - want for have, want in zip(resized.shape[1:], own.crop, strict=True)]
    if min(spare) < 0:
        return False
    # A crop that begins at half a pixel is rounded up by some and down by others.
    tops, lefts = ({half // 2, (half + 1) // 2} for half in spare)
    height, width = own.crop
    return any(
        (resized[:, top : top + height, left : left + width] - levels).abs().mean() < TOLERANCE
        for top in tops
        for left in lefts
    )

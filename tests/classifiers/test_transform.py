from __future__ import annotations

import itertools

import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from spurbench.classifiers.classifier import transform
from spurbench.classifiers.info import Preprocessing


def by_pillow(image: Image.Image, resize, crop, interpolation) -> torch.Tensor:
    """What results were measured with before: Pillow's resampling, sizes by hand."""
    if len(resize) == 2:
        size = (resize[1], resize[0])
    elif image.width <= image.height:
        size = (resize[0], max(resize[0], int(resize[0] * image.height / image.width)))
    else:
        size = (max(resize[0], int(resize[0] * image.width / image.height)), resize[0])
    resized = image.resize(size, Image.Resampling[interpolation.upper()])
    return tv.center_crop(tv.pil_to_tensor(resized), list(crop))


SIZES = [(24, 24), (23, 24), (25, 24), (48, 31), (31, 48), (17, 200), (200, 17), (97, 61), (1, 1)]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(
    ("resize", "crop"),
    [
        ((24,), (24, 24)),
        ((27,), (24, 24)),
        ((26, 31), (24, 28)),
        ((20,), (24, 24)),  # smaller than its crop: padded
        ((24, 24), (24, 24)),
    ],
)
def test_pixels_are_pillows_bit_for_bit(interpolation, resize, crop):
    for seed, size in itertools.product(range(2), SIZES):
        image = Image.effect_noise(size, 60 + seed).convert("RGB")
        preprocessing = Preprocessing(
            mode="model",
            resize=resize,
            crop=crop,
            interpolation=interpolation,
            mean=(0, 0, 0),
            std=(1, 1, 1),
        )
        pixels = transform(preprocessing)(image)
        assert pixels.dtype == torch.uint8 and pixels.shape == (3, *crop)
        assert torch.equal(pixels, by_pillow(image, resize, crop, interpolation)), size

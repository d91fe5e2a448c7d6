"""Doctored references as files, and images as an autoencoder gives them back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tv

from spurbench.core import atomic
from spurbench.core.identity import derive_seed
from spurbench.evaluation.copies import DOCTORINGS, doctor
from spurbench.images.decode import decode_rgb


def doctored_files(
    references: Sequence[bytes], images: int, *, seed: int, vae: Any, resolution: int, folder: Path
) -> list[Path]:
    """Write doctored references, of each in turn, as 0000.png, 0001.png, ...

    Every second one of a reference is mirrored; all are cropped, shifted, lit otherwise and passed
    through the autoencoder, as generated images are.

    Args:
        references: encoded.
        images: how many.
        seed: of what is done to them.
        vae: diffusers' ``AutoencoderKL``.
        resolution: side of the images, pixels.
        folder: where.
    """
    decoded = [square(decode_rgb(data), resolution) for data in references]
    paths = []
    for i in range(images):
        turn, which = divmod(i, len(decoded))
        kinds = {*DOCTORINGS} if turn % 2 else {*DOCTORINGS} - {"mirror"}
        buffer = io.BytesIO()
        changed = doctor(decoded[which], kinds, derive_seed(seed, i))
        reconstruct(vae, changed).save(buffer, "PNG")
        paths.append(folder / f"{i:04d}.png")
        atomic.write_bytes(paths[-1], buffer.getvalue())
    return paths


def square(image: Image.Image, resolution: int) -> Image.Image:
    """The central square, as large as a generator's images."""
    return ImageOps.fit(image, (resolution, resolution))


@torch.inference_mode()
def reconstruct(vae: Any, image: Image.Image) -> Image.Image:
    """An image through the autoencoder, as all generated images went."""
    pixels = tv.pil_to_tensor(image)[None].to(vae.device).float() / 127.5 - 1
    decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0]
    restored: Image.Image = tv.to_pil_image((decoded / 2 + 0.5).clamp(0, 1).cpu())
    return restored

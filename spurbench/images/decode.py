"""From encoded bytes to an RGB image, or to the reason why not."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from spurbench.core.errors import SpurbenchError, reason

MAX_RATIO = 32
"""Long side by short side. Resizing a strip of one pixel by 60,000 would take gigabytes."""


class DamagedImageError(SpurbenchError):
    """An image that can't be decoded in full."""


def decode_rgb(data: bytes) -> Image.Image:
    """Decode an encoded image to RGB, in full and upright.

    EXIF orientation is applied; transparency is laid on white; 16-bit and float greys are scaled to
    8 bits, not clipped; CMYK, palette and one-bit images are converted; of an animation the first
    frame counts.

    Raises:
        DamagedImageError: if the bytes are not an image, end too early, or hold one that no
            photograph is like: too large, or a strip.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        # Pillow only warns of images up to twice its limit. Turning its warning into an error is no
        # way out: warning filters belong to the process, and this runs in threads.
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        if max(image.size) > MAX_RATIO * min(image.size):
            raise DamagedImageError(f"a strip of {image.width} x {image.height} pixels")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except DamagedImageError:
        raise
    except UnidentifiedImageError:
        raise DamagedImageError("not an image") from None
    except Image.DecompressionBombError:
        raise DamagedImageError("too large to be a photograph (decompression bomb?)") from None
    except Exception as error:  # what decoders raise on junk has no common ancestor
        raise DamagedImageError(reason(error)) from None
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        grey = np.asarray(image).astype(np.float64) / 65535 * 255
        return Image.fromarray(np.clip(grey.round(), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        grey = np.asarray(image).astype(np.float64)
        scale = 255 if grey.max() <= 1 else 1
        return Image.fromarray(np.clip(grey * scale, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def fault(data: bytes) -> str | None:
    """Why an encoded image can't be decoded; None if it can."""
    try:
        decode_rgb(data)
    except DamagedImageError as error:
        return str(error)
    return None

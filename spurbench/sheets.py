"""Contact sheets: labelled rows of images, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

Row = tuple[str, Sequence[Image.Image] | None]
"""A label and its images; None makes the label a heading."""


def contact_sheet(rows: Sequence[Row], *, side: int, label_width: int = 150) -> Image.Image:
    """Images of ``side`` x ``side`` pixels in labelled rows on white.

    Args:
        rows: from top to bottom.
        side: to which each image is resized.
        label_width: pixels left of the images.
    """
    heading, gap = 30, 2
    columns = max(len(images) for _, images in rows if images is not None)
    heights = [heading if images is None else side + gap for _, images in rows]
    sheet = Image.new("RGB", (label_width + columns * (side + gap), sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (label, images), height in zip(rows, heights, strict=True):
        if images is None:
            draw.text((4, top + 8), label, "black", ImageFont.load_default(16))
        else:
            draw.text((4, top + side // 2 - 8), label, "#333333", ImageFont.load_default(13))
            for column, image in enumerate(images):
                if image.size != (side, side):
                    image = image.resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(image, (label_width + column * (side + gap), top))
        top += height
    return sheet

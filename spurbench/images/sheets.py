"""Contact sheets: labelled rows of images, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

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


@dataclass(frozen=True)
class Captioned:
    """An image and the lines below it."""

    image: Image.Image
    lines: Sequence[str]


def captioned_sheet(
    pictures: Sequence[Captioned], *, heading: Sequence[str] = (), side: int = 144, columns: int = 6
) -> Image.Image:
    """Images in a grid on white, each with its lines of text below it.

    Args:
        pictures: from left to right and top to bottom.
        heading: lines above the grid.
        side: longest side to which each image is resized, pixels.
        columns: images in a row.
    """
    line, gap = 15, 10
    font, bold = ImageFont.load_default(12), ImageFont.load_default(14)
    text = line * max(len(picture.lines) for picture in pictures)
    width, height = side + gap, side + text + gap
    rows = -(-len(pictures) // columns)
    top = gap + (line + 5) * len(heading)
    sheet = Image.new("RGB", (gap + width * columns, top + height * rows), "white")
    draw = ImageDraw.Draw(sheet)
    for i, words in enumerate(heading):
        draw.text((gap, gap + i * (line + 5) - 3), words, "black", bold)
    for position, picture in enumerate(pictures):
        left = gap + width * (position % columns)
        upper = top + height * (position // columns)
        image = ImageOps.contain(picture.image, (side, side), Image.Resampling.LANCZOS)
        sheet.paste(image, (left, upper + side - image.height))
        for i, words in enumerate(picture.lines):
            shown = _fitting(words, font, side)
            draw.text((left, upper + side + 2 + i * line), shown, "black" if i else "#555555", font)
    return sheet


def _fitting(words: str, font: Any, width: int) -> str:
    """A line cut short, which an ellipsis says, to fit a width in pixels."""
    if font.getlength(words) <= width:
        return words
    while words and font.getlength(f"{words}…") > width:
        words = words[:-1]
    return f"{words}…"

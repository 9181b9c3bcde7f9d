"""Boxes drawn on images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageColor, ImageDraw, ImageFont

from mgpo_core.boxes.parse import Box

__all__ = ["COLORS", "draw_boxes"]

COLORS = ("#2563eb", "#ea580c", "#7c3aed", "#0d9488", "#db2777", "#65a30d")
"""The colours that boxes are given in turn when none are named."""


def draw_boxes(
    image: Image.Image, boxes: Sequence[Box], labels: Sequence[str] = (), colors: Sequence[str] = ()
) -> Image.Image:
    """A copy (RGB) of the image with the boxes drawn on it, lines scaled to its size.

    Boxes are in pixels of this image; parts outside are cut off and corners in the wrong order are drawn all the same;
    ValueError for a coordinate that is no finite number. `labels` and `colors` go with the boxes in order; where there
    are too few, boxes have no label and a colour of `COLORS`.
    """
    drawn = image.convert("RGB") if image.mode != "RGB" else image.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(max(image.size) / 300))
    font = ImageFont.load_default(size=max(10, width * 5))
    for index, box in enumerate(boxes):
        color = colors[index] if index < len(colors) else COLORS[index % len(COLORS)]
        corners = _corners(box, image.size, margin=2 * width)
        pen.rectangle(corners, outline=color, width=width)
        if index < len(labels) and labels[index]:
            _draw_label(pen, corners, labels[index], color, font, image.size)
    return drawn


def _corners(box: Box, size: tuple[int, int], margin: int) -> tuple[float, float, float, float]:
    """The box's inclusive pixel corners, ordered, no further outside the image than the margin."""
    if not all(math.isfinite(value) for value in box.as_tuple()):
        raise ValueError(f"box {box.as_tuple()} cannot be drawn: its coordinates must be finite")
    left, right = sorted(min(max(x, -margin), size[0] + margin) for x in (box.x1, box.x2))
    top, bottom = sorted(min(max(y, -margin), size[1] + margin) for y in (box.y1, box.y2))
    return left, top, max(left, right - 1), max(top, bottom - 1)


def _draw_label(
    pen: ImageDraw.ImageDraw,
    corners: tuple[float, float, float, float],
    label: str,
    color: str,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """The label on a plate above the box, moved inside the image where there is no room."""
    left, top, right, bottom = pen.textbbox((0, 0), label, font=font)
    pad = max(1.0, (bottom - top) / 4)
    plate_width, plate_height = right - left + 2 * pad, bottom - top + 2 * pad
    x = min(max(0.0, corners[0]), max(0.0, size[0] - plate_width))
    y = corners[1] - plate_height
    if y < 0:
        y = min(max(0.0, corners[1]), max(0.0, size[1] - plate_height))
    pen.rectangle((x, y, x + plate_width - 1, y + plate_height - 1), fill=color)
    red, green, blue = ImageColor.getrgb(color)[:3]
    dark_plate = 0.299 * red + 0.587 * green + 0.114 * blue < 150
    pen.text((x + pad - left, y + pad - top), label, fill="white" if dark_plate else "black", font=font)

"""Small copies of images as files, for pages and for the folders of runs."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

__all__ = ["DISPLAY_SIDE", "data_uri", "small_image"]

DISPLAY_SIDE = 900
"The longer side, in pixels, of the largest image that goes into a page."

_SHARP_AREA = 320 * 320
"Images up to this area in pixels (what small models see) are looked at enlarged, so they are kept sharp."


def data_uri(image: Image.Image, max_side: int = DISPLAY_SIDE) -> str:
    """The image as a data URI, no side longer than `max_side` pixels."""
    kind, data = small_image(image, max_side)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def small_image(image: Image.Image, max_side: int = DISPLAY_SIDE) -> tuple[str, bytes]:
    """("jpeg" or, where that costs little, "png", the file) of an image, no side longer than `max_side` pixels."""
    small = image.convert("RGB") if image.mode != "RGB" else image.copy()
    small.thumbnail((max_side, max_side), Image.Resampling.HAMMING, reducing_gap=2.0)
    if small.size != image.size or small.width * small.height > _SHARP_AREA:
        return "jpeg", _encoded(small, "JPEG", quality=80, optimize=True)
    data = _encoded(small, "JPEG", quality=92, subsampling=0)
    lossless = _encoded(small, "PNG")
    # drawings; photographs take more
    return ("png", lossless) if len(lossless) <= 3 * len(data) else ("jpeg", data)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()

"""Whether an image file is whole, found without decoding it where its end says so."""

from __future__ import annotations

import os
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from mgpo_core.budget import check_shape
from mgpo_core.errors import ImageError
from mgpo_core.pillow_limit import pillow_limit_lifted
from mgpo_core.sample import MAX_PIXELS, load_image
from mgpo_core.shown import one_line

__all__ = ["check_image"]

_ORIENTATION = 0x0112
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""The last bytes of a whole file of the format."""
_TAIL = 64


def check_image(source: str | bytes | os.PathLike[str], *, full: bool = False) -> tuple[int, int]:
    """(width, height) of an image after EXIF rotation.

    Raises FileNotFoundError, and ImageError if it cannot be read, is cut short, too large, too long for its width or an
    animation. Cheap for a JPEG or PNG that ends with its end mark: the header and the last bytes are read. Anything
    else is decoded: bytes behind the end mark (a motion photo, padding) are harmless. `full` decodes in any case.
    """
    try:
        return _check(source, full)
    except (FileNotFoundError, ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError("its format is not known; convert it to PNG or JPEG") from error
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes lead them to
        raise ImageError(f"{one_line(error)}; convert it to PNG or JPEG") from error


def _check(source: str | bytes | os.PathLike[str], full: bool) -> tuple[int, int]:
    # Pillow's own limit is lifted because ours, which is stated in the message, replaces it
    with pillow_limit_lifted(None):
        picture = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    with picture:
        width, height = picture.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"its {width}x{height} pixels are over the limit of {MAX_PIXELS:,}; scale it down")
        check_shape(width, height)
        kind = picture.format or ""
        if kind != "MPO" and getattr(picture, "is_animated", False):
            raise ImageError("it is an animation or has several pages; save the one you mean")
        # the base class's method: PNG's own decodes the whole picture to look behind it
        turned = Image.Image.getexif(picture).get(_ORIENTATION) in (5, 6, 7, 8)
    end = _ENDS.get(kind)
    whole = end is not None and (source[-_TAIL:] if isinstance(source, bytes) else _tail(source)).endswith(end)
    if full or not whole:
        try:
            load_image(source)
        except ImageError as error:
            if end is None or whole:
                raise
            raise ImageError(f"the {kind} file is cut short or damaged; copy it again") from error
    return (height, width) if turned else (width, height)


def _tail(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read()

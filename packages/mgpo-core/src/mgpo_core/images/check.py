"""Whether an image file is whole, found without decoding it where its end says so."""

from __future__ import annotations

import os
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from mgpo_core.errors import ImageError
from mgpo_core.images.budget import check_shape
from mgpo_core.images.load import MAX_PIXELS, load_image
from mgpo_core.images.pillow_limits import allow_large_images
from mgpo_core.messages.shown import one_line

__all__ = ["check_image"]

_ORIENTATION = 0x0112
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
"""The last bytes of a whole file of the format."""
_TAIL = 64
_HEAD = 512
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"BM": "BMP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
"""The first bytes of images that Pillow knows: what begins so and is not read is damaged."""
_NO_IMAGES = (
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the image; fetch it with git lfs pull"),
    (b"<!doctype html", "it is an HTML page, not an image; download the image itself"),
    (b"<html", "it is an HTML page, not an image; download the image itself"),
    (b"<svg", "it is an SVG drawing; save it as PNG"),
    (b"<?xml", "it is an XML text, perhaps an SVG drawing; save the image as PNG"),
    (b"{", "it is a JSON text, not an image; download the image itself"),
    (b"%pdf", "it is a PDF; save the page as PNG"),
)


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
    except Exception as error:  # Pillow's decoders raise whatever the broken bytes lead them to
        raise ImageError(_why_unreadable(source, error)) from error


def _check(source: str | bytes | os.PathLike[str], full: bool) -> tuple[int, int]:
    # Pillow's own limit is lifted because ours, which is stated in the message, replaces it
    with allow_large_images(None):
        image = Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"its {width}x{height} pixels are over the limit of {MAX_PIXELS:,}; scale it down")
        check_shape(width, height)
        kind = image.format or ""
        if kind != "MPO" and getattr(image, "is_animated", False):
            raise ImageError("it is an animation or has several pages; save the one you mean")
        # the base class's method: PNG's own decodes the whole image to look behind it
        turned = Image.Image.getexif(image).get(_ORIENTATION) in (5, 6, 7, 8)
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


def _why_unreadable(source: str | bytes | os.PathLike[str], error: Exception) -> str:
    """What a file is that cannot be opened as an image, and the remedy."""
    try:
        if not isinstance(source, bytes) and os.path.isdir(source):
            return "it is a folder; name an image in it"
        head = source[:_HEAD] if isinstance(source, bytes) else _head(source)
    except (OSError, ValueError) as unread:
        reason = getattr(unread, "strerror", None) or unread
        return f"{one_line(reason)}; give the path of an image that can be read"
    if not head:
        return "it is empty (0 bytes); copy it again"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    known = next((words for beginning, words in _NO_IMAGES if start.startswith(beginning)), None)
    kind = next((name for beginning, name in _BEGINNINGS.items() if head.startswith(beginning)), None)
    if known is not None or kind is not None:
        return known or f"the {kind} file is cut short or damaged; copy it again"
    reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else one_line(error)
    return f"{reason}; convert it to PNG or JPEG"


def _head(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def _tail(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
        return file.read()

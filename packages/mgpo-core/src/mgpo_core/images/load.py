"""Images from any source, decoded with limits: RGB, upright, or an ImageError that names the file and the remedy."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps

from mgpo_core.errors import ImageError
from mgpo_core.images.budget import MAX_ASPECT
from mgpo_core.images.pillow_limits import allow_large_images, truncated_refused
from mgpo_core.images.source import from_uri, is_uri
from mgpo_core.messages.shown import one_line, show

MAX_PIXELS = 400_000_000


_ORIENTATION = 0x0112


# An image, a file, its bytes, datasets' {"bytes": ..., "path": ...}, or a function that renders it on demand.
ImageSource: TypeAlias = Image.Image | str | os.PathLike[str] | bytes | Mapping[str, Any] | Callable[[], Image.Image]


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """Any ImageSource as an RGB image with its EXIF orientation applied once.

    Transparency is laid on white, 16-bit grey is scaled to 8 bits. Raises ImageError, naming the file (or `name`) and
    the remedy, for an image that is missing, truncated, corrupt, animated, empty or over `max_pixels`; the size is
    checked on the header, before anything is decoded.
    """
    who = _describe(source, name)
    with ExitStack() as files:
        image = _open(source, who, files)
        _check(image, max_pixels, who)
        try:
            with allow_large_images(image.width * image.height), truncated_refused():
                image.load()
            if image.getexif().get(_ORIENTATION, 1) != 1:
                image = ImageOps.exif_transpose(image)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever the broken bytes lead them to
            raise ImageError(
                f"{who} is truncated or corrupt ({type(error).__name__}: {one_line(error)}); "
                "replace the file or drop the sample"
            ) from error
        rgb = _to_rgb(image, who)
        if isinstance(source, Image.Image) or callable(source):
            return rgb  # the very object handed in, if it was RGB and upright
        if isinstance(rgb, ImageFile.ImageFile):
            rgb = rgb.copy()  # lets go of the file
        rgb.info.clear()
        return rgb


def _describe(source: ImageSource, name: str | None) -> str:
    if isinstance(source, Mapping) and source.get("path"):
        source = str(source["path"])
    path = show(str(source), 200) if isinstance(source, (str, os.PathLike)) else ""
    return f"{name} ({path})" if name and path else name or path or f"the image given as {type(source).__name__}"


def _open(source: ImageSource, who: str, files: ExitStack) -> Image.Image:
    """The image, of a file with no more than its header read yet; `files` closes what was opened."""
    if isinstance(source, Mapping):
        source = source["bytes"] if source.get("bytes") is not None else source.get("path") or b""
    if isinstance(source, Image.Image):
        return source
    if callable(source):
        image = source()
        if not isinstance(image, Image.Image):
            raise ImageError(f"{who}: the function returned {type(image).__name__}; return a PIL.Image.Image")
        return image
    if not isinstance(source, (bytes, bytearray, memoryview, str, os.PathLike)):
        raise ImageError(f"{who} is not an image; give a PIL image, a path, bytes or a function that returns an image")
    if isinstance(source, str) and is_uri(source):
        source = _from_uri(source, who)
    try:
        file: IO[bytes]
        if isinstance(source, (str, os.PathLike)):
            file = files.enter_context(open(source, "rb"))  # noqa: SIM115 (it is closed by the stack)
        else:
            file = files.enter_context(io.BytesIO(source))
        with allow_large_images(None):  # reads the header only; _check holds our own limit
            return Image.open(file)
    except FileNotFoundError as error:
        raise ImageError(f"{who} does not exist; check the path and the folder it is relative to") from error
    except Exception as error:
        raise ImageError(
            f"{who} cannot be read as an image ({type(error).__name__}: {one_line(error)}); "
            "convert it to PNG or JPEG, or drop the sample"
        ) from error


def _from_uri(text: str, who: str) -> bytes | str:
    if not text[:5].lower().startswith(("data:", "file:")):
        raise ImageError(f"{who} is a URL; download the image and give its path")
    try:
        return from_uri(text)
    except ImageError as error:
        raise ImageError(f"{who} {error}") from error


def _check(image: Image.Image, max_pixels: int, who: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{who} is empty ({width}x{height} pixels); replace it or drop the sample")
    if width * height > max_pixels:
        raise ImageError(
            f"{who} has {width}x{height} = {width * height:,} pixels, over the limit of {max_pixels:,}; "
            "scale it down, cut it into tiles, or raise max_pixels"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"{who} has {width}x{height} pixels: it is more than {MAX_ASPECT} times as long as it is wide; "
            "cut or pad it before use"
        )
    try:
        # an MPO file is a JPEG with previews or a depth map behind the image: phones write them
        animated = getattr(image, "is_animated", False) and image.format != "MPO"
    except Exception as error:
        raise ImageError(
            f"{who} is truncated or corrupt ({one_line(error)}); replace the file or drop the sample"
        ) from error
    if animated:
        raise ImageError(
            f"{who} holds {getattr(image, 'n_frames', 'several')} frames (an animation or several pages); "
            "save the one you mean as a separate image"
        )


def _to_rgb(image: Image.Image, who: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scaled_16_bit(image, who)
    try:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            rgba = image.convert("RGBA")
            white = Image.new("RGB", image.size, "white")
            white.paste(rgba, mask=rgba.getchannel("A"))
            return white
        if image.mode != "F":
            return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{who} has the mode {image.mode}, which is not supported; save it as RGB") from error
    raise ImageError(f"{who} holds floating-point numbers of unknown range; save it as an 8-bit or 16-bit image")


def _scaled_16_bit(image: Image.Image, who: str) -> Image.Image:
    """0..65535 to 0..255 (Pillow's own conversion clips instead)."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{who} holds values beyond 16 bits; save it as an 8-bit or 16-bit image")
    grey = np.round(values / np.float32(257)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")

"""A visitor's image: kept in a folder of its own, shown as a copy of bounded size.

Only ordinary kinds of images are opened: Pillow also has decoders that call other programs (Ghostscript for EPS), and
nobody's upload should reach these.
"""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mgpo_core import Box, load_image
from mgpo_core.images.budget import PixelBudget
from mgpo_core.images.encode import small_image
from mgpo_core.images.load import ImageSource
from mgpo_core.images.pillow_limits import allow_large_images
from mgpo_demo.session.limits import DemoError, Limits

__all__ = ["DISPLAY_SIDE", "FORMATS", "DemoImage", "decode", "keep_image", "keep_upload"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""Pillow's names of what may be uploaded; the MPO that phones write comes in as JPEG."""

DISPLAY_SIDE = 1600
"""The longer side, in pixels, of what the browser is sent of an image; boxes are drawn on that copy."""


@dataclass(frozen=True)
class DemoImage:
    """The original in a file, its (width, height), and the copy that the page shows."""

    path: Path
    name: str
    size: tuple[int, int]
    shown: Path
    shown_size: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the original for a pixel of the copy, across and down."""
        return self.size[0] / self.shown_size[0], self.size[1] / self.shown_size[1]

    def to_shown(self, box: Box) -> Box:
        """A box of the original in whole pixels of the copy, at least one wide and high."""
        across, down = self.scale
        x1, y1, x2, y2 = (round(value) for value in box.clipped(*self.size).scaled(1 / across, 1 / down).as_tuple())
        x1, y1 = min(x1, self.shown_size[0] - 1), min(y1, self.shown_size[1] - 1)
        return Box(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))

    def to_original(self, box: Box) -> Box:
        """A box of the copy in pixels of the original, corners in order, inside the image."""
        (x1, x2), (y1, y2) = sorted((box.x1, box.x2)), sorted((box.y1, box.y2))
        return Box(x1, y1, x2, y2).scaled(*self.scale).clipped(*self.size)

    def part(self, area: Box, folder: Path) -> Path:
        """The file of a part of the original (whole pixels), lossless, written into `folder`."""
        x1, y1, x2, y2 = (int(value) for value in area.as_tuple())
        path = folder / f"part-{x1}-{y1}-{x2}-{y2}.png"
        if not path.exists():
            load_image(self.path).crop((x1, y1, x2, y2)).save(path, compress_level=1)
        return path


def keep_upload(upload: Path, name: str, folder: Path, limits: Limits) -> DemoImage:
    """Take a file that was uploaded as an image into `folder`; the upload itself is left alone.

    Raises DemoError for one of too many bytes or pixels and for what is not a usual kind of image, ImageError for one
    that is corrupt, animated or over 200 times as long as it is wide.
    """
    shown_name = (Path(name).name or "image")[:100]
    limits.check_upload(upload.stat().st_size, f"the file {shown_name!r}")
    with upload.open("rb") as file:
        data = file.read()
    image = decode(data, f"the file {shown_name!r}", limits)
    PixelBudget().smart_resize(*image.size)  # no model can be shown what it refuses
    path = folder / f"image{upload.suffix.lower()[:8]}"
    shutil.copyfile(upload, path)
    return _image(path, shown_name, image)


def decode(data: bytes, what: str, limits: Limits, *, taken: int = 0) -> Image.Image:
    """The image of a file that came from outside, RGB and upright; `taken` pixels of what is allowed are used up.

    Its kind and size are checked on the header, before anything is decoded.
    """
    try:
        with allow_large_images(None):
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow raises whatever the broken bytes lead it to
        raise DemoError(
            f"{what} is not an image that can be opened; give a PNG, JPEG, WebP, BMP, GIF, TIFF or AVIF"
        ) from error
    with opened:
        limits.check_pixels(opened.size, what)
        if taken + opened.width * opened.height > limits.pixels:
            raise DemoError(f"{what} and those before it have over {limits.megapixels:,} million pixels together")
        image = load_image(opened, max_pixels=limits.pixels, name=what)
        image = image.copy() if image is opened else image
    image.info.clear()
    return image


def keep_image(source: ImageSource, name: str, folder: Path) -> DemoImage:
    """Keep an image that the demo itself brings (an example) in `folder`, lossless."""
    image = load_image(source)
    path = folder / "image.png"
    image.save(path, compress_level=1)
    return _image(path, name, image)


def _image(path: Path, name: str, image: Image.Image) -> DemoImage:
    kind, data = small_image(image, DISPLAY_SIDE)
    shown = path.with_name(f"shown.{kind}")
    shown.write_bytes(data)
    with Image.open(shown) as copy:
        return DemoImage(path, name, image.size, shown, copy.size)

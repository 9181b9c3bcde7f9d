"""A visitor's picture: kept in a folder of its own, shown as a copy of bounded size."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mgpo_core import Box, load_image
from mgpo_core.report_card import small_picture
from mgpo_core.sample import ImageSource
from mgpo_demo.limits import Limits

__all__ = ["DISPLAY_SIDE", "Picture", "keep_image", "keep_upload"]

DISPLAY_SIDE = 1600
"""The longer side, in pixels, of what the browser is sent of a picture; boxes are drawn on that copy."""


@dataclass(frozen=True)
class Picture:
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
        return Box(x1, y1, max(x2, x1 + 1), max(y2, y1 + 1))

    def to_original(self, box: Box) -> Box:
        """A box of the copy in pixels of the original, corners in order, inside the picture."""
        (x1, x2), (y1, y2) = sorted((box.x1, box.x2)), sorted((box.y1, box.y2))
        return Box(x1, y1, x2, y2).scaled(*self.scale).clipped(*self.size)

    def part(self, area: Box, folder: Path) -> Path:
        """The file of a part of the original (whole pixels), lossless, written into `folder`."""
        corners = tuple(int(value) for value in area.as_tuple())
        path = folder / f"part-{'-'.join(map(str, corners))}.png"
        if not path.exists():
            load_image(self.path).crop(corners).save(path, compress_level=1)
        return path


def keep_upload(upload: Path, name: str, folder: Path, limits: Limits) -> Picture:
    """Take a file that was uploaded as a picture into `folder`; the upload itself is left alone.

    Raises DemoError for one of too many bytes, ImageError for what is no picture, is corrupt or has too many pixels.
    """
    shown_name = Path(name).name or "picture"
    limits.check_upload(upload.stat().st_size, f"{shown_name!r}")
    image = load_image(upload, max_pixels=limits.pixels, name=f"The file {shown_name!r}")
    path = folder / f"picture{upload.suffix.lower()[:8]}"
    shutil.copyfile(upload, path)
    return _picture(path, shown_name, image)


def keep_image(source: ImageSource, name: str, folder: Path) -> Picture:
    """Keep a picture that the demo itself brings (an example) in `folder`, lossless."""
    image = load_image(source)
    path = folder / "picture.png"
    image.save(path, compress_level=1)
    return _picture(path, name, image)


def _picture(path: Path, name: str, image: Image.Image) -> Picture:
    kind, data = small_picture(image, DISPLAY_SIDE)
    shown = path.with_name(f"shown.{kind}")
    shown.write_bytes(data)
    with Image.open(shown) as copy:
        return Picture(path, name, image.size, shown, copy.size)

"""A box on an image, and the spaces its coordinates live in."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from mgpo_core.messages.suggest import nearest

__all__ = ["Box", "CoordinateSpace", "Size", "iou"]

Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle from corner (x1, y1) to corner (x2, y2) on the `image`-th image (0-based) of its sample.

    Plain numbers: the unit is that of the space the box is used in (see CoordinateSpace), and nothing is checked here.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    image: int = 0

    @property
    def width(self) -> float:
        """x2 - x1; negative for a reversed box."""
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        """y2 - y1; negative for a reversed box."""
        return self.y2 - self.y1

    @property
    def area(self) -> float:
        """Width times height, 0 for a reversed box."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def center(self) -> tuple[float, float]:
        """The middle point (x, y)."""
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    def contains(self, x: float, y: float) -> bool:
        """Whether the point lies inside or on the border."""
        return self.x1 <= x <= self.x2 and self.y1 <= y <= self.y2

    def scaled(self, sx: float, sy: float) -> Box:
        """The box with x multiplied by `sx` and y by `sy`."""
        return Box(self.x1 * sx, self.y1 * sy, self.x2 * sx, self.y2 * sy, self.image)

    def clipped(self, width: float, height: float) -> Box:
        """The box with its corners moved into 0..width and 0..height."""
        x1, x2 = (min(max(x, 0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0), height) for y in (self.y1, self.y2))
        return Box(x1, y1, x2, y2, self.image)

    def as_tuple(self) -> tuple[float, float, float, float]:
        """(x1, y1, x2, y2)."""
        return self.x1, self.y1, self.x2, self.y2

    def in_words(self) -> str:
        """Its image, from 1, and its corners in whole numbers: how an answer over several images is logged."""
        return f"image {self.image + 1}: {[round(value) for value in self.as_tuple()]}"


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0..1; 0 when the boxes lie on different images or one of them has no area."""
    if a.image != b.image or not a.area > 0 or not b.area > 0:
        return 0.0
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    # areas that overflow a double have no ratio
    share = width * height / (a.area + b.area - width * height)
    return min(share, 1.0) if math.isfinite(share) else 0.0


class CoordinateSpace(enum.Enum):
    """What the numbers a model writes mean; sizes are (width, height) in pixels throughout."""

    ABSOLUTE = "absolute"  # pixels of the resized image the model sees (Qwen2.5-VL)
    RELATIVE_1000 = "0-1000"  # thousandths of the width and of the height (Qwen3-VL)

    @classmethod
    def parse(cls, name: str | CoordinateSpace) -> CoordinateSpace:
        """The space called `name`; raises ValueError with the nearest right name."""
        if isinstance(name, cls):
            return name
        names = [space.value for space in cls]
        try:
            return cls(name)
        except ValueError:
            raise ValueError(f"unknown coordinate space {name!r}: {nearest(str(name), names)}") from None

    def _extent(self, input_size: Size) -> Size:
        return input_size if self is CoordinateSpace.ABSOLUTE else (1000, 1000)

    def to_original(self, box: Box, input_size: Size, original_size: Size) -> Box:
        """A model's box in pixels of the original image, unrounded."""
        return _mapped(box, self._extent(input_size), original_size)

    def from_original(self, box: Box, input_size: Size, original_size: Size) -> Box:
        """A box in original pixels as the model would write it, unrounded."""
        return _mapped(box, original_size, self._extent(input_size))

    def to_input(self, box: Box, input_size: Size) -> Box:
        """A model's box in pixels of the resized image."""
        return _mapped(box, self._extent(input_size), input_size)


def _mapped(box: Box, source: Size, target: Size) -> Box:
    if source == target:
        return box
    # multiply, then divide: a result that is a whole number comes out whole, so outward rounding adds no pixel
    (sw, sh), (tw, th) = source, target
    return Box(box.x1 * tw / sw, box.y1 * th / sh, box.x2 * tw / sw, box.y2 * th / sh, box.image)

"""How many pixels, and so how many tokens, an image may cost the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from mgpo_core.errors import ImageError

MAX_ASPECT = 200  # the Qwen2-VL image processor refuses anything longer


def check_shape(width: int, height: int) -> None:
    """Raise ImageError for an image (pixels) that no budget has a size for: an empty one, or one over 200 times as long
    as it is wide."""
    if width < 1 or height < 1:
        raise ImageError(f"an image of {width}x{height} pixels is empty; leave the sample out or fix its image")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"an image of {width}x{height} pixels is more than {MAX_ASPECT} times as long as it is wide; "
            "cut or pad it before use"
        )


@dataclass(frozen=True)
class PixelBudget:
    """The range of pixels an image is resized into; `factor` is the side in pixels of one visual token."""

    min_pixels: int = 200_704
    max_pixels: int = 1_003_520
    factor: int = 28

    def __post_init__(self) -> None:
        if self.factor < 1 or not 1 <= self.min_pixels <= self.max_pixels or self.max_pixels < self.factor**2:
            raise ValueError(
                f"{self} is no budget: it needs factor >= 1, 1 <= min_pixels <= max_pixels and max_pixels >= factor**2"
            )

    def smart_resize(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) in pixels that an image of this size is shown at: multiples of `factor` in the budget.

        The rule of transformers' Qwen2-VL image processor, its banker's rounding included; raises ImageError for an
        empty image and for an aspect ratio over 200.
        """
        check_shape(width, height)
        factor = self.factor
        new_width, new_height = round(width / factor) * factor, round(height / factor) * factor
        if new_width * new_height > self.max_pixels:
            beta = math.sqrt((height * width) / self.max_pixels)
            new_width = max(factor, math.floor(width / beta / factor) * factor)
            new_height = max(factor, math.floor(height / beta / factor) * factor)
        elif new_width * new_height < self.min_pixels:
            beta = math.sqrt(self.min_pixels / (height * width))
            new_width = math.ceil(width * beta / factor) * factor
            new_height = math.ceil(height * beta / factor) * factor
        return new_width, new_height

    def tokens(self, width: int, height: int) -> int:
        """How many visual tokens an image of this size takes once resized into the budget."""
        new_width, new_height = self.smart_resize(width, height)
        return (new_width // self.factor) * (new_height // self.factor)

    def resize(self, image: Image.Image) -> Image.Image:
        """`image` at its smart_resize size (bicubic); the same object when it already has it."""
        size = self.smart_resize(*image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)

"""Which boxes are valid, and the crop that a valid box earns: cut from the original, resized into the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from mgpo_core.boxes.parse import Box, CoordinateSpace, Rejection
from mgpo_core.images.budget import MAX_ASPECT, PixelBudget
from mgpo_core.images.pillow_limits import allow_large_images


@dataclass(frozen=True)
class CropRules:
    """Bounds on a box, in pixels of the resized image (defaults: the published code's)."""

    min_side: float = 28  # each side must be longer
    max_aspect: float = 100  # the long side over the short one must be smaller


@dataclass(frozen=True)
class CropOutcome:
    """The crop resized into the budget and its box in whole original pixels, or the Rejection value that says why not.

    `image` and `box_original` are None when refused; `reason` is None otherwise.
    """

    image: Image.Image | None
    box_original: Box | None
    reason: str | None


def check_box(box: Box, input_size: tuple[int, int], *, space: CoordinateSpace, rules: CropRules) -> str | None:
    """None when `box` (in `space`) is valid on an image shown at `input_size`, else the Rejection value."""
    if not all(map(math.isfinite, box.as_tuple())):
        return Rejection.NOT_FOUR_NUMBERS.value
    box = space.to_input(box, input_size)
    if not (box.x1 < box.x2 and box.y1 < box.y2):
        return Rejection.REVERSED.value
    if box.x1 < 0 or box.y1 < 0 or box.x2 > input_size[0] or box.y2 > input_size[1]:
        return Rejection.OUTSIDE.value
    short, long = sorted((box.width, box.height))
    if short <= rules.min_side:
        return Rejection.TOO_SMALL.value
    if long >= rules.max_aspect * short:
        return Rejection.TOO_ELONGATED.value
    return None


def crop(
    image: Image.Image, box: Box, *, budget: PixelBudget, space: CoordinateSpace, rules: CropRules = CropRules()
) -> CropOutcome:
    """Cut `box` (in `space`, on `image` as the budget shows it) out of the original `image`.

    The box is rounded outward to whole original pixels and clipped; the cut is resized once, bicubic, into the budget.
    """
    input_size = budget.smart_resize(*image.size)
    reason = check_box(box, input_size, space=space, rules=rules)
    if reason is not None:
        return CropOutcome(None, None, reason)
    whole = _outward(space.to_original(box, input_size, image.size)).clipped(*image.size)
    if max(whole.width, whole.height) > MAX_ASPECT * min(whole.width, whole.height):
        # possible under looser rules only; the budget has no size for it
        return CropOutcome(None, None, Rejection.TOO_ELONGATED.value)
    with allow_large_images(image.width * image.height):  # it passed load_image's limit
        cut = image.crop((int(whole.x1), int(whole.y1), int(whole.x2), int(whole.y2)))
    return CropOutcome(budget.resize(cut), whole, None)


def _outward(box: Box) -> Box:
    return Box(math.floor(box.x1), math.floor(box.y1), math.ceil(box.x2), math.ceil(box.y2), box.image)

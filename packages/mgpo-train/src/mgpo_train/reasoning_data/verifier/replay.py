"""Episodes over annotated sets; images of known size need not be decoded to know what boxes in them mean."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from PIL import Image

from mgpo_core.boxes.parse import CoordinateSpace, Size
from mgpo_core.episodes.episode import Episode
from mgpo_core.images.budget import PixelBudget
from mgpo_core.samples.annotations import AnnotatedSet
from mgpo_core.templates.base import Template

__all__ = ["replay"]


def replay(
    annotated: AnnotatedSet, *, budget: PixelBudget, space: CoordinateSpace, template: Template, **rest: Any
) -> Episode:
    """An episode over a set, with blank images where the sizes are known; `rest` goes to `Episode`."""
    blanks = [_blank(size) for size in annotated.sizes] or None
    return Episode(annotated.sample(), template=template, budget=budget, space=space, **{"originals": blanks} | rest)


class _Blank(Image.Image):
    """A black image whose resizing reads no pixels."""

    def resize(self, size: Any, *_: Any, **__: Any) -> Image.Image:
        return Image.new("RGB", size)


@lru_cache(maxsize=8)
def _blank(size: Size) -> Image.Image:
    blank = Image.new("RGB", size)
    blank.__class__ = _Blank
    return blank

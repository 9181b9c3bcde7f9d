"""Boxes inside texts: a marker where one is spoken of, written out in the numbers that the model reads and writes.

A question may point at a part of an image ("the object at <region>"), and a taught reasoning may as well. Their numbers
depend on the pixel budget and on the coordinate space, so texts hold markers, and boxes lie beside them in pixels of
the originals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mgpo_core.boxes.parse import Box, CoordinateSpace, Size
from mgpo_core.errors import SampleError

__all__ = ["REGION", "View", "WorkedSolution", "check_regions"]

REGION = "<region>"
"""Stands in a text for a box of `regions`, in order."""


@dataclass(frozen=True)
class View:
    """How the images of a sample are seen: the space of boxes, and (width, height) of each as shown and as it is."""

    space: CoordinateSpace
    input_sizes: Sequence[Size]
    original_sizes: Sequence[Size]

    def numbers(self, box: Box) -> list[int]:
        """A box of original pixels as the model would write it: whole numbers, inside, at least 1 wide and high."""
        extent = self.input_sizes[box.image] if self.space is CoordinateSpace.ABSOLUTE else (1000, 1000)
        shown = self.space.from_original(box, self.input_sizes[box.image], self.original_sizes[box.image])
        x1, x2 = _whole(shown.x1, shown.x2, extent[0])
        y1, y2 = _whole(shown.y1, shown.y2, extent[1])
        return [x1, y1, x2, y2]

    def write_out(self, text: str, regions: Sequence[Box]) -> str:
        """`text` with each `<region>` replaced by its box, `[x1, y1, x2, y2]`."""
        if not regions:
            return text
        first, *rest = text.split(REGION)
        return first + "".join(f"{self.numbers(box)}{part}" for box, part in zip(regions, rest, strict=True))


def _whole(low: float, high: float, extent: int) -> tuple[int, int]:
    start = min(max(round(low), 0), extent - 1)
    return start, min(max(round(high), start + 1), extent)


@dataclass(frozen=True)
class WorkedSolution:
    """What supervised training teaches a model to say: its reasoning, then a box as the answer.

    `reasoning` may hold `<region>` markers, one for each of `regions`; boxes are pixels of the originals and
    `Box.image` counts from 0.
    """

    reasoning: str
    box: Box
    label: str = ""
    regions: tuple[Box, ...] = ()

    def __post_init__(self) -> None:
        check_regions("a solution's reasoning", self.reasoning, self.regions)


def check_regions(who: str, text: str, regions: Sequence[Box]) -> None:
    """Raise SampleError unless `text` has a marker for each of `regions`."""
    marks = text.count(REGION) if regions else 0
    if marks != len(regions):
        raise SampleError(f"{who}: {len(regions)} regions for {marks} {REGION} in {text!r:.120}: give one for each")
